"""Webhooks to customers: which events there are, how they are signed, and where they may go."""

import base64
import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from replyline.errors import JobError, Permanent, RateLimited, Temporary

EVENTS: Mapping[str, str] = {
    "message.received": "a person wrote, and the message is saved",
    "message.sent": "a message of yours was accepted by its channel, or is in the widget's log",
    "message.delivered": "a message of yours reached the person's device",
    "message.read": "a message of yours was read",
    "message.failed": "a message of yours will not reach the person; error_reason says why",
}
"""Every event type with its meaning; `store/moves/announce.py` and its callers write their payloads."""

_SECRET_PREFIX = "whsec_"  # noqa: S105  the prefix is public (Standard Webhooks, "Signature scheme")
_SECRET_BYTES = 24
_HEAD_CHARS = 500
_HEAD_BYTES = 4096
_LONGEST_WAIT_S = 3600.0


class RefusedAddress(OSError):
    """The host is, or resolves to, an address inside our network: a webhook must not be a way in."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One HTTP call to a customer's endpoint; `error` is None if and only if it was delivered."""

    duration_ms: int
    status_code: int | None
    response_head: str | None
    error: JobError | None
    kind: str
    """For the metric: 2xx, 3xx, 4xx, 5xx, timeout, connection or refused_address."""


def new_secret() -> str:
    """A signing secret as Standard Webhooks wants it: `whsec_` and 24 random bytes in base64."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(secret: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks ("Signature scheme"): HMAC-SHA256 over id, Unix seconds and body."""
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    signed = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def check_url(url: str, *, allow_private: bool) -> None:
    """Check what can be known of an endpoint's URL without asking anybody.

    Raises:
        ValueError: it will never be delivered to; the message says why.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("the URL cannot be read") from error
    schemes = ("http", "https") if allow_private else ("https",)
    if parts.scheme not in schemes:
        raise ValueError(f"the URL must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.username or parts.password:
        raise ValueError("the URL must not contain a user or password: events are signed instead")
    if port == 0:
        raise ValueError("port 0 is no port")
    if not allow_private and _is_inside(parts.hostname):
        raise ValueError("the URL leads to a private or local address")


def _is_inside(host: str) -> bool:
    """Whether `host` is a literal address that is not on the public Internet (IANA special-purpose registries)."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host.lower().rstrip(".") in {"localhost", "ip6-localhost"}
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if mapped is not None:
        return _is_inside(str(mapped))
    return not address.is_global or address.is_multicast


class VettedResolver(AbstractResolver):
    """Resolves names, but gives only addresses on the public Internet: what is checked is what is connected to."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises RefusedAddress if one of them is inside."""
        found = await self._resolver.resolve(host, port, family)
        if any(_is_inside(result["host"]) for result in found):
            raise RefusedAddress(f"{host} resolves to a private or local address")
        return found

    async def close(self) -> None:
        """Nothing is open."""
        await self._resolver.close()


def open_webhook_session(*, allow_private: bool, timeout_s: float) -> aiohttp.ClientSession:
    """The session for webhooks: no cookies, no proxies, addresses vetted unless `allow_private`; `timeout_s` for a whole call."""
    resolver = None if allow_private else VettedResolver()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver, limit=500, limit_per_host=50, ttl_dns_cache=30),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(5.0, timeout_s)),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "Replyline-Webhooks/1"},
    )


async def deliver(
    session: aiohttp.ClientSession, *, url: str, secret: str, event_id: str, body: bytes, allow_private: bool
) -> Outcome:
    """Post one signed event; redirects are not followed. What went wrong is in the outcome, never raised."""
    started = time.perf_counter()

    def outcome(kind: str, error: JobError | None, status: int | None = None, head: str | None = None) -> Outcome:
        return Outcome(round((time.perf_counter() - started) * 1000), status, head, error, kind)

    try:
        check_url(url, allow_private=allow_private)  # literal addresses never reach a resolver
    except ValueError as error:
        return outcome("refused_address", Permanent(str(error), reason="refused_address"))
    headers = {"Content-Type": "application/json", **sign(secret, event_id, int(time.time()), body)}
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            raw = await response.content.read(_HEAD_BYTES)
            head = raw.decode(errors="replace").replace("\x00", "")[:_HEAD_CHARS] or None
            failed = _judge(response.status, response.headers)
            return outcome(f"{response.status // 100}xx", failed, response.status, head)
    except TimeoutError:
        return outcome("timeout", Temporary("the endpoint did not answer in time", reason="timeout"))
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, RefusedAddress) or isinstance(error.__cause__, RefusedAddress):
            return outcome("refused_address", Permanent(str(error.__cause__ or error), reason="refused_address"))
        return outcome(
            "connection", Temporary(f"the endpoint cannot be reached: {type(error).__name__}", reason="connection")
        )


def _judge(status: int, headers: Mapping[str, str]) -> JobError | None:
    """Customers repair their endpoints within the long schedule: nearly everything is worth another try."""
    if 200 <= status < 300:
        return None
    said = f"the endpoint answered {status}"
    if status == 410:  # Standard Webhooks, "Sending webhooks": 410 asks us to stop
        return Permanent(said, reason="endpoint_gone")
    if status in {429, 503} and (wait_s := _retry_after_s(headers)) is not None:
        return RateLimited(said, after=wait_s, reason="endpoint_asks_to_wait")
    return Temporary(said, reason="redirect" if 300 <= status < 400 else f"http_{status}")


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    try:
        return min(max(float(headers.get("Retry-After", "")), 1.0), _LONGEST_WAIT_S)
    except ValueError:
        return None

"""Webhooks to customers: which events there are, how they are signed, and where they may go."""

import base64
import email.utils
import hashlib
import hmac
import ipaddress
import math
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from replyline.errors import JobError, Permanent, RateLimited, Temporary

EVENTS: Mapping[str, str] = {
    "message.received": "a person wrote, and the message is saved",
    "message.sent": "a message of yours was accepted by its channel, or is in the widget's log",
    "message.delivered": "a message of yours reached the person's device",
    "message.read": "a message of yours was read",
    "message.failed": "a message of yours will not reach the person; error_reason says why",
    "channel.unhealthy": "a channel of yours cannot send: its messages are held; error_reason says why",
    "channel.healthy": "a channel of yours can send again; what it held goes out",
    "channel.quality_changed": "Meta rates a number of yours anew, or changes how many people it may write to first",
    "channel.template_status_changed": "a template of yours was approved, rejected, paused, rated or put into another category",
    "channel.account_changed": "Meta says something of your account: a violation, a restriction, a review, a name, an alert",
    "contact.updated": "a person stopped marketing messages, or wants them again",
}
"""Every event type with its meaning; `store/moves/announce.py` and its callers write their payloads, `sample` shows them."""

_SAMPLE: Mapping[str, str | int] = {
    "message_id": "019abc10-5f2e-7c31-9d10-3a5b7c9d1e2f",
    "conversation_id": "019abc10-5f2a-7e02-8b44-1f2e3d4c5b6a",
    "contact_id": "019abc10-5f2a-7e02-8b44-0a1b2c3d4e5f",
    "chatbot_id": "019abc0f-1111-7aaa-9bbb-222233334444",
    "channel_id": "019abc0f-2222-7aaa-9bbb-222233335555",
    "channel": "WHATSAPP_CLOUD",
}

_NOTICE_SAMPLES: Mapping[str, Mapping[str, object]] = {
    "channel.quality_changed": {
        "event": "FLAGGED",
        "limit": "TIER_10K",
        "old_limit": "TIER_100K",
        "phone_number": "15550783881",
    },
    "channel.template_status_changed": {
        "change": "status",
        "status": "REJECTED",
        "quality": None,
        "category": "UTILITY",
        "template_id": "1689556908129832",
        "template_name": "order_confirmation",
        "language": "en_US",
        "reason": "INVALID_FORMAT",
        "is_fallback": False,
    },
    "channel.account_changed": {
        "change": "account_update",
        "event": "ACCOUNT_VIOLATION",
        "info": {"event": "ACCOUNT_VIOLATION", "violation_info": {"violation_type": "SPAM"}},
    },
    "contact.updated": {
        "contact_id": _SAMPLE["contact_id"],
        "wa_id": "16505551234",
        "user_id": "US.13491208655302741918",
        "marketing_opted_out": True,
        "changed_at": "2026-11-24T10:00:00+00:00",
    },
}

_SECRET_PREFIX = "whsec_"  # noqa: S105  the prefix is public (Standard Webhooks, "Signature scheme")
_SECRET_BYTES = 24
_HEAD_CHARS = 500
_HEAD_BYTES = 4096
_LONGEST_WAIT_S = 3600.0
# An endpoint that answers "again in 0 seconds" for ever uses up no attempt: it must not fill our tables meanwhile.
_SHORTEST_WAIT_S = 5.0
# What no endpoint is at, whatever Python's `is_global` says, which differs by release: the IANA special-purpose registries of
# IPv4 and IPv6 (those that reach a router, a relay or a translator too: 192.88.99.0/24, 2002::/16, 64:ff9b::/96), and ranges that
# are not in them but may lead to an IPv4 address or a router inside: IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765),
# site-local (RFC 3879), and what Azure answers its own machines at. IPv4-mapped addresses are looked at as IPv4.
_RANGES_INSIDE = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.31.196.0/24
192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4
::/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20
5f00::/16 fc00::/7 fe80::/10
::ffff:0:0:0/96 fec0::/10 168.63.129.16/32
"""
_INSIDE = tuple(ipaddress.ip_network(text) for text in _RANGES_INSIDE.split())


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


def sample(event_type: str) -> dict[str, object]:
    """An event of that type as an endpoint gets it, with ids that mean nothing.

    Raises:
        KeyError: there is no such type.
    """
    status = {name: name.partition(".")[2].upper() for name in EVENTS}[event_type]
    if event_type.startswith(("channel.", "contact.")):
        data = _channel_sample(status) | dict(_NOTICE_SAMPLES.get(event_type, {}))
        return {"type": event_type, "timestamp": "2026-11-24T10:00:00.000000+00:00", "data": data}
    inbound = status == "RECEIVED"
    data = {
        **_SAMPLE,
        "direction": "INBOUND" if inbound else "OUTBOUND",
        "status": status,
        "seq": 1 if inbound else 2,
        "external_id": "wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQ",
    }
    match status:
        case "RECEIVED":
            data |= {
                "content": "On Sunday",
                "content_type": "interactive",
                "body": {
                    "choice": {"kind": "button", "id": "day:sunday", "title": "On Sunday"},
                    "quoted": {"externalId": "wamid.HBgLMTY1MDU1NTEyMzQVAgARGBI"},
                },
                "received_at": "2026-11-24T10:00:00.000000+00:00",
            }
        case "SENT":
            data["content"] = "On Sundays we are closed."
        case "FAILED":
            data["error_reason"] = "window_closed"
    return {"type": event_type, "timestamp": "2026-11-24T10:00:00.000000+00:00", "data": data}


def _channel_sample(status: str) -> dict[str, object]:
    data: dict[str, object] = {name: _SAMPLE[name] for name in ("channel_id", "channel", "chatbot_id")}
    data["channel_name"] = "Shop on WhatsApp"
    if status == "UNHEALTHY":
        data |= {"error_reason": "token_invalid", "error_detail": "Meta answered 401, error 190: the token has expired"}
    return data


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
        parts = URL(url)  # as aiohttp reads it: other parsers see another host in some URLs (full-width digits, say)
        port = parts.port
    except ValueError as error:
        raise ValueError("the URL cannot be read") from error
    schemes = ("http", "https") if allow_private else ("https",)
    if parts.scheme not in schemes:
        raise ValueError(f"the URL must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not parts.host:
        raise ValueError("the URL names no host")
    if parts.user is not None or parts.password is not None:
        raise ValueError("the URL must not contain a user or password: events are signed instead")
    if port == 0:
        raise ValueError("port 0 is no port")
    if _is_odd_address(parts.host):
        raise ValueError("the URL names its host by an incomplete or ambiguous address")
    if not allow_private and _is_inside(parts.host):
        raise ValueError("the URL leads to a private or local address")


def _is_odd_address(host: str) -> bool:
    """Whether `host` ends in a number, as only an IPv4 address does, without being one (WHATWG URL, "Ends in a number")."""
    if not host.rstrip(".").rpartition(".")[2].isdigit():
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def _is_inside(host: str) -> bool:
    """Whether `host` is a literal address that is not on the public Internet (IANA special-purpose registries)."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host.lower().rstrip(".") in {"localhost", "ip6-localhost"}
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return _is_inside(str(mapped))
    return not address.is_global or address.is_multicast or any(address in network for network in _INSIDE)


def _vetted_socket(found: AddrInfoType) -> socket.socket:
    """A socket for an address about to be connected to: the last look, whether it came from a resolver or stood in the URL."""
    family, kind, protocol, _, address = found
    if _is_inside(str(address[0])):
        raise RefusedAddress("the host leads to a private or local address")
    return socket.socket(family, kind, protocol)


class VettedResolver(AbstractResolver):
    """Resolves names, but gives only addresses on the public Internet."""

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


def vetted_connector(*, allow_private: bool, limit: int, limit_per_host: int = 0) -> aiohttp.TCPConnector:
    """Connections to hosts that others chose: only to addresses on the public Internet, unless `allow_private`."""
    return aiohttp.TCPConnector(
        resolver=None if allow_private else VettedResolver(),
        socket_factory=None if allow_private else _vetted_socket,
        limit=limit,
        limit_per_host=limit_per_host,
        ttl_dns_cache=30,
    )


def open_webhook_session(*, allow_private: bool, timeout_s: float) -> aiohttp.ClientSession:
    """The session for webhooks: no cookies, no proxies, addresses vetted unless `allow_private`; `timeout_s` for a whole call."""
    return aiohttp.ClientSession(
        connector=vetted_connector(allow_private=allow_private, limit=500, limit_per_host=50),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(5.0, timeout_s)),
        cookie_jar=aiohttp.DummyCookieJar(),
        # Of an answer only the head is kept: a compressed one could unfold to far more than was read.
        headers={"User-Agent": "Replyline-Webhooks/1", "Accept-Encoding": "identity"},
        auto_decompress=False,
    )


async def deliver(
    session: aiohttp.ClientSession,
    *,
    url: str,
    secret: str,
    event_id: str,
    body: bytes,
    allow_private: bool,
    at_s: float | None = None,
) -> Outcome:
    """Post one signed event; redirects are not followed. What went wrong is in the outcome, never raised.

    `at_s` is when (seconds since 1970), as the signature says; receivers refuse what is minutes off. Without it, this machine's
    clock says.
    """
    started = time.perf_counter()

    def outcome(kind: str, error: JobError | None, status: int | None = None, head: str | None = None) -> Outcome:
        return Outcome(round((time.perf_counter() - started) * 1000), status, head, error, kind)

    try:
        check_url(url, allow_private=allow_private)
    except ValueError as error:
        return outcome("refused_address", Permanent(str(error), reason="refused_address"))
    headers = {"Content-Type": "application/json", **sign(secret, event_id, int(at_s or time.time()), body)}
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            failed = _judge(response.status, response.headers)
            return outcome(f"{response.status // 100}xx", failed, response.status, await _head(response))
    except TimeoutError:
        return outcome("timeout", Temporary("the endpoint did not answer in time", reason="timeout"))
    except aiohttp.InvalidURL:
        return outcome("refused_address", Permanent("the URL is none", reason="refused_address"))
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, RefusedAddress) or isinstance(error.__cause__, RefusedAddress):
            return outcome("refused_address", Permanent(str(error.__cause__ or error), reason="refused_address"))
        return outcome(
            "connection", Temporary(f"the endpoint cannot be reached: {type(error).__name__}", reason="connection")
        )


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or its first `limit` bytes: whoever answers cannot fill our memory."""
    read = bytearray()
    while len(read) < limit and (chunk := await response.content.read(limit - len(read))):
        read += chunk
    return bytes(read)


async def _head(response: aiohttp.ClientResponse) -> str | None:
    """The beginning of the answer, for the customer to read; the status has decided already, whether it comes or not."""
    try:
        raw = await read_at_most(response, _HEAD_BYTES)
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"[the body did not arrive: {type(error).__name__}]"
    return raw.decode(errors="replace").replace("\x00", "")[:_HEAD_CHARS] or None


def _judge(status: int, headers: Mapping[str, str]) -> JobError | None:
    """Customers repair their endpoints within the long schedule: nearly everything is worth another try."""
    if 200 <= status < 300:
        return None
    said = f"the endpoint answered {status}"
    if status == 410:  # Standard Webhooks, "Sending webhooks": 410 asks us to stop
        return Permanent(said, reason="endpoint_gone")
    if status in {429, 503} and (wait_s := retry_after_s(headers)) is not None:
        return RateLimited(said, after=max(wait_s, _SHORTEST_WAIT_S), reason="endpoint_asks_to_wait")
    return Temporary(said, reason="redirect" if 300 <= status < 400 else f"http_{status}")


def _moment(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, 0 to 3600; None without a readable one (RFC 9110, §10.2.3).

    A date is counted from the answer's own `Date`, if it has one: our clock may be another than the one that set it.
    """
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        until, answered = _moment(value), _moment(headers.get("Date", ""))
        if until is None:
            return None
        seconds = until - (time.time() if answered is None else answered)
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _LONGEST_WAIT_S)

"""Which pages may call: a site lists its origins. An abuse brake, no proof: who calls without a browser writes any origin."""

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replyline import metrics
from replyline.app import App
from replyline.store import channels
from replyline.store.channels import Channel
from replyline.store.database import StoreUnavailable
from replyline.store.recently import Recently
from replyline.web.problems import Problem

_MAX_AGE_S = "600"
_MOST_CHARS = 300
_DOT = re.compile(r"\.")
_NAME = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,20}")


class Allowed:
    """A list of origins as a site writes it: exact ones, `https://*.example.com` for everything below a name, or `*`."""

    def __init__(self, listed: str) -> None:
        words = listed.lower().split()
        self._all = "*" in words
        self._exact = frozenset(word for word in words if "*" not in word)
        self._below = frozenset(
            (scheme, host) for scheme, _, host in (word.partition("://*.") for word in words) if host
        )

    def __contains__(self, origin: str) -> bool:
        if len(origin) > _MOST_CHARS:
            return False
        origin = origin.lower()
        if self._all or origin in self._exact:
            return True
        # The names that it is below are looked up, however many are listed: all sites' lists may be one.
        scheme, _, host = origin.partition("://")
        return any(
            (scheme, host[dot.end() :]) in self._below and _NAME.fullmatch(host, 0, dot.start()) is not None
            for dot in _DOT.finditer(host)
        )


@lru_cache(maxsize=1000)
def allowed(listed: str) -> Allowed:
    """The list, read once for many calls."""
    return Allowed(listed)


def check_origin(site: Channel, headers: Mapping[str, str], *, public_url: str | None) -> str:
    """The origin of the page that calls, which the site allows, or which is ours.

    Raises:
        Problem: 403, it does not, or the call names none.
    """
    origin = origin_of(headers)
    if origin is None:
        metrics.widget_refusals_total.labels("origin").inc()
        raise Problem(403, "origin_missing", "a page's call names its origin, and this one has no Origin header")
    if is_ours(origin, headers, public_url=public_url) or origin in allowed(site.config.get("allowed_origins", "")):
        return origin
    metrics.widget_refusals_total.labels("origin").inc()
    raise Problem(
        403,
        "origin_not_allowed",
        f"pages of {origin} may not show this widget: add the origin to allowed_origins of its channel",
    )


def origin_of(headers: Mapping[str, str]) -> str | None:
    """Of the page that calls. Browsers leave it out of a GET to the page's own server, and say so in another header
    (Fetch Metadata, "Sec-Fetch-Site")."""
    origin = headers.get("origin", "")
    if origin and len(origin) <= _MOST_CHARS:
        return origin
    if headers.get("sec-fetch-site") == "same-origin" and (host := headers.get("host")):
        return f"http://{host}"
    return None


def is_ours(origin: str, headers: Mapping[str, str], *, public_url: str | None) -> bool:
    """Whether the page is one of ours (`/demo`), whatever stands in front of us speaks (http or https).

    That is one of `public_url`, or of the host that was called if it is `localhost` or an address: any other name may be
    somebody's own who let it point here, so that their page and we have one origin (DNS rebinding).
    """
    if public_url is not None and same_origin(origin, public_url.rstrip("/")):
        return True
    try:
        called = urlsplit(f"//{headers.get('host', '')}")
        return urlsplit(origin).netloc.lower() == called.netloc.lower() and _is_no_name(called.hostname or "")
    except ValueError:  # an origin that is no address
        return False


def _is_no_name(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def same_origin(one: str, other: str) -> bool:
    """Whether both are one; the scheme does not count, because what stands in front of us may speak another."""
    return one.lower().partition("://")[2] == other.lower().partition("://")[2]


class Cors:
    """Lets the pages of those origins read our answers that some site lists, and no cookie is ever looked at.

    Every other page may read that it is refused, and why: its owner is to find the reason in the console, not a chat that
    reconnects for ever. A preflight says neither which site it is for nor what will be answered, so it passes for all pages;
    each route asks its own site's list.
    """

    def __init__(self, app: ASGIApp, *, replyline: App, prefix: str) -> None:
        self._app = app
        self._replyline = replyline
        self._prefix = prefix
        self._listed: Recently[str, Allowed] = Recently(changes=replyline.changes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        if scope["type"] != "http" or not scope["path"].startswith(f"{self._prefix}/"):
            await self._app(scope, receive, send)
            return
        origin = Headers(scope=scope).get("origin", "")
        if scope["method"] == "OPTIONS":
            headers = _encoded({**_PREFLIGHT, **_readable(origin)})
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return

        is_listed = bool(origin) and await self._is_listed(origin)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                shown = is_listed or message["status"] == HTTPStatus.FORBIDDEN
                message["headers"] = [*message["headers"], *_encoded(_readable(origin if shown else ""))]
            await send(message)

        await self._app(scope, receive, sending)

    async def _is_listed(self, origin: str) -> bool:
        async def read() -> Allowed:
            return Allowed(" ".join(await channels.widget_origins(self._replyline.database)))

        try:
            listed = await self._listed.get("", read)
        except StoreUnavailable:  # the route will say so; that a page can read it is not worth another error
            return False
        return listed is not None and origin in listed


def _readable(origin: str) -> dict[str, str]:
    """The headers by which pages of `origin` may read the answer; of none where it is empty."""
    if not origin or len(origin) > _MOST_CHARS:
        return {"vary": "Origin"}
    return {"access-control-allow-origin": origin, "vary": "Origin", "access-control-expose-headers": "Retry-After"}


_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, DELETE",
    "access-control-allow-headers": "Authorization, Content-Type, Last-Event-ID",
    "access-control-max-age": _MAX_AGE_S,
}


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1", errors="replace")) for name, value in headers.items()]

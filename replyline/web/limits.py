"""What a request may cost before anybody looks at it: bytes, seconds to send them, and memory of all requests together."""

import asyncio
from collections import Counter

from fastapi import Request
from fastapi.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replyline.settings import Network
from replyline.web.networks import Address, address_of
from replyline.web.problems import Problem, answer

BODY_TIMEOUT_S = 30.0
SMALL_BODY_BYTES = 16_000
"""What a body may have that no route has allowed more: the largest session of a widget has 10 kB."""
STRANGERS_BYTES = 64_000_000
"""What bodies may have together, in one process, whose senders have not proven who they are."""
STRANGERS_AT_ONCE = 100
"""How many such bodies may be on their way from one address."""
_LINGER_S = 2.0
_SAFETY = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Limits:
    """Gives every request a `Body`, which refuses what is too large, too slow or too much at once, while it is read.

    A body that is announced to be over `max_bytes` is refused at once. What one route may have, and who has proven who they
    are, is said by `web.guards` before anything is read.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        body_timeout_s: float = BODY_TIMEOUT_S,
        trusted: tuple[Network, ...] = (),
        strangers_bytes: int = STRANGERS_BYTES,
        strangers_at_once: int = STRANGERS_AT_ONCE,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._body_timeout_s = body_timeout_s
        self._trusted = trusted
        most = max(strangers_bytes, max_bytes)
        self._strangers = _Strangers(most, max(most // 4, max_bytes), strangers_at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _announced(scope) > self._max_bytes:
            await answer(413, "too_large", _said(self._max_bytes))(scope, receive, _with_safety_headers(send, None))
            return
        request = Request(scope)
        body = Body(
            receive,
            announced=_announced(scope),
            most=self._max_bytes,
            timeout_s=self._body_timeout_s,
            strangers=self._strangers,
            address=address_of(request, self._trusted),
        )
        scope["state"] = {**scope.get("state", {}), "body": body}
        try:
            await self._app(scope, body.receive, _with_safety_headers(send, body))
            await body.linger()
        finally:
            body.done()


class _Strangers:
    """The bodies of those who have not proven who they are: how much there is, and how many are on their way by address."""

    def __init__(self, most_bytes: int, most_bytes_of_one: int, most_at_once: int) -> None:
        self._left = most_bytes
        self._most_of_one = most_bytes_of_one
        self._most_at_once = most_at_once
        self._kept: Counter[Address] = Counter()
        self._coming: Counter[Address] = Counter()

    def enter(self, address: Address | None) -> None:
        """A body begins. Raises Problem: 429, too many come from there; this machine itself may be a proxy for everybody."""
        if address is None or address.is_loopback:
            return
        if self._coming[address] >= self._most_at_once:
            raise Problem(429, "too_many_bodies", "too many bodies at once from this address", retry_after_s=1.0)
        self._coming[address] += 1

    def leave(self, address: Address | None) -> None:
        """A body that entered has come, or will not."""
        if address is None or address.is_loopback:
            return
        self._coming[address] -= 1
        if not self._coming[address]:
            del self._coming[address]

    def take(self, size: int, address: Address | None) -> None:
        """Keep `size` bytes more. Raises Problem: 503, all of them together, or those of this address, are too much."""
        limited = None if address is None or address.is_loopback else address
        if size > self._left or (limited and self._kept[limited] + size > self._most_of_one):
            raise Problem(503, "busy", "too much is being read at once: try again in a moment", retry_after_s=1.0)
        self._left -= size
        if limited:
            self._kept[limited] += size

    def give(self, size: int, address: Address | None) -> None:
        """They are no longer kept."""
        self._left += size
        if address is not None and address in self._kept:
            self._kept[address] -= size
            if self._kept[address] <= 0:
                del self._kept[address]


class Body:
    """The body of one request, and what it may be; nothing of it is read before somebody asks for it."""

    def __init__(
        self,
        receive: Receive,
        *,
        announced: int,
        most: int,
        timeout_s: float,
        strangers: _Strangers,
        address: Address | None,
    ) -> None:
        self._receive = receive
        self._announced = announced
        self._absolutely_most = most
        self._most = min(most, SMALL_BODY_BYTES)
        self._timeout_s = timeout_s
        self._strangers = strangers
        self._address = address
        self._proven = False
        self._deadline: float | None = None
        self._complete = False
        self._entered = False
        self._size = 0
        self._taken = 0

    def allow(self, most: int | None, *, proven: bool) -> None:
        """Let it have `most` bytes (None: all that the deployment allows), from somebody who has `proven` who they are or not."""
        self._most = self._absolutely_most if most is None else min(most, self._absolutely_most)
        self._proven = proven

    async def receive(self) -> Message:
        """The ASGI call.

        Raises:
            Problem: 413, 408, 429 or 503: it is too large, too slow, one of too many, or all together are too much.
        """
        if self._complete:
            return await self._receive()
        self._begin()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            said = f"the body did not come in {self._timeout_s:g} seconds"
            raise Problem(408, "too_slow", said) from error
        self._count(len(message.get("body", b"")))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        if self._complete:
            self._leave()
        return message

    def _begin(self) -> None:
        if self._deadline is not None:
            return
        if self._announced > self._most:
            raise Problem(413, "too_large", _said(self._most))
        if not self._proven:
            self._strangers.enter(self._address)
            self._entered = True
        self._deadline = asyncio.get_running_loop().time() + self._timeout_s

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._most:
            raise Problem(413, "too_large", _said(self._most))
        if not self._proven:
            self._strangers.take(size, self._address)
            self._taken += size

    def _leave(self) -> None:
        if self._entered:
            self._strangers.leave(self._address)
            self._entered = False

    @property
    def left(self) -> bool:
        """Whether some of it was not read."""
        return not self._complete and self._announced > self._size

    async def linger(self) -> None:
        """Throw away what was not read, for two seconds: a connection that is closed before takes our answer with it."""
        if not self.left:
            return
        try:
            async with asyncio.timeout(_LINGER_S):
                message = await self._receive()
                while message["type"] == "http.request" and message.get("more_body", False):
                    message = await self._receive()
        except TimeoutError:
            return

    def done(self) -> None:
        """The request is over."""
        self._leave()
        self._strangers.give(self._taken, self._address)
        self._taken = 0


def body_of(request: Request) -> Body:
    """The body of this request."""
    body: Body = request.state.body
    return body


def _announced(scope: Scope) -> int:
    words = Headers(scope=scope).get("content-length", "")
    return int(words) if words.isdecimal() and len(words) < 20 else 0


def _said(most: int) -> str:
    return f"a body has at most {most} bytes here"


def _with_safety_headers(send: Send, body: Body | None) -> Send:
    """Beside them, an answer to a body that was not read says that its connection ends."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(row for row in _SAFETY if row[0] not in present)]
            if body is None or body.left:
                message["headers"].append((b"connection", b"close"))
        await send(message)

    return sending

"""What a request may cost before anybody looks at it: bytes, and seconds to send them."""

import asyncio

from fastapi.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replyline.web.problems import Problem, answer

BODY_TIMEOUT_S = 30.0
_SAFETY = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Limits:
    """Refuses bodies over `max_bytes` while they are read, and those that take longer than `body_timeout_s` to come."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        safe = _with_safety_headers(send)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await self._too_large()(scope, receive, safe)
            return
        await self._app(scope, self._counted(receive), safe)

    def _counted(self, receive: Receive) -> Receive:
        deadline = asyncio.get_running_loop().time() + self._body_timeout_s
        size = 0
        complete = False

        async def counted() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise Problem(408, "too_slow", f"the body did not come in {self._body_timeout_s:g} seconds") from error
            size += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if size > self._max_bytes:
                raise Problem(413, "too_large", self._said())
            return message

        return counted

    def _too_large(self) -> ASGIApp:
        return answer(413, "too_large", self._said())

    def _said(self) -> str:
        return f"a body has at most {self._max_bytes} bytes"


def _with_safety_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(row for row in _SAFETY if row[0] not in present)]
        await send(message)

    return sending

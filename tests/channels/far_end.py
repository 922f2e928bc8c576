"""The other side of a call: a real HTTP server on loopback that keeps what it gets and answers what it is told to."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import msgspec
from aiohttp import web


@dataclass(frozen=True, slots=True)
class Say:
    """One answer."""

    status: int = 200
    body: object = b""
    """Bytes are sent as they are, anything else as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hang:
    """Take the request and never answer."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Take the request, then drop the connection."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """The body read as a JSON object."""
        return msgspec.json.decode(self.body, type=dict[str, object])


class FarEnd:
    """Answers `then` in turn, the last of them for ever."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.then: list[Say | Hang | Cut] = [Say()]
        self._over = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        self.url = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self._runner, listening).start()
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.calls.append(Call(request.method, request.path, headers, await request.read()))
        say = self.then.pop(0) if len(self.then) > 1 else self.then[0]
        match say:
            case Say(status, body, told):
                raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
                return web.Response(status=status, body=raw, headers=told)
            case Hang():
                await self._over.wait()
            case Cut():
                if request.transport is not None:
                    request.transport.abort()
        return web.Response()


@asynccontextmanager
async def closed_port() -> AsyncIterator[str]:
    """A URL where nobody listens: the port is held, so that nobody else can be there either."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"

"""What all stand-ins share: they record what they are sent, take faults, and say both over HTTP."""

import asyncio
import ipaddress
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from replyline.standins.calls import Calls
from replyline.standins.faults import (
    CALL_FAULTS,
    CutAfterAccept,
    CutBefore,
    Error,
    Fault,
    Faults,
    Rule,
    Slow,
    kind_of,
    read_faults,
)

MAX_BODY_BYTES = 16_000_000
"""Of one request; what is larger is answered 413."""
_BEFORE_A_CUT_S = 0.05  # what was written before has arrived by then


@dataclass(frozen=True, slots=True)
class Request:
    """What a stand-in looks at; `path` is as it came over the wire, without the query."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw: bytes

    def bearer(self) -> str | None:
        """The bearer token, if there is one."""
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind == "Bearer" and token else None


@dataclass(frozen=True, slots=True)
class Reply:
    """What it answers: text and bytes as they are, pieces of bytes as they come, anything else as JSON."""

    status: int
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ControlRoute = tuple[str, str, Handler]
"""Method, path, and who answers."""


class BadControl(ValueError):
    """A control route did not get what this stand-in takes; answered 400 with this text."""


class CutHere(Exception):
    """Raised by the pieces of a reply where the connection is to be dropped."""


class Standin(ABC):
    """One HTTP server on loopback. Subclasses answer calls and take a configuration."""

    name: ClassVar[str]
    takes: ClassVar[tuple[type[Rule], ...]] = CALL_FAULTS
    """The kinds of fault that mean something here."""

    def __init__(self) -> None:
        self.url = ""
        """Where it is, once it is started."""
        self.faults = Faults()
        self._calls = Calls()
        self._runner: web.AppRunner | None = None

    @abstractmethod
    async def answer(self, request: Request) -> Reply:
        """Carry out one call of the service that is stood in for."""

    @abstractmethod
    def configure(self, raw: bytes) -> None:
        """Take a configuration, on top of what is there. Raises BadControl."""

    @abstractmethod
    def error_reply(self, fault: Error) -> Reply:
        """The answer of an `error` fault that names no body. Raises BadControl where the service has no such `code`."""

    def control_routes(self) -> list[ControlRoute]:
        """Control routes of this stand-in's own; a BadControl that one raises is answered 400."""
        return []

    async def start(self, host: str, port: int) -> None:
        """Listen on `host`; port 0 picks a free one. Raises OSError where the port is taken."""
        server = web.Application(client_max_size=MAX_BODY_BYTES)
        routes = [
            ("GET", "/_calls", self._get_calls),
            ("DELETE", "/_calls", self._delete_calls),
            ("GET", "/_faults", self._get_faults),
            ("POST", "/_faults", self._post_faults),
            ("DELETE", "/_faults", self._delete_faults),
            ("POST", "/_configure", self._post_configure),
            *self.control_routes(),
        ]
        for method, path, handler in routes:
            server.router.add_route(method, path, _explaining(handler))
        server.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(server, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stop listening; calls that still run have a second to end."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, received: web.Request) -> web.StreamResponse:
        at = time.time()
        try:
            raw = await received.read()
        except web.HTTPRequestEntityTooLarge:
            return self._say(received, b"", self._error(Error(status=413)), at)
        fault = self.faults.pick(received.raw_path, raw, CALL_FAULTS) if self.faults else None
        if fault is not None and fault.seconds and not isinstance(fault, Slow):
            await asyncio.sleep(fault.seconds)
        match fault:
            case CutBefore():
                return self._cut(received, raw, at)
            case Error():
                reply = self._error(fault)
            case _:
                url = received.rel_url
                reply = await self.answer(Request(received.method, url.raw_path, url.query, received.headers, raw))
        if isinstance(fault, Slow):
            await asyncio.sleep(fault.seconds)
        if isinstance(fault, CutAfterAccept):
            return self._cut(received, raw, at)
        if isinstance(reply.body, AsyncIterator):
            return await self._stream(received, raw, Reply(reply.status, None, reply.headers), reply.body, at)
        return self._say(received, raw, reply, at)

    def _error(self, fault: Error) -> Reply:
        if fault.body is msgspec.UNSET:
            reply = self.error_reply(fault)
            return Reply(reply.status, reply.body, {**reply.headers, **fault.headers})
        return Reply(fault.status or 500, fault.body, fault.headers)

    def _say(self, received: web.Request, raw: bytes, reply: Reply, at: float) -> web.Response:
        self._calls.add(received.method, received.raw_path, received.raw_headers, raw, reply.status, at=at)
        kind = "application/json"
        body = reply.body
        if isinstance(body, str):
            kind, encoded = "text/plain", body.encode()
        elif isinstance(body, bytes):
            kind, encoded = "application/octet-stream", body
        else:
            encoded = msgspec.json.encode(body)
        return web.Response(status=reply.status, body=encoded, headers={"Content-Type": kind, **reply.headers})

    async def _stream(
        self, received: web.Request, raw: bytes, head: Reply, pieces: AsyncIterator[bytes], at: float
    ) -> web.StreamResponse:
        """Answer piece by piece; the call is recorded at its end, without a status where that is not reached."""
        response = web.StreamResponse(status=head.status, headers=head.headers)
        status: int | None = head.status
        try:
            await response.prepare(received)
            async for piece in pieces:
                await response.write(piece)
        except CutHere:
            status = None
            await asyncio.sleep(_BEFORE_A_CUT_S)
        except ConnectionError:  # whoever asked is gone
            status = None
        self._calls.add(received.method, received.raw_path, received.raw_headers, raw, status, at=at)
        if status is None and received.transport is not None:
            received.transport.abort()
        return response

    def _cut(self, received: web.Request, raw: bytes, at: float) -> web.Response:
        """Drop the connection without an answer."""
        self._calls.add(received.method, received.raw_path, received.raw_headers, raw, None, at=at)
        if received.transport is not None:
            received.transport.abort()
        return web.Response(status=500)  # goes nowhere: the connection is gone

    async def _get_calls(self, received: web.Request) -> web.Response:
        since = received.query.get("since", "0")
        if not since.isdecimal():
            raise BadControl("since is a number: the `next` of the page before")
        return json_response(self._calls.page(int(since)))

    async def _delete_calls(self, _: web.Request) -> web.Response:
        self._calls.clear()
        return json_response({})

    async def _get_faults(self, _: web.Request) -> web.Response:
        return json_response(self.faults.listed())

    async def _post_faults(self, received: web.Request) -> web.Response:
        try:
            faults = read_faults(await received.read())
            for fault in faults:
                self._check(fault)
            self.faults.add(faults)
        except ValueError as error:
            raise BadControl(str(error)) from error
        return json_response(self.faults.listed())

    def _check(self, fault: Fault) -> None:
        if not isinstance(fault, self.takes):
            raise BadControl(f"{self.name} does not take the fault {kind_of(fault)}")
        if isinstance(fault, Error):
            self._error(fault)

    async def _delete_faults(self, _: web.Request) -> web.Response:
        self.faults.clear()
        return json_response([])

    async def _post_configure(self, received: web.Request) -> web.Response:
        self.configure(await received.read())
        return json_response({})


Known = TypeVar("Known", bound=msgspec.Struct)


def read_control(raw: bytes, kind: type[Known]) -> Known:
    """The body of a control route. Raises BadControl where it is not of that kind."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError as error:
        raise BadControl(str(error)) from error


def merged(
    known: Mapping[str, Known], given: Mapping[str, Mapping[str, object]], kind: type[Known]
) -> dict[str, Known]:
    """`known` with what is given by name laid over it, field by field. Raises BadControl; then nothing is changed."""
    made = dict(known)
    for name, fields in given.items():
        before = msgspec.to_builtins(known[name]) if name in known else {}
        try:
            made[name] = msgspec.convert({**before, **fields}, kind)
        except msgspec.ValidationError as error:
            raise BadControl(f"{name}: {error}") from error
    return made


def json_response(value: object, *, status: int = 200) -> web.Response:
    """An answer of a control route."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def _refuse_pages(received: web.Request) -> None:
    """Only programs of this machine steer a stand-in, not the web pages that somebody has open on it.

    Pages of others send their Origin with whatever changes something, and a name of theirs that was bound to this machine's
    address as Host. Raises BadControl.
    """
    host = urlsplit(f"//{received.host}").hostname or ""
    if host != "localhost" and not _is_address(host):
        raise BadControl(f"call it by its address, not as {host}")
    origin = received.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != received.host:
        raise BadControl("a stand-in takes no orders from web pages")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _explaining(handler: Handler) -> Handler:
    async def explained(received: web.Request) -> web.StreamResponse:
        try:
            _refuse_pages(received)
            return await handler(received)
        except BadControl as error:
            return json_response({"error": str(error)}, status=400)

    return explained

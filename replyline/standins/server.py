"""What all stand-ins share: they record what they are sent, take faults, and say both over HTTP."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from replyline.standins.faults import CALL_KINDS, Fault, Faults

MAX_CALLS = 100_000
_MAX_BODY_BYTES = 8_000_000
_PAGE = 10_000


class Call(msgspec.Struct):
    """One request as it came in; `status` is None where the connection was cut. `at` is Unix seconds."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: object
    status: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """What a stand-in looks at."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What it answers."""

    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)


class BadConfiguration(ValueError):
    """`POST /_configure` did not bring what this stand-in takes."""


class Standin:
    """One HTTP server on loopback. Subclasses answer calls and take a configuration."""

    name: str

    def __init__(self) -> None:
        self.faults = Faults()
        self._calls: deque[Call] = deque(maxlen=MAX_CALLS)
        self._seen = 0
        self._runner: web.AppRunner | None = None
        self.url = ""
        """Where it is, once it is started."""

    async def answer(self, request: Request) -> Reply:
        """Carry out one call of the service that is stood in for."""
        raise NotImplementedError

    def configure(self, raw: bytes) -> None:
        """Take a configuration, on top of what is there. Raises BadConfiguration."""
        raise NotImplementedError

    def error_reply(self, fault: Fault) -> Reply:
        """The answer of an `error` fault."""
        return Reply(fault.status, fault.body or {"error": {"message": "told to fail", "type": "fault"}}, fault.headers)

    async def start(self, host: str, port: int) -> None:
        """Listen on `host`; port 0 picks a free one. Raises OSError where the port is taken."""
        server = web.Application(client_max_size=_MAX_BODY_BYTES)
        server.router.add_get("/_calls", self._get_calls)
        server.router.add_delete("/_calls", self._delete_calls)
        server.router.add_get("/_faults", self._get_faults)
        server.router.add_post("/_faults", self._post_faults)
        server.router.add_delete("/_faults", self._delete_faults)
        server.router.add_post("/_configure", self._post_configure)
        self.add_routes(server)
        server.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(server, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"

    def add_routes(self, server: web.Application) -> None:
        """Add control routes of this stand-in's own."""

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, received: web.Request) -> web.Response:
        raw = await received.read()
        fault = self.faults.pick(received.path_qs, raw, CALL_KINDS)
        if fault is not None and fault.seconds:
            await asyncio.sleep(fault.seconds)
        if fault is not None and fault.kind == "cut_before":
            return self._cut(received, raw)
        if fault is not None and fault.kind == "error":
            reply = self.error_reply(fault)
        else:
            reply = await self.answer(Request(received.method, received.path_qs, received.headers, raw))
        if fault is not None and fault.kind == "cut_after_accept":
            return self._cut(received, raw)
        self._record(received, raw, reply.status)
        if isinstance(reply.body, str):
            return web.Response(status=reply.status, text=reply.body, headers=reply.headers)
        return web.Response(
            status=reply.status,
            body=msgspec.json.encode(reply.body),
            content_type="application/json",
            headers=reply.headers,
        )

    def _cut(self, received: web.Request, raw: bytes) -> web.Response:
        """Drop the connection without an answer."""
        self._record(received, raw, None)
        if received.transport is not None:
            received.transport.abort()
        return web.Response(status=500)  # goes nowhere: the connection is gone

    def _record(self, received: web.Request, raw: bytes, status: int | None) -> None:
        self._seen += 1
        headers = {name.lower(): value for name, value in received.headers.items()}
        if "authorization" in headers:
            headers["authorization"] = "[redacted]"
        try:
            body = msgspec.json.decode(raw) if raw else None
        except msgspec.DecodeError:
            body = raw[:10_000].decode(errors="replace")
        self._calls.append(Call(time.time(), received.method, received.path_qs, headers, body, status))

    async def _get_calls(self, received: web.Request) -> web.Response:
        try:
            since = int(received.query.get("since", "0"))
        except ValueError:
            return _problem("since is a number, the `next` of the answer before")
        oldest = self._seen - len(self._calls)
        start = max(0, since - oldest)
        calls = [self._calls[index] for index in range(start, min(start + _PAGE, len(self._calls)))]
        return _json({"next": oldest + start + len(calls), "calls": calls})

    async def _delete_calls(self, _: web.Request) -> web.Response:
        self._calls.clear()
        return _json({})

    async def _get_faults(self, _: web.Request) -> web.Response:
        return _json(self.faults.listed())

    async def _post_faults(self, received: web.Request) -> web.Response:
        try:
            self.faults.add(await received.read())
        except ValueError as error:
            return _problem(str(error))
        return _json(self.faults.listed())

    async def _delete_faults(self, _: web.Request) -> web.Response:
        self.faults.clear()
        return _json([])

    async def _post_configure(self, received: web.Request) -> web.Response:
        try:
            self.configure(await received.read())
        except BadConfiguration as error:
            return _problem(str(error))
        return _json({})


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _problem(text: str) -> web.Response:
    return web.Response(status=400, body=msgspec.json.encode({"error": text}), content_type="application/json")

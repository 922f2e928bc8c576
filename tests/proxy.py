"""A TCP proxy in front of a server, which can be told to cut, freeze, delay and refuse: the network on a bad day."""

import asyncio
import ctypes
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

_CHUNK = 65536
_SO_ATTACH_FILTER = 26  # Linux, asm-generic/socket.h; Python has no name for it
_DEFAULT_PORTS = {"redis": 6379, "postgres": 5432, "postgresql": 5432, "http": 80}


class FaultProxy:
    """Stands at a free port of 127.0.0.1, before the server that `target` names.

    `target` is a URL (`redis://`, `unix://`, `postgres[ql]://` also with `?host=/socket/folder`, `http://`), a `(host, port)` or
    the path of a unix socket. Faults hold for the connections there are and for new ones, until they are taken back.
    """

    def __init__(self, target: str | tuple[str, int] | Path) -> None:
        self._target = target if isinstance(target, str) else None
        self._address = _address(target) if isinstance(target, str) else target
        self._links: set[asyncio.Task[None]] = set()
        self._clients: set[socket.socket] = set()
        self._requests_flow = asyncio.Event()
        self._replies_flow = asyncio.Event()
        self._delay_s = 0.0
        self._refuses = False
        self._server: asyncio.Server | None = None
        self.accepted = 0
        """How many connections were passed on so far."""

    async def __aenter__(self) -> Self:
        self.thaw()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self._refuses = True
        await self.cut()

    @property
    def port(self) -> int:
        """Where it listens. Raises RuntimeError before it is entered."""
        if self._server is None:
            raise RuntimeError("the proxy listens only inside `async with`")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def url(self, original: str | None = None) -> str:
        """`original` (else the target's URL) with the proxy's address in it; user, password and database stay."""
        parts = urlsplit(original or self._target or "")
        if not parts.scheme:
            raise ValueError("a proxy made from an address needs the URL to put its own address into")
        query = dict(parse_qsl(parts.query))
        path = parts.path
        if parts.scheme == "unix":
            path = f"/{query.pop('db', '0')}"
        query.pop("host", None)
        query.pop("port", None)
        credentials = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        scheme = "redis" if parts.scheme == "unix" else parts.scheme
        return urlunsplit(SplitResult(scheme, f"{credentials}127.0.0.1:{self.port}", path, urlencode(query), ""))

    async def cut(self) -> None:
        """Drop all connections now, with what was held back on them; new ones are taken."""
        links = set(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    def freeze(self, *, replies_only: bool = False) -> None:
        """Let nothing through, or only requests: then the server acts, and its client does not learn of it."""
        self._replies_flow.clear()
        if not replies_only:
            self._requests_flow.clear()

    def forget(self) -> None:
        """Lose every packet that clients send on the connections there are, unacknowledged, as a firewall that forgot them."""
        drop_all = ctypes.create_string_buffer(
            struct.pack("HBBI", 0x06, 0, 0, 0)
        )  # BPF_RET | BPF_K: keep 0 bytes of it
        program = struct.pack("HL", 1, ctypes.addressof(drop_all))
        for client in self._clients:
            client.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def thaw(self) -> None:
        """Let everything through again, what was held back first."""
        self._requests_flow.set()
        self._replies_flow.set()

    def delay(self, seconds: float) -> None:
        """Hold each piece back for so long, in both directions; 0 ends it."""
        self._delay_s = seconds

    def refuse(self) -> None:
        """Drop every new connection as soon as it is made; those there are stay, see `cut`."""
        self._refuses = True

    def accept(self) -> None:
        """Take new connections again."""
        self._refuses = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        if link is None or self._refuses:
            writer.transport.abort()
            return
        self._links.add(link)
        client: socket.socket = writer.get_extra_info("socket")
        self._clients.add(client)
        onward: asyncio.StreamWriter | None = None
        try:
            back, onward = await self._connect()
            self.accepted += 1
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._pass_on(reader, onward, self._requests_flow))
                directions.create_task(self._pass_on(back, writer, self._replies_flow))
        except* (OSError, asyncio.CancelledError):
            self._links.discard(link)  # one side has gone, so does the other; or it was cut
        finally:
            self._links.discard(link)
            self._clients.discard(client)
            for end in (writer, onward):
                if end is not None:
                    end.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._address, Path):
            return await asyncio.open_unix_connection(self._address)
        return await asyncio.open_connection(*self._address)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flows: asyncio.Event) -> None:
        while piece := await source.read(_CHUNK):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await flows.wait()
            sink.write(piece)
            await sink.drain()
        raise ConnectionResetError("one side has closed")


def _address(url: str) -> tuple[str, int] | Path:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "unix":
        return Path(unquote(parts.path))
    port = int(query.get("port") or parts.port or _DEFAULT_PORTS.get(parts.scheme, 0))
    host = query.get("host") or parts.hostname or "127.0.0.1"
    if host.startswith("/"):  # Postgres' way to name a unix socket (libpq, "Connection Strings")
        return Path(host) / f".s.PGSQL.{port}"
    return host, port

"""HTTP/1.1 as the load needs it: a server and a client at a tenth of a library's CPU, so that the load leaves the machine to
those whom it measures. Bodies are JSON of a known length; a request is answered before the next one is read."""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from typing import cast

_LENGTH = re.compile(rb"(?i)\r\ncontent-length:\s*(\d+)")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding:\s*chunked")
_STALE_S = 3.0  # servers close a connection that is idle for 5 s (Node) or longer

Answer = Callable[[bytes, bytes, Callable[[bytes], None]], None]
"""Head and body of a request, and what writes the body of the answer with status 200, now or later."""


class Server:
    """Listens on a free port of 127.0.0.1."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, "127.0.0.1", 0, backlog=4096)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.close()
        for transport in list(self._open):
            transport.abort()

    def _connection(self) -> asyncio.Protocol:
        return _Served(self._answer, self._open)


class _Served(asyncio.Protocol):
    def __init__(self, answer: Answer, opened: set[asyncio.Transport]) -> None:
        self._answer = answer
        self._opened = opened
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._opened.add(self._transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._opened.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        length = _LENGTH.search(head)
        size = int(length.group(1)) if length else 0
        if length is None and not head.startswith(b"GET "):
            self._transport.write(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\n\r\n")
            self._buffer = b""
            return
        if len(self._buffer) < end + 4 + size:
            return
        body, self._buffer = self._buffer[end + 4 : end + 4 + size], self._buffer[end + 4 + size :]
        self._answer(head, body, self._write)

    def _write(self, body: bytes) -> None:
        if not self._transport.is_closing():
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)


class RequestFailed(Exception):
    """The other side answered with another status than was wanted, or closed the connection."""


class Client:
    """Requests to one address, as many at once as are asked for, each on a connection of its own that is used again."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._idle: deque[_Asked] = deque()

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a whole request; the status and the body of its answer.

        Raises:
            RequestFailed: the connection was closed before the answer was whole.
            OSError: nobody listens.
        """
        connection = None
        while self._idle and connection is None:
            newest = self._idle.pop()
            connection = newest if newest.is_fresh() else None
        if connection is None:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Asked, *self._address)
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close what is open."""
        while self._idle:
            self._idle.pop().close()


class _Asked(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._used_at = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def is_fresh(self) -> bool:
        if not self._transport.is_closing() and time.monotonic() - self._used_at < _STALE_S:
            return True
        self.close()
        return False

    def close(self) -> None:
        self._transport.close()

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head, rest = self._buffer[:end], self._buffer[end + 4 :]
        length = _LENGTH.search(head)
        if length is not None:
            if len(rest) < int(length.group(1)):
                return
        elif _CHUNKED.search(head) and not rest.endswith(b"0\r\n\r\n"):
            return
        self._buffer = b""
        self._used_at = time.monotonic()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((int(head[9:12]), rest))

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(RequestFailed(f"the connection was closed before the answer: {error}"))

"""`python -m bench.streams_pages`: a process with a thousand open pages, told on standard input what to do, a line at a time."""

import asyncio
import random
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
import msgspec
import uvloop

from bench.streams_wire import (
    Begin,
    Close,
    Collect,
    Command,
    Count,
    Counted,
    Cut,
    Failed,
    Hear,
    Message,
    Open,
    Piece,
    Seen,
)

ORIGIN = "https://shop.example"
AT_ONCE = 32
"""Sessions and streams that are opened at the same time."""
OPEN_WITHIN_S = 30.0
_RECONNECT_S = 0.02
_SMALL_BUFFER = 4096
_SEGMENT = 1400
"""Bytes, as over the Internet: with the 64 KiB of loopback, sockets hold megabytes for who reads nothing."""

Item = TypeVar("Item")


class _Delta(msgspec.Struct, frozen=True):
    id: str
    i: int
    text: str
    replace: bool = False


class _Logged(msgspec.Struct, frozen=True):
    text: str


_delta = msgspec.json.Decoder(_Delta)
_logged = msgspec.json.Decoder(_Logged)


@dataclass
class Page:
    """One page of one visitor."""

    host: str
    port: int
    session: str
    conversation_id: str
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    place: int = 0
    messages: list[Message] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    broken: int = 0
    chance: float = 0.0
    connection: "Connection | None" = None
    unread: socket.socket | None = None
    """Of a deaf one."""
    _back: "asyncio.Task[None] | None" = None

    async def open(self, *, deaf: bool = False) -> None:
        """Connect, ask, and wait until the stream has begun; a deaf one only asks."""
        made = socket.socket()
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
        if deaf:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(made, (self.host, self.port))
        await loop.sock_sendall(made, self._request)
        if deaf:
            self.unread = made
        else:
            await self._hear(made)

    async def hear(self) -> None:
        """Read what was not read, and go on."""
        unread, self.unread = self.unread, None
        if unread is not None:
            await self._hear(unread)

    async def _hear(self, made: socket.socket) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(self), sock=made)
        self.connection = connection
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                await connection.begun
        except TimeoutError:
            raise ConnectionError(f"a stream did not begin in {OPEN_WITHIN_S:g} s") from None

    @property
    def is_open(self) -> bool:
        """Whether its stream has begun; of a deaf one, whether it has asked."""
        return self.unread is not None or (self.connection is not None and self.connection.has_begun)

    @property
    def _request(self) -> bytes:
        """As the widget's script makes it."""
        return (
            f"GET /widget/v1/events?page={self.name} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nOrigin: {ORIGIN}\r\n"
            f"Authorization: Bearer {self.session}\r\nLast-Event-ID: {self.place}\r\nAccept: text/event-stream\r\n\r\n"
        ).encode()

    def close(self) -> None:
        """Close the stream, and stay away."""
        self.chance = 0.0
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.cut()

    def cut(self) -> None:
        """Be cut off, and come back."""
        if self.connection is not None and self._back is None:
            self.connection.cut()
            self._back = asyncio.create_task(self._come_back())

    def lost(self, connection: "Connection") -> None:
        """The stream ended by itself."""
        if connection is self.connection:
            self.broken += 1
            self.cut()

    async def _come_back(self) -> None:
        gone = time.monotonic()
        while True:
            await asyncio.sleep(_RECONNECT_S)
            try:
                await self.open()
                break
            except OSError:
                self.broken += 1
        self.away.append((gone, time.monotonic()))
        self._back = None

    def take(self, event: bytes, at: float) -> None:
        """One event of the stream; comments and what the bench does not look at are passed over."""
        id_, name, data = b"", b"", b""
        for line in event.split(b"\n"):
            if line.startswith(b"data: "):
                data = line[6:]
            elif line.startswith(b"event: "):
                name = line[7:]
            elif line.startswith(b"id: "):
                id_ = line[4:]
        if name == b"message.delta":
            piece = _delta.decode(data)
            self.pieces.append(Piece(piece.id, piece.i, piece.text[:64], piece.replace, at))
        elif id_:
            self.place = int(id_)
            text = _logged.decode(data).text if name.startswith(b"message.") else name.decode()
            self.messages.append(Message(self.place, text, at))


class Connection(asyncio.Protocol):
    """One connection of a page: HTTP/1.1, chunked."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._transport: asyncio.Transport | None = None
        self._raw = b""
        self._text = b""
        self._is_head = True
        self._is_cut = False
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def has_begun(self) -> bool:
        """Whether it was answered with a stream."""
        return self.begun.done() and not self.begun.cancelled() and self.begun.exception() is None

    def cut(self) -> None:
        """Drop it without a word; what has come and was not read is lost."""
        self._is_cut = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance

    def data_received(self, data: bytes) -> None:
        if self._is_cut:
            return
        page, at = self._page, time.monotonic()
        cuts = self.has_begun and b"event: message.c" in data and random.random() < page.chance
        if cuts and random.random() < 0.5:
            page.cut()
            return
        self._raw += data
        if self._is_head and not self._take_head():
            return
        self._take_chunks()
        *events, self._text = self._text.split(b"\n\n")
        for event in events:
            page.take(event, at)
        if events and not self.begun.done():
            self.begun.set_result(None)
        if cuts:
            page.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(ConnectionError(f"the stream ended before it began: {exc}"))
            self.begun.exception()  # where nobody waits for it
        if not self._is_cut:
            self._page.lost(self)

    def _take_head(self) -> bool:
        head, end, rest = self._raw.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            self.begun.set_exception(ConnectionError(f"not a stream: {self._raw[:300]!r}"))
            self.cut()
            return False
        self._raw, self._is_head = rest, False
        return True

    def _take_chunks(self) -> None:
        start = 0
        while (end := self._raw.find(b"\r\n", start)) >= 0:
            size = int(self._raw[start:end], 16)
            if len(self._raw) < end + 4 + size:
                break
            self._text += self._raw[end + 2 : end + 2 + size]
            start = end + 4 + size
            if size == 0:
                self._page.lost(self)
        self._raw = self._raw[start:]


class Crowd:
    """All pages."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self._cuts: set[asyncio.Task[None]] = set()

    async def obey(self, command: Command) -> object:
        """Do it, and say how it went."""
        match command:
            case Begin():
                return await self._begin(command)
            case Open():
                await bounded(lambda page: page.open(deaf=command.deaf), self._of(command.pages))
            case Hear():
                await bounded(Page.hear, self._of(command.pages))
            case Close():
                for page in self._of(command.pages):
                    page.close()
            case Cut():
                for page in self._of(command.pages):
                    page.chance = command.chance
                    self._cuts.add(asyncio.create_task(self._cut(page, random.uniform(0, command.within_s))))
            case Count():
                pass
            case Collect():
                return [self._collect(page) for page in self.pages]
        return Counted(sum(len(page.messages) for page in self.pages), sum(page.is_open for page in self.pages))

    def _of(self, numbers: Iterable[int]) -> list[Page]:
        return [self.pages[number] for number in numbers]

    async def _begin(self, begin: Begin) -> list[str]:
        url = urlsplit(begin.url)
        host, port = url.hostname or "", url.port or 0
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=OPEN_WITHIN_S)) as http:

            async def one(_number: int) -> None:
                async with http.post(
                    f"{begin.url}/widget/v1/sessions", json={"site_key": begin.site_key}, headers={"Origin": ORIGIN}
                ) as response:
                    answer = await response.json()
                    if response.status != 201:
                        raise RuntimeError(f"no session: {response.status} {answer}")
                    self.pages.append(Page(host, port, answer["session_token"], answer["conversation_id"]))

            await bounded(one, range(begin.count))
        return [page.conversation_id for page in self.pages]

    async def _cut(self, page: Page, after_s: float) -> None:
        await asyncio.sleep(after_s)
        page.cut()

    def _collect(self, page: Page) -> Seen:
        pieces, page.pieces = page.pieces, []
        return Seen(page.messages, pieces, page.away, page.broken)


async def bounded(do: Callable[[Item], Awaitable[None]], items: Iterable[Item]) -> None:
    """Do it for every item, AT_ONCE at a time."""
    left = iter(items)

    async def some() -> None:
        for item in left:
            await do(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


async def _main() -> None:
    reader = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    crowd = Crowd()
    commands = msgspec.json.Decoder(Command)
    while line := await reader.readline():
        try:
            answer = await crowd.obey(commands.decode(line))
        except* (ConnectionError, RuntimeError) as group:
            answer = Failed(str(group.exceptions[0]), sum(page.is_open for page in crowd.pages))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(_main())

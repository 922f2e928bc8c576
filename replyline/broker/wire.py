"""One live socket to Redis: what is sent within one turn of the event loop leaves in one write, replies match in order."""

import asyncio
import re
from collections import deque
from collections.abc import Iterable
from typing import TypeAlias, cast

import hiredis

from replyline.broker.contract import BrokerUnavailable, CommandRefused

Reply: TypeAlias = "bytes | int | list[Reply] | hiredis.HiredisError | None"
"""What RESP2 knows. Errors inside a list (a transaction, a script) stay values."""
Answer: TypeAlias = "Reply | BrokerUnavailable | CommandRefused"
"""A reply of a group of commands: one that Redis answered with an error is that error, so that its neighbours are not lost."""
Word: TypeAlias = str | bytes | int | float

MAX_UNSENT_BYTES = 256 * 1024 * 1024

# Errors that say "not now" rather than "never" (Redis command errors: LOADING, READONLY and MASTERDOWN around a restart or
# failover, OOM and MISCONF while memory or disk is full, the others from Cluster and replication).
_NOT_NOW = ("LOADING", "READONLY", "MASTERDOWN", "OOM", "MISCONF", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "BUSY ")
# After these the address leads to the wrong server, maybe for ever: a replica since a failover, a node that gave its slot away.
_WRONG_SERVER = ("READONLY", "MOVED", "ASK ")
# Redis 6.2 puts the error of a command in a script behind its own: "ERR Error running script (call to f_…): @user_script:30:
# @user_script: 30: -OOM command not allowed when used memory > 'maxmemory'." Redis 7 has the command's error first.
_IN_SCRIPT = re.compile(
    r"ERR Error running script .{0,200}?(?:@user_script: ?\d{1,6}: ){1,3}-?(?P<error>.*)", re.DOTALL
)
_LONGEST_ERROR = 2000
_NOTHING = object()


class ScriptMissing(CommandRefused):
    """The server does not know the script: it was not run, and must be sent in full."""


def pack(*words: Word) -> bytes:
    """One command as RESP."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows only tuples of one word
    return packed


def bulk(word: bytes) -> bytes:
    """One argument as RESP."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


class Wire(asyncio.Protocol):
    """The protocol of one connection, from its making to its loss; it never reconnects."""

    def __init__(self, *, reply_timeout_s: float, max_pending: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._pending: deque[_Single | _Group] = deque()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._flush_is_due = False
        self._writable = True
        self._max_pending = max_pending
        self._tick_s = reply_timeout_s / 2
        self._silent_ticks = 0
        self._replies_seen = 0
        self._replies_at_tick = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._reason = "connection closed by Redis"
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done when the connection is gone, with the reason."""

    def send(self, payload: bytes) -> "asyncio.Future[Reply]":
        """Send one packed command. Raises BrokerUnavailable when it cannot even be queued; the future fails with
        BrokerUnavailable or CommandRefused."""
        entry = _Single(self._loop.create_future())
        self._append(payload, entry)
        return entry.future

    def send_group(self, payload: bytes, size: int) -> "asyncio.Future[list[Answer]]":
        """Send `size` packed commands that stand behind one another; the future gives all their answers."""
        entry = _Group(self._loop.create_future(), size)
        self._append(payload, entry)
        return entry.future

    def abort(self, reason: str) -> None:
        """Drop the connection now; everything pending fails."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Let `protocol` have the socket from now on, logged in as it is. Raises BrokerUnavailable where it is lost already."""
        transport = self._transport
        if transport is None or self.lost.done():
            raise BrokerUnavailable("the connection was lost")
        transport.set_protocol(protocol)
        self._transport = None
        self.connection_lost(None)
        protocol.connection_made(transport)

    async def close(self, reason: str) -> None:
        """The same, and return when the socket is closed."""
        self.abort(reason)
        if self._transport is not None:
            await self.lost

    def _append(self, payload: bytes, entry: "_Single | _Group") -> None:
        if self.lost.done() or self._transport is None:
            raise BrokerUnavailable("not connected to Redis")
        if len(self._pending) >= self._max_pending or self._unsent_bytes > MAX_UNSENT_BYTES:
            raise BrokerUnavailable("too much is already waiting for Redis")
        self._pending.append(entry)
        self._unsent.append(payload)
        self._unsent_bytes += len(payload)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._writable and self._unsent and self._transport is not None:
            unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _tick(self) -> None:
        # Seen from here, a command is late when it was pending at three ticks in a row without any reply between them.
        # Counting ticks costs nothing per command, and one long pause of our own event loop does not look like a dead Redis.
        quiet = bool(self._pending) and self._replies_seen == self._replies_at_tick
        self._silent_ticks = self._silent_ticks + 1 if quiet else 0
        self._replies_at_tick = self._replies_seen
        if self._silent_ticks >= 2:
            self.abort(f"no reply from Redis within {self._tick_s * 2:g} s")
            return
        self._ticker = self._loop.call_later(self._tick_s, self._tick)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._ticker = self._loop.call_later(self._tick_s, self._tick)

    def data_received(self, data: bytes) -> None:
        reader, pending = self._reader, self._pending
        try:
            reader.feed(data)
            reply = reader.gets()
            while reply is not _NOTHING:
                self._replies_seen += 1
                if not pending:
                    self.abort("Redis sent a reply that nothing waits for")
                    return
                if pending[0].take(reply):
                    pending.popleft()
                if isinstance(reply, hiredis.ReplyError) and (told := _told(reply)).startswith(_WRONG_SERVER):
                    self.abort(f"this server does not take our writes: {told[:200]}")
                reply = reader.gets()
        except hiredis.ProtocolError as error:
            self.abort(f"unreadable reply from Redis: {error}")

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        reason = self._reason if exc is None else f"{self._reason} ({exc})"
        if self._ticker is not None:
            self._ticker.cancel()
        self._unsent.clear()
        if not self.lost.done():
            self.lost.set_result(reason)
        _fail(self._pending, reason)
        self._pending.clear()


class _Single:
    __slots__ = ("future",)

    def __init__(self, future: "asyncio.Future[Reply]") -> None:
        self.future = future

    def take(self, reply: Reply) -> bool:
        if not self.future.done():
            if isinstance(reply, hiredis.ReplyError):
                self.future.set_exception(_translate(reply))
            else:
                self.future.set_result(reply)
        return True


class _Group:
    __slots__ = ("answers", "future", "size")

    def __init__(self, future: "asyncio.Future[list[Answer]]", size: int) -> None:
        self.future = future
        self.size = size
        self.answers: list[Answer] = []

    def take(self, reply: Reply) -> bool:
        self.answers.append(_translate(reply) if isinstance(reply, hiredis.ReplyError) else reply)
        if len(self.answers) < self.size:
            return False
        if not self.future.done():
            self.future.set_result(self.answers)
        return True


def _translate(error: hiredis.ReplyError) -> BrokerUnavailable | CommandRefused:
    text = _told(error)
    if text.startswith(_NOT_NOW + _WRONG_SERVER):
        return BrokerUnavailable(text)
    return ScriptMissing(text) if text.startswith("NOSCRIPT") else CommandRefused(text)


def _told(error: hiredis.ReplyError) -> str:
    """The error of the command, also where a script's own stands before it."""
    text = str(error)[:_LONGEST_ERROR]
    inner = _IN_SCRIPT.match(text)
    return text if inner is None else inner["error"]


def _fail(entries: "Iterable[_Single | _Group]", reason: str) -> None:
    for entry in entries:
        if not entry.future.done():
            entry.future.set_exception(BrokerUnavailable(reason))

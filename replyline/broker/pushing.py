"""One live socket to Redis in pub/sub mode: what it pushes is handed on at once, nothing is kept, a dead peer is noticed."""

import asyncio
from collections.abc import Sequence
from typing import Protocol, cast

import hiredis

from replyline.broker.wire import Reply, pack

_NOTHING = object()
_MOST_UNREAD_BYTES = 64 * 1024 * 1024  # twice what Redis itself lets a subscriber fall behind, if nobody changed that
_PING = pack("PING")
_DEAD_AFTER_TICKS = 3


class Listener(Protocol):
    """Who is told what comes; its functions do not raise."""

    def message(self, channel: bytes, payload: bytes) -> None:
        """Something was published."""

    def settled(self, channel: bytes, *, subscribed: bool) -> None:
        """Redis has carried out a SUBSCRIBE or UNSUBSCRIBE."""

    def writable(self) -> None:
        """What was written before has left."""


class PushWire(asyncio.Protocol):
    """The protocol of one connection from its login to its loss; it never reconnects."""

    def __init__(self, listener: Listener, *, ping_every_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._tick_s = ping_every_s / 2
        self._ticker: asyncio.TimerHandle | None = None
        self._silent_ticks = 0
        self._heard = False
        self._reason = "connection closed by Redis"
        self.is_writable = True
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done when the connection is gone, with the reason."""

    def subscribe(self, channels: Sequence[bytes]) -> None:
        """Ask for what is published there; each is confirmed by itself."""
        self._write(pack("SUBSCRIBE", *channels))

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """Ask for it no more."""
        self._write(pack("UNSUBSCRIBE", *channels))

    def abort(self, reason: str) -> None:
        """Drop the connection now."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def _write(self, command: bytes) -> None:
        if self._transport is not None and not self.lost.done():
            self._transport.write(command)

    def _tick(self) -> None:
        # Nothing was heard during one tick: ask; nor during the two after it: nobody is there. One long pause of our own event
        # loop makes one tick late, not three.
        self._silent_ticks = 0 if self._heard else self._silent_ticks + 1
        self._heard = False
        if self._silent_ticks >= _DEAD_AFTER_TICKS:
            self.abort(f"Redis has said nothing for {self._tick_s * _DEAD_AFTER_TICKS:g} s")
            return
        if self._silent_ticks and self.is_writable:
            self._write(_PING)
        self._ticker = self._loop.call_later(self._tick_s, self._tick)

    def _take(self, reply: Reply) -> None:
        match reply:
            case [b"message", bytes() as channel, bytes() as payload]:
                self._listener.message(channel, payload)
            case [b"subscribe" | b"unsubscribe" as kind, bytes() as channel, int()]:
                self._listener.settled(channel, subscribed=kind == b"subscribe")
            case [b"pong", _] | b"PONG":  # the second is how it answers while nothing is subscribed
                pass
            case hiredis.ReplyError():  # a whole SUBSCRIBE was refused: a connection that hears half is worse than none
                self.abort(f"Redis refuses: {reply}")
            case _:
                self.abort("Redis sent what belongs to no subscription")

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._ticker = self._loop.call_later(self._tick_s, self._tick)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                self._take(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"unreadable reply from Redis: {error}")
            return
        if reader.len() > _MOST_UNREAD_BYTES:
            self.abort("a message without end")

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self._listener.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        if not self.lost.done():
            self.lost.set_result(self._reason if exc is None else f"{self._reason} ({exc})")

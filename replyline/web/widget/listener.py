"""One open page: what it is sent, from where it is in the log, and what is held for it of what happens right now."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable, CommandRefused, Written
from replyline.live import owned
from replyline.store import conversation_log
from replyline.store.conversation_log import LogEntry, LogPlace
from replyline.store.database import StoreUnavailable
from replyline.web.widget.visitors import Guest
from replyline.web.widget.wire import shown

PING_S = 15.0
RETRY_MS = 3000
MOST_REPLAYED = 500
"""A page that is further behind reads the history anew."""
MOST_LIVE_BYTES = 32_768
"""Of what happens right now, held for a page that is slow to take it; more is dropped, and made good when it has caught up."""
ANSWERS_WITHIN_S = 0.5
"""A Redis that hangs is as good as away."""
AWAY = (BrokerUnavailable, CommandRefused, TimeoutError)
_PAGE = 20
_STORE_AWAY_S = 1.0

_encode = msgspec.json.Encoder().encode


def frame(event: str, data: object, place: int | None = None) -> bytes:
    """One event as it stands in the stream (WHATWG HTML, "Server-sent events"); JSON has no line ends of its own."""
    head = b"" if place is None else b"id: %d\n" % place
    return b"%bevent: %b\ndata: %b\n\n" % (head, event.encode(), _encode(data))


@dataclass(frozen=True, slots=True)
class _Unsent:
    """Something that happens right now: a piece of an answer, where `stream` is set."""

    frame: bytes
    stream: str | None = None
    index: int = 0


class Listener:
    """One open page. `place` is how far in the log it is; what happens right now is held up to MOST_LIVE_BYTES."""

    def __init__(self, app: App, guest: Guest, place: int | None, reader: str) -> None:
        self.conversation_id = guest.visitor.conversation_id
        self.reader = reader
        self.token_id = guest.visitor.token_id
        self.place = place
        self._app = app
        self._visitor = guest.visitor
        self._expires_at = guest.expires_at
        self._unsent: deque[_Unsent] = deque()
        self._unsent_bytes = 0
        self._grown = True
        self._resync = True
        self._ended = False
        self._woken = asyncio.Event()
        self._stream: str | None = None
        self._next_index = 0

    def grow(self) -> None:
        """The log has something new."""
        self._grown = True
        self._woken.set()

    def resync(self) -> None:
        """Something may have been missed."""
        self._grown = self._resync = True
        self._woken.set()

    def end(self) -> None:
        """The page is gone, or is to come back another time."""
        self._ended = True
        self._unsent.clear()
        self._holds(0)
        self._woken.set()

    def hear(self, framed: bytes) -> None:
        """Something happens right now."""
        self._hold(_Unsent(framed))

    def hear_piece(self, piece: Written, framed: bytes) -> None:
        """A piece of an answer; one that comes twice is ignored, one that was missed is made good."""
        if piece.stream != self._stream:
            self._forget_pieces()
            self._stream, self._next_index = piece.stream, piece.index
            self._resync = self._resync or piece.index > 0
        elif piece.index < self._next_index:
            return
        elif piece.index > self._next_index:
            self._resync = True
        self._next_index = piece.index + 1
        self._hold(_Unsent(framed, piece.stream, piece.index))

    async def frames(self) -> AsyncIterator[bytes]:
        """What to send, until the page is gone or its session is over. Never more than one page of the log at a time."""
        yield b"retry: %d\n\n" % RETRY_MS
        while not self._ended and (left_s := self._expires_at - self._app.broker.now_ms() / 1000) > 0:
            self._woken.clear()
            sent = False
            async for framed in self._due():
                sent = True
                yield framed
            if sent or self._grown or self._resync or self._unsent:
                continue
            try:
                async with asyncio.timeout(min(PING_S, left_s)):
                    await self._woken.wait()
            except TimeoutError:
                yield b": ping\n\n"

    async def _due(self) -> AsyncIterator[bytes]:
        try:
            if self.place is None or (self._grown and self._resync):
                async for framed in self._find_place():
                    yield framed
            while self._grown and not self._ended and self.place is not None:
                self._grown = False
                if framed := await self._next_page(self.place):
                    yield framed
        except StoreUnavailable:
            self._grown = True
            await asyncio.sleep(_STORE_AWAY_S)
            yield b": the store is away\n\n"
        if self._resync:
            self._resync = False
            if framed := await self._so_far():
                yield framed
        if self._unsent:
            yield self._take_unsent()

    async def _find_place(self) -> AsyncIterator[bytes]:
        """A page that says nothing begins at the end; one that is ahead of the log, or far behind, is told to read anew."""
        head = (await conversation_log.heads(self._app.database, [self.conversation_id])).get(self.conversation_id)
        last = head.last if head else 0
        if self.place is None:
            self.place = last
        elif self.place > last or last - self.place > MOST_REPLAYED:
            reason = "unknown_place" if self.place > last else "too_far_behind"
            self.place = last
            yield frame("reset", {"reason": reason}, last)
        if head is not None:  # it may have changed while the page was away
            for event in owned(head.owner):
                yield frame(event.event, event.data)

    async def _next_page(self, place: int) -> bytes:
        found = await self._app.reads.log(LogPlace(self.conversation_id, self._visitor.customer_id, place, _PAGE))
        if not found:
            return b""
        self.place = found[-1].seq
        self._grown = self._grown or len(found) == _PAGE
        metrics.stream_events_total.labels("logged").inc(len(found))
        return b"".join(self._entry(entry) for entry in found)

    def _entry(self, entry: LogEntry) -> bytes:
        event = "message.completed" if entry.role in {"assistant", "system"} else "message.created"
        return frame(event, shown(entry, self._visitor.id).model_dump(mode="json"), entry.seq)

    async def _so_far(self) -> bytes:
        """The answer that is being written, as far as it is; the pieces that are held and in it are not sent again."""
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                so_far = await self._app.broker.live.so_far(str(self.conversation_id))
        except AWAY:  # when Redis is back, all pages are made good
            return b""
        if so_far is None:
            self._forget_pieces()
            self._stream = None  # what was told meanwhile is dropped: its next piece asks again
            return b""
        if not so_far.next_index:
            self._forget_pieces(but=so_far.stream)
            return b""
        self._forget_pieces(but=so_far.stream, before=so_far.next_index)
        if self._stream != so_far.stream:
            self._stream, self._next_index = so_far.stream, so_far.next_index
        self._next_index = max(self._next_index, so_far.next_index)
        metrics.stream_events_total.labels("resync").inc()
        data = {"id": so_far.stream, "i": so_far.next_index - 1, "text": so_far.text, "replace": True}
        return frame("message.delta", data)

    def _hold(self, unsent: _Unsent) -> None:
        if self._ended:
            return
        self._unsent.append(unsent)
        self._holds(self._unsent_bytes + len(unsent.frame))
        if self._unsent_bytes > MOST_LIVE_BYTES:
            metrics.stream_events_total.labels("dropped").inc(len(self._unsent))
            self._unsent.clear()
            self._holds(0)
            self._resync = True
        self._woken.set()

    def _take_unsent(self) -> bytes:
        metrics.stream_events_total.labels("live").inc(len(self._unsent))
        framed = b"".join(unsent.frame for unsent in self._unsent)
        self._unsent.clear()
        self._holds(0)
        return framed

    def _holds(self, size: int) -> None:
        metrics.stream_held_bytes.inc(size - self._unsent_bytes)
        self._unsent_bytes = size

    def _forget_pieces(self, *, but: str | None = None, before: int = 0) -> None:
        kept = [one for one in self._unsent if one.stream is None or (one.stream == but and one.index >= before)]
        self._unsent = deque(kept)
        self._holds(sum(len(one.frame) for one in kept))

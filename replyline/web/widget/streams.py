"""The open pages of this process: each is sent its conversation's log, in order, and what happens there right now.

The log is read from Postgres, from where each page is: so nothing is lost or repeated, however often a page reconnects, and a
slow page holds nothing. Redis only says that there is something new, and carries what is nowhere kept.
"""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import structlog
from fastapi import Request

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable, CommandRefused, Told, Written
from replyline.live import CLOSED, LiveEvent, decode_event
from replyline.store import conversation_log, visitors
from replyline.store.conversation_log import LogEntry, LogPlace
from replyline.store.database import StoreUnavailable
from replyline.web.problems import Problem
from replyline.web.widget.visitors import Guest
from replyline.web.widget.wire import shown

log = structlog.get_logger(__name__)

PING_S = 15.0
RETRY_MS = 3000
MOST_REPLAYED = 500
"""A page that is further behind reads the history anew."""
MOST_LIVE_BYTES = 32_768
"""Of what happens right now, held for a page that is slow to take it; more is dropped, and made good when it has caught up."""
_PAGE = 20
_READER_TTL_S = 45.0
_RENEW_S = 15.0
_LINGER_S = 30.0
_LOOK_S = 5.0
_MOST_WAITING = 10
_LOOK_WITHOUT_REDIS_S = 1.0
_STORE_AWAY_S = 1.0
_ANSWERS_WITHIN_S = 0.5
"""A Redis that hangs is as good as away."""
_AWAY = (BrokerUnavailable, CommandRefused, TimeoutError)

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

    @property
    def held_bytes(self) -> int:
        """What is held for it now, beside what the log has."""
        return self._unsent_bytes

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
        while not self._ended and (left_s := self._expires_at - time.time()) > 0:
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
        if head is not None and head.owner == "NONE":
            yield frame(CLOSED.event, CLOSED.data)

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
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                so_far = await self._app.broker.live.so_far(str(self.conversation_id))
        except _AWAY:  # when Redis is back, all pages are made good
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
        self._unsent.append(unsent)
        self._unsent_bytes += len(unsent.frame)
        if self._unsent_bytes > MOST_LIVE_BYTES:
            metrics.stream_events_total.labels("dropped").inc(len(self._unsent))
            self._unsent.clear()
            self._unsent_bytes = 0
            self._resync = True
        self._woken.set()

    def _take_unsent(self) -> bytes:
        metrics.stream_events_total.labels("live").inc(len(self._unsent))
        framed = b"".join(unsent.frame for unsent in self._unsent)
        self._unsent.clear()
        self._unsent_bytes = 0
        return framed

    def _forget_pieces(self, *, but: str | None = None, before: int = 0) -> None:
        kept = [one for one in self._unsent if one.stream is None or (one.stream == but and one.index >= before)]
        self._unsent = deque(kept)
        self._unsent_bytes = sum(len(one.frame) for one in kept)


class Streams:
    """Every open page of this process, by conversation. It begins to listen with the first page."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._listeners: dict[uuid.UUID, set[Listener]] = {}
        self._waiting: dict[uuid.UUID, set[asyncio.Event]] = {}
        self._listening = app.broker.listening(self._hear, self._missed)
        self._opening = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def enter(self, guest: Guest, place: int | None, page: str | None) -> Listener:
        """A page listens from `place` on (from the end where it is None). The caller must `leave`.

        A page that gives itself a name takes the place of its own earlier stream, which may be cut off without our knowing.

        Raises:
            Problem: 429, the visitor has too many pages that listen; 503, this process is ending.
        """
        await self._open()
        listener = Listener(self._app, guest, place, page or uuid.uuid4().hex)
        conversation = str(listener.conversation_id)
        most = self._app.settings.widget_streams_per_visitor
        with contextlib.suppress(*_AWAY):  # without Redis nobody counts
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                let_in = await self._app.broker.live.enter(
                    conversation, listener.reader, most=most, ttl_s=_READER_TTL_S
                )
            if not let_in:
                metrics.widget_refusals_total.labels("rate_limited").inc()
                raise Problem(
                    429, "too_many_streams", f"at most {most} pages of a visitor listen at once", retry_after_s=30.0
                )
        for earlier in self._listeners.get(listener.conversation_id, ()):
            if earlier.reader == listener.reader:
                earlier.end()
        if self._closed:  # meanwhile
            raise Problem(503, "ending", "this process is ending: come back", retry_after_s=1.0)
        if len(self._listeners.get(listener.conversation_id, ())) >= 2 * most:  # also where Redis counts nobody
            raise Problem(429, "too_many_streams", "too many pages of a visitor listen at once", retry_after_s=30.0)
        self._listeners.setdefault(listener.conversation_id, set()).add(listener)
        metrics.open_streams.inc()
        try:
            await self._watch(listener.conversation_id)
        except BaseException:
            await self.leave(listener)
            raise
        return listener

    async def leave(self, listener: Listener) -> None:
        """The page is gone; for a while it counts as one that will be back."""
        listener.end()
        listeners = self._listeners.get(listener.conversation_id, set())
        if listener in listeners:
            listeners.discard(listener)
            metrics.open_streams.dec()
        self._unwatch(listener.conversation_id)
        if any(other.reader == listener.reader for other in listeners):  # the page is back already
            return
        with contextlib.suppress(*_AWAY):  # then it expires
            await self._app.broker.live.leave(str(listener.conversation_id), listener.reader, linger_s=_LINGER_S)

    @asynccontextmanager
    async def growth(self, conversation_id: uuid.UUID) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """What gives back when the conversation's log may have grown, from the beginning of the block on.

        Raises:
            Problem: 429, too many of the visitor's calls wait already; 503, this process is ending.
        """
        await self._open()
        if len(self._waiting.get(conversation_id, ())) >= _MOST_WAITING:
            raise Problem(429, "too_many_streams", "too many calls of a visitor wait at once", retry_after_s=30.0)
        event = asyncio.Event()
        self._waiting.setdefault(conversation_id, set()).add(event)

        async def grown() -> None:
            if self._closed:
                raise TimeoutError
            with contextlib.suppress(TimeoutError):  # that it has grown may be untold while Redis is away
                async with asyncio.timeout(_LOOK_WITHOUT_REDIS_S * 2):
                    await event.wait()
            event.clear()

        try:
            await self._watch(conversation_id)
            yield grown
        finally:
            self._waiting[conversation_id].discard(event)
            self._unwatch(conversation_id)

    def let_go(self, token_id: uuid.UUID) -> None:
        """End the pages of a visitor whose token was given back."""
        for listeners in self._listeners.values():
            for listener in listeners:
                if listener.token_id == token_id:
                    listener.end()

    async def close(self) -> None:
        """Let every page go; they come back, to another process or to the next one."""
        self._closed = True
        for events in self._waiting.values():
            for event in events:
                event.set()
        for listeners in list(self._listeners.values()):
            for listener in list(listeners):
                listener.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            await self._listening.close()

    async def _open(self) -> None:
        async with self._opening:
            if self._closed:
                raise Problem(503, "ending", "this process is ending: come back", retry_after_s=1.0)
            if not self._tasks:
                await self._listening.open()
                self._tasks = [
                    asyncio.create_task(self._keep_looking(), name="streams look"),
                    asyncio.create_task(self._keep_renewing(), name="streams renew"),
                ]

    async def _watch(self, conversation_id: uuid.UUID) -> None:
        """Listen first, and read the log then: nothing can fall in between."""
        self._listening.watch(str(conversation_id))
        with contextlib.suppress(BrokerUnavailable):  # then the log is looked at every second
            await self._listening.watching(str(conversation_id))

    def _unwatch(self, conversation_id: uuid.UUID) -> None:
        if not self._listeners.get(conversation_id):
            self._listeners.pop(conversation_id, None)
        if not self._waiting.get(conversation_id):
            self._waiting.pop(conversation_id, None)
        if conversation_id not in self._listeners and conversation_id not in self._waiting:
            self._listening.unwatch(str(conversation_id))

    def _hear(self, heard: Told | Written) -> None:
        conversation_id = uuid.UUID(heard.conversation)
        listeners = self._listeners.get(conversation_id, ())
        match heard:
            case Told(what=b""):
                for listener in listeners:
                    listener.grow()
                for event in self._waiting.get(conversation_id, ()):
                    event.set()
            case Told(what=what):
                self._hear_event(listeners, decode_event(what))
            case Written(stream=stream, index=index, text=text):
                framed = frame("message.delta", {"id": stream, "i": index, "text": text})
                for listener in listeners:
                    listener.hear_piece(heard, framed)

    def _hear_event(self, listeners: "set[Listener] | tuple[()]", event: LiveEvent | None) -> None:
        if event is None:
            return
        framed = frame(event.event, event.data)
        for listener in listeners:
            listener.hear(framed)

    def _missed(self) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.resync()
        for events in self._waiting.values():
            for event in events:
                event.set()

    async def _keep_looking(self) -> None:
        """Nothing rests on Redis alone: now and then the logs are compared with where the pages are; often while it is away."""
        while True:
            await asyncio.sleep(_LOOK_S if self._listening.connected else _LOOK_WITHOUT_REDIS_S)
            try:
                await self._look()
            except StoreUnavailable as error:
                log.debug("streams.store_away", error=str(error))
            except Exception:
                log.exception("streams.look_failed")  # the next look is the retry

    async def _look(self) -> None:
        """Compare each page with its log, and see whether it may still be there: its visitor may have logged out."""
        pages = [listener for listeners in self._listeners.values() for listener in listeners]
        heads = await conversation_log.heads(self._app.database, list(self._listeners))
        good = await visitors.good_tokens(self._app.database, [page.token_id for page in pages])
        for page in pages:
            head = heads.get(page.conversation_id)
            last = head.last if head else 0
            if page.token_id not in good:
                page.end()
            elif page.place is not None and page.place > last:
                page.resync()
            elif page.place is None or page.place < last:
                page.grow()

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            rows = [(str(id_), one.reader) for id_, listeners in self._listeners.items() for one in listeners]
            try:
                await self._app.broker.live.renew(rows, ttl_s=_READER_TTL_S)
            except _AWAY as error:
                log.debug("streams.not_renewed", pages=len(rows), error=str(error))


def streams_of(request: Request) -> Streams:
    """The Streams of this process."""
    streams: Streams = request.app.state.streams
    return streams

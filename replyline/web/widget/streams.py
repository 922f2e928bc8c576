"""The open pages of this process: each is sent its conversation's log, in order, and what happens there right now.

The log is read from Postgres, from where each page is: so nothing is lost or repeated, however often a page reconnects, and a
slow page holds nothing. Redis only says that there is something new, and carries what is nowhere kept.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import Request

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable, Told, Written
from replyline.live import LiveEvent, decode_event
from replyline.store import conversation_log, visitors
from replyline.store.database import StoreUnavailable
from replyline.supervision import BackgroundTask
from replyline.web.problems import Problem
from replyline.web.widget.listener import ANSWERS_WITHIN_S, AWAY, Listener, frame
from replyline.web.widget.visitors import Guest

log = structlog.get_logger(__name__)

_READER_TTL_S = 45.0
_RENEW_S = 15.0
_LINGER_S = 30.0
_LOOK_S = 5.0
_MOST_WAITING = 10
_LOOK_WITHOUT_REDIS_S = 1.0


class Streams:
    """Every open page of this process, by conversation. It begins to listen with the first page."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._listeners: dict[uuid.UUID, set[Listener]] = {}
        self._waiting: dict[uuid.UUID, set[asyncio.Event]] = {}
        self._listening = app.broker.listening(self._hear, self._missed)
        self._opening = asyncio.Lock()
        self._tasks: list[BackgroundTask] = []
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
        with contextlib.suppress(*AWAY):  # without Redis nobody counts
            async with asyncio.timeout(ANSWERS_WITHIN_S):
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
        with contextlib.suppress(*AWAY):  # then it expires
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
            await task.stop()
        if self._tasks:
            await self._listening.close()

    async def _open(self) -> None:
        async with self._opening:
            if self._closed:
                raise Problem(503, "ending", "this process is ending: come back", retry_after_s=1.0)
            if not self._tasks:
                await self._listening.open()
                start = self._app.supervisor.start
                self._tasks = [
                    start("streams look", self._keep_looking, vital=False),
                    start("streams renew", self._keep_renewing, vital=False),
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
            except AWAY as error:
                log.debug("streams.not_renewed", pages=len(rows), error=str(error))


async def streams_of(request: Request) -> Streams:
    """The Streams of this process."""
    streams: Streams = request.app.state.streams
    return streams

"""Taking jobs for a worker: one task that knows when nothing can be there, and then does not ask.

A worker of BullMQ asks after every job and after every marker, and most answers are empty. Here a fetch follows only on a sign:
jobs counted, a marker that stands for one, or the time of a delayed one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import structlog

from replyline.broker.connection import Connection
from replyline.broker.contract import BrokerUnavailable, CommandRefused
from replyline.broker.held import Ender, Held, Nothing, read_fetch
from replyline.broker.keys import Keys
from replyline.broker.marker import MarkerWait
from replyline.broker.wire import Reply, pack

log = structlog.get_logger(__name__)

# Without any marker for this long a worker looks by itself: a marker can be lost with the connection that took it.
_LOOK_EVERY_S = 1.5
_AWAY_PAUSE_S = 0.05
_REFUSED_PAUSE_S = 1.0
_FETCHED_AT_ONCE = 64


class Fetcher:
    """Keeps a worker's slots filled.

    At most `at_once` jobs are asked for in one write; `free` says how many slots are; `start` is given each job; `recover` is
    awaited after a lost connection, on which a job may have been fetched without our knowing.
    """

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        commands: Ender,
        *,
        worker: str,
        at_once: int,
        free: Callable[[], int],
        start: Callable[[Held], None],
        recover: Callable[[], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._commands = commands
        self._at_once = min(at_once, _FETCHED_AT_ONCE)
        self._free = free
        self._start = start
        self._recover = recover
        self._marker = MarkerWait(connection, keys, worker=worker)
        self._freed = asyncio.Event()
        self._closing = asyncio.Event()
        self._away = False
        self._limited_until = 0.0
        self._more = False
        """Whether ending a job should fetch the next with the same call: one may well wait by then."""
        self._known: Nothing | None = None
        """Set while nothing needs to be fetched before the marker says so, with what was last told."""
        self._waiting = 0
        """How many jobs the last look saw that were not fetched since."""
        self._echo = False
        """Whether a fetch of ours has set the marker, and that was not taken since."""
        self._eager = True
        """Whether the marker has been telling the truth: with several workers, it may be another one's echo."""
        self._refused: str | None = None
        self._reserved = 0
        """How many free slots are kept for jobs that calls in flight may bring."""
        self._running = False
        self._moved_at = time.monotonic()
        self._resting = True

    @property
    def trouble(self) -> str | None:
        """Why nothing can be fetched; None while it can, and while Redis is away, which is said elsewhere."""
        return None if self._refused is None else f"Redis refuses: {self._refused}"

    @property
    def stuck_s(self) -> float:
        """For how many seconds no step was made; 0 while it waits for a free slot, for Redis or for the end of a pause."""
        return 0.0 if self._resting else time.monotonic() - self._moved_at

    @property
    def with_end(self) -> bool:
        """Whether a job's end should fetch the next one."""
        return self._more and not self._closing.is_set() and not self._away

    def slot_freed(self) -> None:
        """A job has ended without another in its place."""
        self._freed.set()

    def went_away(self) -> None:
        """A call failed, and nobody knows whether Redis carried it out."""
        self._away = True
        self._freed.set()

    # What a publication of this process brings (`publishing.Taker`).

    @property
    def ended(self) -> bool:
        """Whether it fetches no more for good."""
        return self._closing.is_set()

    def reserve(self) -> bytes | None:
        """Keep a free slot for a job that a call of somebody else takes, and give the arguments with which it takes one.

        None if no job is wanted. The last free slot is never given away: while the open call for the marker may be answered,
        there is a slot for what the marker stands for. Each call must end with `brought` or `lost`.
        """
        able = self._running and not self._closing.is_set() and not self._away and self._refused is None
        if not able or self._room() < 2 or self._limited_until > time.monotonic():
            return None
        self._reserved += 1
        return self._commands.take()

    def brought(self, reply: Reply) -> None:
        """What the call took. It leaves the marker where something waits, so what is known of the queue holds."""
        found = read_fetch(self._keys.queue, reply)
        self._reserved -= 1
        if isinstance(found, Held):
            self._start(found)
        elif found.limited_ms:
            self._limited_until = time.monotonic() + found.limited_ms / 1000
        self._freed.set()

    def lost(self) -> None:
        """The call failed: it may have taken a job that nobody here knows of."""
        self._reserved -= 1
        self.went_away()

    def take(self, reply: Reply) -> Held | Nothing:
        """Read what a fetch, or an end that fetched, returned."""
        found = read_fetch(self._keys.queue, reply)
        if isinstance(found, Nothing):
            self._more, self._waiting = False, 0
            self._known = found
            if found.limited_ms:
                self._limited_until = time.monotonic() + found.limited_ms / 1000
        else:
            self._known, self._echo = Nothing(), True
        return found

    async def run(self) -> None:
        """Fetch until `stop`, and until no call is in flight that may bring a job; Redis may go and come back."""
        self._running = True
        try:
            await self._fetch_until_closing()
            self._resting = True
            while self._reserved:
                self._freed.clear()
                await self._freed.wait()
        except Exception:
            self._away = True  # started again, it must ask what was fetched meanwhile
            raise
        finally:
            self._running, self._resting = False, True
            await self._marker.close()

    def _room(self) -> int:
        """How many slots are free and not kept for what a call in flight may bring."""
        return self._free() - self._reserved

    @contextmanager
    def _rest(self) -> Iterator[None]:
        """Within, no step is expected."""
        self._resting = True
        try:
            yield
        finally:
            self._resting, self._moved_at = False, time.monotonic()

    async def _fetch_until_closing(self) -> None:
        while not self._closing.is_set():
            try:
                if not await self._connected():
                    break
                if self._away:
                    await self._come_back()
                self._resting, self._moved_at = False, time.monotonic()
                await self._round()
                self._refused = None
            except BrokerUnavailable as error:
                log.debug("worker.redis_away", queue=self._keys.queue, error=str(error))
                self._away = True
                await self._pause(_AWAY_PAUSE_S)
            except CommandRefused as error:
                if self._refused is None:
                    log.error("worker.fetch_refused", queue=self._keys.queue, error=str(error))
                self._refused = str(error)
                await self._pause(_REFUSED_PAUSE_S)

    async def _come_back(self) -> None:
        """After a lost connection: ask Redis what it holds for us. That must be done before anything else is."""
        self._away, self._known, self._waiting = False, None, 0
        try:
            await self._recover()
        except CommandRefused:
            self._away = True
            raise

    async def stop(self) -> None:
        """Let `run` end; what it still fetches meanwhile goes to `start` as well."""
        self._closing.set()
        self._freed.set()
        await self._marker.release()

    async def offer(self) -> None:
        """Leave a marker that jobs can be taken; BullMQ sets none when it puts back one that has a priority."""
        await self._marker.put_back(0)

    async def pass_on(self) -> None:
        """Leave a marker for the other workers, in place of one that we may have taken."""
        waiting, due_ms = await self._look()
        if waiting:
            await self._marker.put_back(0)
        elif due_ms:
            await self._marker.put_back(due_ms)

    async def _round(self) -> None:
        """Wait for a slot, take what is there, wait for a sign."""
        was_full = self._room() <= 0
        if not await self._free_slot():
            return
        limited_s = self._limited_until - time.monotonic()
        if limited_s > 0:
            await self._pause(limited_s)
        elif was_full and self._known is not None:
            await self._wait_for_sign(self._known)
        else:
            await self._take_what_is_there()

    async def _take_what_is_there(self) -> None:
        waiting, free = self._waiting, self._room()
        wanted = max(1, min(waiting, free, self._at_once))
        self._waiting, self._more = max(0, waiting - wanted), waiting > free
        found = await self._fetch(wanted)
        if isinstance(found, Nothing):
            self._eager = False
            # Jobs may wait and yet not be had: the queue is paused, or all its workers together hold as many as they may.
            self._more = (await self._look())[0] > 0
            self._waiting = 0
            await self._wait_for_sign(found)
        elif not waiting:
            await self._wait_for_sign(Nothing())  # the fetch has set the marker anew, and that will make us look
        elif not self._waiting and not (await self._look())[0]:
            await self._wait_for_sign(self._known or Nothing())

    async def _fetch(self, wanted: int) -> Held | Nothing:
        """Take up to `wanted` jobs; the last answer, which tells whether there was one for each."""
        self._reserved += wanted
        try:
            answers = await self._connection.run_all([self._commands.fetch() for _ in range(wanted)])
        finally:
            self._reserved -= wanted
        last: Held | Nothing = Nothing()
        wrong: BrokerUnavailable | CommandRefused | None = None
        for answer in answers:
            if isinstance(answer, BrokerUnavailable | CommandRefused):
                wrong = answer
                continue
            last = self.take(answer)
            if isinstance(last, Held):
                self._start(last)
        if wrong is not None:
            raise wrong
        return last

    async def _wait_for_sign(self, found: Nothing) -> None:
        """Until the marker says that there is something, the next delayed job is due, or nothing came for a while."""
        due_ms = found.next_ms
        fetched_at = time.monotonic()
        while not self._closing.is_set():
            left_s = _LOOK_EVERY_S - (time.monotonic() - fetched_at)
            if due_ms:
                left_s = min(left_s, (due_ms - self._connection.clock.now_ms()) / 1000)
            if left_s <= 0 or self._away or self._limited_until > time.monotonic():
                return
            if self._room() <= 0:
                if due_ms:  # all slots are busy: let another worker keep the time that we had taken on
                    await self._marker.put_back(due_ms)
                return
            score = await self._marker.wait(left_s)
            if score is None:
                return
            if score > 0:
                due_ms = int(score)
                continue
            if self._eager and not self._echo:
                return
            # Probably the marker that a fetch of ours or of another worker left: a look costs less than an empty fetch.
            self._echo = False
            waiting, due_ms = await self._look()
            if waiting:
                self._eager = True
                return
            self._more = False

    async def _look(self) -> tuple[int, int]:
        """How many jobs wait, and when the next delayed one is due (milliseconds since 1970; 0 if none is)."""
        keys = self._keys
        list_, set_, delayed = await self._connection.run_all(
            [
                pack("LLEN", keys["wait"]),
                pack("ZCARD", keys["prioritized"]),
                pack("ZRANGE", keys["delayed"], 0, 0, "WITHSCORES"),
            ]
        )
        waiting = sum(count for count in (list_, set_) if isinstance(count, int))
        score = delayed[1] if isinstance(delayed, list) and len(delayed) == 2 else None
        # BullMQ's score of a delayed job is its time with 12 bits of a counter below it.
        due_ms = int(float(score)) >> 12 if isinstance(score, bytes) else 0
        self._waiting = waiting
        self._known = None if waiting else Nothing(next_ms=due_ms)
        return waiting, due_ms

    async def _free_slot(self) -> bool:
        while self._room() <= 0:
            self._more = True
            self._freed.clear()
            await self._marker.release()
            with self._rest():
                await self._freed.wait()
            if self._closing.is_set() or self._away:
                return False
        return not self._closing.is_set()

    async def _connected(self) -> bool:
        """Wait for a connection; False where the worker is closed first."""
        if not self._connection.connected and not self._closing.is_set():
            waits = [asyncio.ensure_future(self._connection.ready()), asyncio.ensure_future(self._closing.wait())]
            with self._rest():
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return not self._closing.is_set()

    async def _pause(self, seconds: float) -> None:
        with self._rest(), suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

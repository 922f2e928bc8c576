"""The worker: takes the jobs of one queue, as many at once as it may, and ends each as its handler says.

One task fetches. A slot is a task that runs a job, ends it and, where more is likely to wait, gets the next one with the same
call. How many calls a job costs is decided by what is known: after an empty fetch nothing is fetched until the marker says so.
"""

import asyncio
import time
import traceback
import uuid

import structlog

from replyline.broker import leases
from replyline.broker.connection import Connection
from replyline.broker.contract import (
    ActiveJob,
    BrokerUnavailable,
    CommandRefused,
    Handler,
    Outcome,
    Retry,
)
from replyline.broker.held import Ender, Held, Nothing, read_fetch
from replyline.broker.keys import Keys
from replyline.broker.marker import MarkerWait
from replyline.broker.wire import Reply, pack

log = structlog.get_logger(__name__)

# Without any marker for this long a worker looks by itself: a marker can be lost with the connection that took it.
_LOOK_EVERY_S = 5.0
_UNFORESEEN_RETRY_MS = 1000
_HAND_BACK_S = 3.0
_JOBS_NAMED = 10
_FETCHED_AT_ONCE = 64
_ENDED_ELSEWHERE = frozenset({-1, -2, -3, -6})


class Worker:
    """Works one queue. Made by `Broker.worker`."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        handler: Handler,
        *,
        concurrency: int,
        name: str,
        lock_s: float,
        stalled_every_s: float,
        max_stalled: int,
        rate_limit: tuple[int, float] | None,
        keep_completed_s: int,
        keep_failed_s: int,
    ) -> None:
        if concurrency < 1:
            raise ValueError("a worker needs at least one slot")
        self._connection = connection
        self._keys = keys
        self._handler = handler
        self._concurrency = concurrency
        self._lock_s = lock_s
        self._stalled_every_s = stalled_every_s
        self._max_stalled = max_stalled
        self._token = str(uuid.uuid4())
        self._commands = Ender(
            keys,
            token=self._token,
            name=name,
            lock_ms=round(lock_s * 1000),
            rate_limit=rate_limit,
            keep_completed_s=keep_completed_s,
            keep_failed_s=keep_failed_s,
        )
        self._marker = MarkerWait(connection, keys)
        self._slots: set[asyncio.Task[None]] = set()
        self._held: dict[str, Held] = {}
        self._slot_freed = asyncio.Event()
        self._more = False
        """Whether jobs probably wait: then ending one fetches the next."""
        self._lost = False
        """Whether the connection was lost, so that a job may have been fetched for us without our knowing."""
        self._limited_until = 0.0
        self._closing = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def running(self) -> int:
        """How many jobs it holds now."""
        return len(self._held)

    async def run(self) -> None:
        """Work until `close`. Redis may go and come back.

        Raises:
            Exception: a bug of ours; nothing foreseen ends a worker.
        """
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(self._renew_locks(), name=f"locks {self._keys.queue}"),
                    group.create_task(self._look_for_stalled(), name=f"stalled {self._keys.queue}"),
                ]
                await self._fetch_until_closing()
                for helper in helpers[1:]:
                    helper.cancel()
                await self._stopped.wait()
                helpers[0].cancel()
        finally:
            self._marker.close()

    async def close(self, grace_s: float) -> None:
        """Take no more jobs, wait up to `grace_s` seconds for those that run, hand the others back at once."""
        self._closing.set()
        self._slot_freed.set()
        await self._marker.release()
        if self._slots:
            await asyncio.wait(self._slots, timeout=grace_s)
        for slot in self._slots:
            slot.cancel()
        if self._slots:
            await asyncio.wait(self._slots, timeout=_HAND_BACK_S)
        if self._held:
            log.warning("worker.left_to_stalled_check", queue=self._keys.queue, jobs=len(self._held))
        if self._lost and self._connection.connected:
            await self._hand_back_unknown()
        self._stopped.set()

    # Fetching.

    async def _fetch_until_closing(self) -> None:
        while not self._closing.is_set():
            try:
                if not await self._connected():
                    return
                if self._lost:
                    await self._hand_back_unknown()
                await self._fetch_while_connected()
            except BrokerUnavailable as error:
                log.debug("worker.redis_away", queue=self._keys.queue, error=str(error))
                self._lost = True
                await self._pause(0.05)

    async def _fetch_while_connected(self) -> None:
        """One round: wait for a slot, wait for a sign, take what is there."""
        if not await self._free_slot():
            return
        limited_s = self._limited_until - time.monotonic()
        if limited_s > 0:
            await self._pause(limited_s)
            return
        found = await self._fetch(1)
        if isinstance(found, Held):
            await self._fetch_rest()
        else:
            # Jobs may wait and yet not be had: the queue is paused, or all its workers together hold as many as they may.
            self._more = bool(self._slots) and (await self._look())[0] > 0
            await self._wait_for_sign(found)

    async def _fetch_rest(self) -> None:
        """After a first job: look how many wait, and take as many as there are slots, in one write."""
        while not self._closing.is_set():
            waiting, next_ms = await self._look()
            free = self._concurrency - len(self._slots)
            self._more = waiting > free
            wanted = min(waiting, free, _FETCHED_AT_ONCE)
            if wanted <= 0:
                if not self._more:
                    await self._wait_for_sign(Nothing(next_ms=next_ms))
                return
            found = await self._fetch(wanted)
            if isinstance(found, Nothing):
                await self._wait_for_sign(found)
                return

    async def _fetch(self, wanted: int) -> Held | Nothing:
        """Take up to `wanted` jobs; the last answer, which tells whether there was one for each."""
        answers = await self._connection.run_all([self._commands.fetch() for _ in range(wanted)])
        last: Held | Nothing = Nothing()
        for answer in answers:
            if isinstance(answer, BrokerUnavailable | CommandRefused):
                raise BrokerUnavailable(str(answer))
            last = self._take(answer)
            if isinstance(last, Held):
                self._start(last)
        return last

    def _take(self, reply: Reply) -> Held | Nothing:
        found = read_fetch(self._keys.queue, reply)
        if isinstance(found, Nothing):
            self._more = False
            if found.limited_ms:
                self._limited_until = time.monotonic() + found.limited_ms / 1000
        return found

    async def _wait_for_sign(self, found: Nothing) -> None:
        """Until the marker says that there is something, the next delayed job is due, or nothing came for a while."""
        due_ms = found.next_ms
        fetched_at = time.monotonic()
        while not self._closing.is_set():
            left_s = _LOOK_EVERY_S - (time.monotonic() - fetched_at)
            if due_ms:
                left_s = min(left_s, due_ms / 1000 - time.time())
            if left_s <= 0 or self._lost or self._limited_until > time.monotonic():
                return
            if len(self._slots) >= self._concurrency:
                if due_ms:  # all slots are busy: let another worker keep the time that we had taken on
                    await self._marker.put_back(due_ms)
                return
            score = await self._marker.wait(left_s)
            if score is None:
                return
            if score > 0:
                due_ms = int(score)
                continue
            # Perhaps the marker that our own last fetch left: where nothing waits, nothing needs to be fetched.
            waiting, due_ms = await self._look()
            if waiting:
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
        return waiting, int(float(score)) >> 12 if isinstance(score, bytes) else 0

    async def _free_slot(self) -> bool:
        while len(self._slots) >= self._concurrency:
            self._more = True
            self._slot_freed.clear()
            await self._marker.release()
            await self._slot_freed.wait()
            if self._closing.is_set() or self._lost:
                return False
        return not self._closing.is_set()

    async def _connected(self) -> bool:
        """Wait for a connection; False where the worker is closed first."""
        if not self._connection.connected and not self._closing.is_set():
            waits = [asyncio.ensure_future(self._connection.ready()), asyncio.ensure_future(self._closing.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return not self._closing.is_set()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return

    # A slot.

    def _start(self, held: Held) -> None:
        self._held[held.job.id] = held
        slot = asyncio.create_task(self._serve(held), name=f"job {held.job.id}")
        self._slots.add(slot)
        slot.add_done_callback(self._free)

    def _free(self, slot: "asyncio.Task[None]") -> None:
        self._slots.discard(slot)
        self._slot_freed.set()
        if not slot.cancelled() and slot.exception() is not None:
            log.error("worker.slot_broken", queue=self._keys.queue, exc_info=slot.exception())

    async def _serve(self, held: Held) -> None:
        following: Held | None = held
        while following is not None:
            current = following
            try:
                outcome = await self._handle(current.job)
            except asyncio.CancelledError:
                await self._hand_back(current)
                raise
            try:
                following = await self._end(current, outcome)
            finally:
                self._held.pop(current.job.id, None)

    async def _handle(self, job: ActiveJob) -> Outcome:
        try:
            return await self._handler(job)
        except Exception as error:
            log.exception("worker.handler_raised", queue=job.queue, job=job.id)
            return Retry(_UNFORESEEN_RETRY_MS, str(error) or type(error).__name__, traceback.format_exc())

    async def _end(self, held: Held, outcome: Outcome) -> Held | None:
        """End the job, again after a reconnect if need be; gives the next one where that was fetched with it."""
        resent = False
        while True:
            fetch_next = self._more and not (self._closing.is_set() or self._lost)
            try:
                reply = await self._connection.run(self._commands.end(held, outcome, fetch_next=fetch_next))
            except BrokerUnavailable:
                self._lost = resent = True
                self._slot_freed.set()
                await asyncio.sleep(0)
                await self._connection.ready()
                continue
            except CommandRefused as error:
                log.error("worker.end_refused", queue=self._keys.queue, job=held.job.id, error=str(error))
                return None
            break
        if isinstance(reply, int) and reply in _ENDED_ELSEWHERE:
            # Either our first call had worked, or the lock ran out and another worker has the job: both are its end for us.
            log.info("worker.job_ended_elsewhere", queue=self._keys.queue, job=held.job.id, code=reply, resent=resent)
            return None
        if not fetch_next:
            return None
        found = self._take(reply)
        if isinstance(found, Nothing):
            return None
        self._held[found.job.id] = found
        return found

    async def _hand_back(self, held: Held) -> None:
        """Give up a job that was cancelled: it waits again, at the head of its priority, no attempt used."""
        try:
            async with asyncio.timeout(_HAND_BACK_S / 2):
                await self._connection.ready()
                await self._connection.run(self._commands.hand_back(held.job.id))
                await self._marker.put_back(0)
        except (BrokerUnavailable, CommandRefused, TimeoutError) as error:
            log.warning("worker.not_handed_back", queue=self._keys.queue, job=held.job.id, error=str(error))
        else:
            self._held.pop(held.job.id, None)

    # Housekeeping.

    async def _renew_locks(self) -> None:
        """One call for all jobs, so often that one may fail."""
        while True:
            await asyncio.sleep(self._lock_s / 3)
            if not self._held:
                continue
            try:
                lost = await leases.renew(self._connection, self._keys, self._token, list(self._held), self._lock_s)
            except (BrokerUnavailable, CommandRefused) as error:
                log.debug("worker.locks_not_renewed", queue=self._keys.queue, error=str(error))
                continue
            self._warn_of("worker.locks_lost", [job_id for job_id in lost if job_id in self._held])

    async def _look_for_stalled(self) -> None:
        while True:
            try:
                await self._connection.ready()
                freed = await leases.free_stalled(
                    self._connection, self._keys, max_stalled=self._max_stalled, every_s=self._stalled_every_s
                )
            except (BrokerUnavailable, CommandRefused) as error:
                log.debug("worker.stalled_not_checked", queue=self._keys.queue, error=str(error))
            else:
                self._warn_of("worker.stalled", freed)
            await asyncio.sleep(self._stalled_every_s)

    async def _hand_back_unknown(self) -> None:
        """After a lost connection: what was fetched for us but never reached us waits again."""
        self._lost = False
        try:
            ours = await leases.held_unknowingly(self._connection, self._keys, self._token, self._held.keys())
            if ours:
                await self._connection.run_all([self._commands.hand_back(job_id) for job_id in ours])
                await self._marker.put_back(0)
        except BrokerUnavailable:
            self._lost = True
            raise
        self._warn_of("worker.handed_back_unknown", ours)

    def _warn_of(self, event: str, job_ids: list[str]) -> None:
        if job_ids:
            log.warning(event, queue=self._keys.queue, count=len(job_ids), jobs=job_ids[:_JOBS_NAMED])

"""The worker: takes the jobs of one queue, as many at once as it may, and ends each as its handler says.

One task fetches (`fetching.py`). A slot is a task that runs a job, ends it and, where more is likely to wait, gets the next one
with the same call.
"""

import asyncio
import contextlib
import time
import traceback
import uuid

import structlog

from replyline.broker.connection import Connection
from replyline.broker.contract import ActiveJob, BrokerUnavailable, CommandRefused, Completed, Handler, Outcome, Retry
from replyline.broker.fetching import Fetcher
from replyline.broker.held import Ender, Held
from replyline.broker.keys import Keys
from replyline.broker.leases import Leases
from replyline.broker.publishing import Kept, Taker
from replyline.broker.schedules import Scheduling
from replyline.broker.wire import Reply
from replyline.redaction import redact
from replyline.supervision import Supervisor

log = structlog.get_logger(__name__)

_UNFORESEEN_RETRY_MS = 1000
_RESEND_PAUSE_S = 0.05
_REFUSED_PAUSE_S = 0.5
_END_REFUSED_S = 20.0
_STOP_FETCHING_S = 1.0
_CANCEL_S = 3.0
_HAND_BACK_S = 3.0
# What moveToFinished and moveToDelayed answer when the job is gone, or is not ours or not active any more.
_ENDED_ELSEWHERE = frozenset({-1, -2, -3, -6})


class Worker:
    """Works one queue. Made by `Broker.worker`."""

    def __init__(
        self,
        connection: Connection,
        supervisor: Supervisor,
        keys: Keys,
        handler: Handler,
        *,
        concurrency: int,
        name: str,
        lock_s: float,
        stalled_every_s: float,
        max_stalled: int,
        rate_limit: tuple[int, float] | None,
        keep_completed: Kept,
        keep_failed: Kept,
        schedulers: bool,
    ) -> None:
        if concurrency < 1:
            raise ValueError("a worker needs at least one slot")
        token = str(uuid.uuid4())
        self._connection = connection
        self._supervisor = supervisor
        self._queue = keys.queue
        self._handler = handler
        self._concurrency = concurrency
        self._scheduling = Scheduling(connection, keys, allowed=schedulers)
        self._commands = Ender(
            keys,
            token=token,
            name=name,
            lock_ms=round(lock_s * 1000),
            rate_limit=rate_limit,
            keep_completed=keep_completed,
            keep_failed=keep_failed,
            now_ms=connection.clock.now_ms,
        )
        self._leases = Leases(
            connection, keys, token=token, lock_s=lock_s, stalled_every_s=stalled_every_s, max_stalled=max_stalled
        )
        self._fetcher = Fetcher(
            connection,
            keys,
            self._commands,
            worker=name,
            at_once=concurrency if rate_limit is None else rate_limit[0],
            free=lambda: self._concurrency - len(self._slots),
            start=self._start,
            recover=self._hand_back_unknown,
        )
        self._fetched_last = asyncio.Event()
        self._slots: set[asyncio.Task[None]] = set()
        self._held: dict[str, Held] = {}
        self._closing = False
        self._stopped = asyncio.Event()

    @property
    def running(self) -> int:
        """How many jobs it holds now."""
        return len(self._held)

    @property
    def taker(self) -> Taker:
        """What is brought jobs by the calls that add them."""
        return self._fetcher

    @property
    def trouble(self) -> str | None:
        """Why it takes no jobs though it could, in words; None while it does."""
        return self._fetcher.trouble

    @property
    def stuck_s(self) -> float:
        """For how many seconds its fetching has made no step though nothing that may take long holds it up."""
        return self._fetcher.stuck_s

    async def run(self) -> None:
        """Work until `close`. Redis may go and come back; its tasks are started again if a bug of ours ends one."""
        start = self._supervisor.start
        tasks = [
            start(f"fetch {self._queue}", self._fetch),
            start(f"locks {self._queue}", lambda: self._leases.renew_forever(self._held.keys())),
            start(f"stalled {self._queue}", self._leases.watch_forever),
        ]
        try:
            await self._stopped.wait()
        finally:
            for slot in self._slots:
                slot.cancel()
            for task in tasks:
                await task.stop()

    async def _fetch(self) -> None:
        await self._fetcher.run()
        self._fetched_last.set()
        await self._stopped.wait()

    async def close(self, grace_s: float) -> None:
        """Take no more jobs, wait up to `grace_s` seconds for those that run, hand the others back at once.

        Takes about ten seconds more at most, and that only while Redis does not answer or a handler does not let itself be
        cancelled.
        """
        ends_at = time.monotonic() + grace_s
        self._closing = True
        await self._fetcher.stop()
        with contextlib.suppress(TimeoutError):  # then its task is stopped in the middle, and `_leave` asks Redis
            await asyncio.wait_for(self._fetched_last.wait(), max(grace_s, _STOP_FETCHING_S))
        if self._slots:
            await asyncio.wait(self._slots, timeout=max(ends_at - time.monotonic(), 0))
        for slot in self._slots:
            slot.cancel()
        if self._slots:
            await asyncio.wait(self._slots, timeout=_CANCEL_S)
        await self._leave()
        self._stopped.set()

    async def _leave(self) -> None:
        """Ask Redis, not our own books, what it holds for us: an answer may have been lost with a cancelled call."""
        try:
            async with asyncio.timeout(_HAND_BACK_S):
                await self._connection.ready()
                await self._hand_back(await self._leases.ours())
                await self._fetcher.pass_on()
        except (BrokerUnavailable, CommandRefused, TimeoutError) as error:
            log.warning(
                "worker.left_to_stalled_check", queue=self._queue, jobs=len(self._held), error=str(error) or "timeout"
            )
        self._held.clear()

    # A slot.

    def _start(self, held: Held) -> None:
        self._held[held.job.id] = held
        slot = asyncio.create_task(self._serve(held), name=held.job.id)
        self._slots.add(slot)
        slot.add_done_callback(self._slot_done)

    def _slot_done(self, slot: "asyncio.Task[None]") -> None:
        self._slots.discard(slot)
        self._fetcher.slot_freed()
        if not slot.cancelled() and slot.exception() is not None:
            log.error("worker.slot_broken", queue=self._queue, exc_info=slot.exception())

    async def _serve(self, held: Held) -> None:
        following: Held | None = held
        while following is not None:
            current = following
            if self._closing:  # fetched at the last moment, nothing has begun: another worker can have it at once
                await self._hand_back_unbegun(current.job.id)
                return
            if current.job.scheduler is not None:
                await self._scheduling.go_on(current)
            outcome = await self._handle(current.job)
            # A cancelled end leaves the job in the books, so that its lock is kept until `close` has handed it back.
            following = await self._end(current, outcome)
            if self._held.get(current.job.id) is current:
                del self._held[current.job.id]

    async def _handle(self, job: ActiveJob) -> Outcome:
        try:
            return await self._handler(job)
        except asyncio.CancelledError as error:
            slot = asyncio.current_task()
            if slot is not None and slot.cancelling():
                raise
            return _unforeseen(job, error)  # the handler's own affair, say a task of its that somebody cancelled
        except Exception as error:
            return _unforeseen(job, error)

    async def _end(self, held: Held, outcome: Outcome) -> Held | None:
        """End the job, again after a reconnect if need be; gives the next one where that was fetched with it."""
        resent = False
        refused_until: float | None = None
        while True:
            fetch_next = self._fetcher.with_end
            try:
                reply = await self._send_end(held, outcome, fetch_next=fetch_next)
            except BrokerUnavailable:
                self._fetcher.went_away()
                resent = True
                await asyncio.sleep(_RESEND_PAUSE_S)
                await self._connection.ready()
            except CommandRefused as error:
                if refused_until is None:
                    log.error("worker.end_refused", queue=self._queue, job=held.job.id, error=str(error))
                    refused_until = time.monotonic() + _END_REFUSED_S
                if time.monotonic() > refused_until:  # its lock runs out, and the next run sees that it is done
                    return None
                await asyncio.sleep(_REFUSED_PAUSE_S)
            else:
                return self._after_end(held, reply, resent=resent) if fetch_next or reply != 0 else None

    async def _send_end(self, held: Held, outcome: Outcome, *, fetch_next: bool) -> Reply:
        command = self._commands.end(held, outcome, fetch_next=fetch_next)
        if isinstance(outcome, Completed) or not outcome.note:
            return await self._connection.run(command)
        _, answer = await self._connection.run_all([self._commands.note(held.job.id, outcome.note), command])
        if isinstance(answer, BrokerUnavailable | CommandRefused):
            raise answer
        return answer

    def _after_end(self, held: Held, reply: Reply, *, resent: bool) -> Held | None:
        if isinstance(reply, int) and reply < 0:
            # Either our first call had worked, or the lock ran out and another worker has the job: both are its end for us.
            say = log.info if reply in _ENDED_ELSEWHERE else log.error
            say("worker.job_ended_elsewhere", queue=self._queue, job=held.job.id, code=reply, resent=resent)
            return None
        found = self._fetcher.take(reply)
        if not isinstance(found, Held):
            return None
        self._held[found.job.id] = found
        return found

    # Handing back.

    async def _hand_back(self, job_ids: list[str]) -> None:
        """Let jobs wait again, at the head of their priority, no attempt used."""
        await self._connection.run_all([self._commands.hand_back(job_id) for job_id in job_ids])
        for job_id in job_ids:
            self._held.pop(job_id, None)
        if job_ids:
            await self._fetcher.offer()

    async def _hand_back_unbegun(self, job_id: str) -> None:
        try:
            await self._hand_back([job_id])
        except (BrokerUnavailable, CommandRefused) as error:
            log.debug("worker.handed_back_later", queue=self._queue, job=job_id, error=str(error))

    async def _hand_back_unknown(self) -> None:
        """After a lost connection: what was fetched for us but never reached us waits again."""
        unknown = await self._leases.ours(self._held.keys())
        if unknown:
            log.warning("worker.handed_back_unknown", queue=self._queue, count=len(unknown))
            await self._hand_back(unknown)


def _unforeseen(job: ActiveJob, error: BaseException) -> Retry:
    log.error("worker.handler_raised", queue=job.queue, job=job.id, exc_info=error)
    stack = redact("".join(traceback.format_exception(error)))
    return Retry(_UNFORESEEN_RETRY_MS, redact(str(error) or type(error).__name__), stack)

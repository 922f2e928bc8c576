"""Telling Redis what Postgres already holds: BullMQ of jobs, open pages of grown logs; batched, and never waited for."""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable
from itertools import islice

import structlog

from replyline import metrics
from replyline.broker import Broker, BrokerUnavailable, CommandRefused, Publication, Told
from replyline.jobs import DEAD_LETTER
from replyline.queues import QueueSpec
from replyline.store.outbox import NewJob, Outbox

log = structlog.get_logger(__name__)

LOG_GREW = b""
"""What is told of a conversation whose log has something new: no more than that, because the log says it better."""

_BATCH = 500
_RETRY_S = 0.5
_MOST_GROWN = 10_000


class Publisher:
    """Publishes jobs in the order they were committed.

    At most `capacity` jobs wait for Redis; what comes on top is left to the sweeper, which finds every job that has a row. That a
    log has grown is told once or not at all: pages look at it every few seconds anyway.
    """

    def __init__(self, broker: Broker, spec: Callable[[str], QueueSpec], *, capacity: int = 100_000) -> None:
        self._broker = broker
        self._spec = spec
        self._capacity = capacity
        self._waiting: deque[NewJob] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._grown: set[uuid.UUID] = set()
        self._grown_wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin publishing, in tasks of its own."""
        self._tasks = [
            asyncio.create_task(self._run(), name="publisher"),
            asyncio.create_task(self._tell_of_growth(), name="publisher of grown logs"),
        ]

    async def close(self, grace_s: float = 5.0) -> None:
        """Publish what waits, for at most `grace_s` seconds; the rest is the sweeper's."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("publisher.left_to_sweeper", jobs=len(self._waiting))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def publish(self, outbox: Outbox) -> None:
        """Hand over what came out of a transaction that has committed; returns at once."""
        if outbox.grown and len(self._grown) < _MOST_GROWN:
            self._grown |= outbox.grown
            self._grown_wake.set()
        jobs = outbox.jobs
        room = self._capacity - len(self._waiting)
        if room < len(jobs):
            log.warning("publisher.full", left_to_sweeper=len(jobs) - max(0, room))
        self._waiting.extend(jobs[: max(0, room)])
        if self._waiting:
            self._idle.clear()
            self._wake.set()

    async def _run(self) -> None:
        away = False
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = list(islice(self._waiting, _BATCH))
                try:
                    await self._broker.publish([self._publication(job) for job in batch])
                except BrokerUnavailable as error:
                    if not away:
                        log.warning("publisher.redis_away", error=str(error), waiting=len(self._waiting))
                    away = True
                    metrics.unpublished_jobs.set(len(self._waiting))
                    await asyncio.sleep(_RETRY_S)
                    continue
                for _ in batch:
                    self._waiting.popleft()
                if away:
                    log.info("publisher.redis_back", waiting=len(self._waiting))
                    away = False
                    metrics.unpublished_jobs.set(len(self._waiting))
            metrics.unpublished_jobs.set(0)
            self._idle.set()

    async def _tell_of_growth(self) -> None:
        while True:
            await self._grown_wake.wait()
            self._grown_wake.clear()
            grown, self._grown = self._grown, set()
            try:
                await self._broker.live.tell([Told(str(conversation_id), LOG_GREW) for conversation_id in grown])
            except (BrokerUnavailable, CommandRefused) as error:
                log.debug("publisher.growth_untold", conversations=len(grown), error=str(error))

    def _publication(self, job: NewJob) -> Publication:
        if job.queue == DEAD_LETTER:  # shown, not worked: it stays until it is replayed, discarded or trimmed
            return Publication(job.queue, job.bullmq_id, job.name, job.payload, job.priority, attempts=1)
        spec = self._spec(job.queue)
        return Publication(
            job.queue,
            job.bullmq_id,
            job.name,
            job.payload,
            job.priority,
            delay_ms=round(job.delay_s * 1000),
            attempts=spec.tries,
            keep_completed_s=spec.keep_completed_s,
            keep_failed_s=spec.keep_failed_s,
        )

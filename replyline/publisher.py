"""Telling BullMQ of jobs that Postgres already holds: batched, never waited for, tried again while Redis is away."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

import structlog

from replyline import metrics
from replyline.broker import Broker, BrokerUnavailable, Publication
from replyline.jobs import DEAD_LETTER
from replyline.queues import QueueSpec
from replyline.store.outbox import NewJob

log = structlog.get_logger(__name__)

_BATCH = 500
_RETRY_S = 0.5


class Publisher:
    """Publishes jobs in the order they were committed.

    At most `capacity` jobs wait for Redis; what comes on top is left to the sweeper, which finds every job that has a row.
    """

    def __init__(self, broker: Broker, spec: Callable[[str], QueueSpec], *, capacity: int = 100_000) -> None:
        self._broker = broker
        self._spec = spec
        self._capacity = capacity
        self._waiting: deque[NewJob] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin publishing, in a task of its own."""
        self._task = asyncio.create_task(self._run(), name="publisher")

    async def close(self, grace_s: float = 5.0) -> None:
        """Publish what waits, for at most `grace_s` seconds; the rest is the sweeper's."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("publisher.left_to_sweeper", jobs=len(self._waiting))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def publish(self, jobs: Sequence[NewJob]) -> None:
        """Hand over jobs whose transaction has committed; returns at once."""
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

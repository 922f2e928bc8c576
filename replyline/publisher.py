"""Telling Redis what Postgres already holds: BullMQ of jobs, open pages of grown logs; batched, and never waited for."""

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice

import structlog

from replyline import metrics
from replyline.broker import Broker, BrokerUnavailable, CommandRefused, Publication, PublicationsRefused, Told
from replyline.jobs import DEAD_LETTER
from replyline.queues import QueueSpec
from replyline.store.outbox import NewJob, Outbox
from replyline.supervision import BackgroundTask, Supervisor

log = structlog.get_logger(__name__)

LOG_GREW = b""
"""What is told of a conversation whose log has something new: no more than that, because the log says it better."""

_BATCH = 500
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 2.0
_TRIES_ALONE = 5
_MOST_GROWN = 10_000
_MOST_LOOKED_AT = 1000


@dataclass(slots=True, eq=False)
class _Unpublished:
    """A job that Redis has not taken yet."""

    job: NewJob
    since: float = field(default_factory=time.monotonic)
    refused_at: float | None = None
    refusals: int = 0


class Publisher:
    """Publishes jobs in the order they were committed.

    At most `capacity` jobs wait for Redis; what comes on top is left to the sweeper, which finds every job that has a row. While
    Redis is away, or refuses everything, it is tried again and again. A job that is refused while its queue takes others lets
    those pass, and is left to the sweeper after a few tries. That a log has grown is told once or not at all: pages look at it
    every few seconds anyway.
    """

    def __init__(
        self,
        broker: Broker,
        spec: Callable[[str], QueueSpec],
        supervisor: Supervisor,
        *,
        capacity: int = 100_000,
    ) -> None:
        self._broker = broker
        self._spec = spec
        self._supervisor = supervisor
        self._capacity = capacity
        self._waiting: deque[_Unpublished] = deque()
        self._refused: deque[_Unpublished] = deque()
        self._rows: Counter[uuid.UUID] = Counter()
        self._published_at: dict[str, float] = {}
        self._pause_s = _FIRST_PAUSE_S
        self._said: str | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._grown: set[uuid.UUID] = set()
        self._grown_wake = asyncio.Event()
        self._tasks: list[BackgroundTask] = []

    def start(self) -> None:
        """Begin publishing, in tasks of its own."""
        self._tasks = [
            self._supervisor.start("publisher", self._run),
            self._supervisor.start("publisher of grown logs", self._tell_of_growth),
        ]
        metrics.unpublished_jobs.set_function(lambda: self.unpublished)
        metrics.oldest_unpublished_job_seconds.set_function(lambda: self.oldest_s)

    async def close(self, grace_s: float = 5.0) -> None:
        """Publish what waits, for at most `grace_s` seconds; the rest is the sweeper's."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("publisher.left_to_sweeper", jobs=self.unpublished)
        for task in self._tasks:
            await task.stop()

    def publish(self, outbox: Outbox) -> None:
        """Hand over what came out of a transaction that has committed; returns at once."""
        if outbox.grown and len(self._grown) < _MOST_GROWN:
            self._grown |= outbox.grown
            self._grown_wake.set()
        jobs = outbox.jobs
        room = max(0, self._capacity - self.unpublished)
        if room < len(jobs):
            log.warning("publisher.full", left_to_sweeper=len(jobs) - room)
        for job in jobs[:room]:
            self._waiting.append(_Unpublished(job))
            self._rows[job.id] += 1
        if self._waiting:
            self._idle.clear()
            self._wake.set()

    def holds(self, job_id: uuid.UUID) -> bool:
        """Whether a generation of that row is still on its way from here to Redis."""
        return job_id in self._rows

    @property
    def unpublished(self) -> int:
        """How many jobs wait for Redis here."""
        return len(self._waiting) + len(self._refused)

    @property
    def oldest_s(self) -> float:
        """For how many seconds the oldest of them has waited; 0 where none does."""
        heads = [queue[0].since for queue in (self._waiting, self._refused) if queue]
        return time.monotonic() - min(heads) if heads else 0.0

    def trouble(self, after_s: float) -> str | None:
        """What is wrong where jobs of a queue have waited for `after_s` seconds and none of that queue got through; else None."""
        now = time.monotonic()
        if self.oldest_s < after_s:
            return None
        for one in (*islice(self._waiting, 1), *islice(self._refused, _MOST_LOOKED_AT)):
            last = max(one.since, self._published_at.get(one.job.queue, 0.0))
            if now - last >= after_s:
                why = self._said or "Redis does not answer"
                return f"{self.unpublished} jobs wait for Redis, the oldest for {self.oldest_s:.0f} s: {why}"
        return None

    async def _run(self) -> None:
        while True:
            await self._until_due()
            try:
                await self._publish_refused()
                await self._publish_waiting()
            except (BrokerUnavailable, CommandRefused) as error:
                await self._stay_away(error)
            if not self._waiting and not self._refused:
                self._idle.set()

    async def _until_due(self) -> None:
        """Until something waits; what was refused waits a little longer each time."""
        if self._waiting:
            return
        self._wake.clear()
        if not self._refused:
            await self._wake.wait()
            return
        try:
            async with asyncio.timeout(self._pause_s):
                await self._wake.wait()
        except TimeoutError:
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    async def _stay_away(self, error: Exception) -> None:
        if self._said is None:
            log.warning("publisher.redis_away", error=str(error), waiting=self.unpublished)
        self._said = str(error)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    async def _publish_waiting(self) -> None:
        while self._waiting:
            batch = list(islice(self._waiting, _BATCH))
            refused = await self._publish(batch)
            for _ in batch:
                self._waiting.popleft()
            self._part(batch, refused)

    async def _publish_refused(self) -> None:
        """Try once more what was refused; the first batch that is refused again ends the try."""
        for _ in range(-(-len(self._refused) // _BATCH)):
            batch = list(islice(self._refused, _BATCH))
            refused = await self._publish(batch)
            for _ in batch:
                self._refused.popleft()
            self._part(batch, refused)
            if len(refused) == len(batch):
                return

    def _part(self, batch: Sequence[_Unpublished], refused: Collection[_Unpublished]) -> None:
        """Forget what was taken, keep what was refused, and leave to the sweeper what alone is refused again and again."""
        now = time.monotonic()
        for one in batch:
            if one not in refused and one.job.id in self._rows:
                self._published_at[one.job.queue] = now
                self._forget(one)
        for one in (one for one in batch if one in refused):
            one.refused_at = one.refused_at or now
            one.refusals += 1
            alone = self._published_at.get(one.job.queue, 0.0) >= one.refused_at
            if alone and one.refusals >= _TRIES_ALONE:
                self._leave(one, self._said)
            else:
                self._refused.append(one)
        if not self._refused and self._said is not None:
            log.info("publisher.redis_back", waiting=self.unpublished)
            self._said, self._pause_s = None, _FIRST_PAUSE_S

    def _leave(self, one: _Unpublished, why: str | None) -> None:
        log.error("publisher.refused", queue=one.job.queue, job=one.job.bullmq_id, error=why, left_to="sweeper")
        metrics.refused_publications_total.labels(one.job.queue).inc()
        self._forget(one)

    def _forget(self, one: _Unpublished) -> None:
        self._rows[one.job.id] -= 1
        if self._rows[one.job.id] <= 0:
            del self._rows[one.job.id]

    async def _publish(self, batch: Sequence[_Unpublished]) -> Collection[_Unpublished]:
        """Publish and give those that Redis refused. Raises BrokerUnavailable: all must be sent again."""
        publications = {}
        for one in batch:
            try:
                publications[one] = self._publication(one)
            except (
                KeyError,
                ValueError,
            ) as error:  # a queue or an id that cannot be: its neighbours are not to wait for it
                log.exception("publisher.cannot_publish", job=one.job.bullmq_id)
                self._leave(one, str(error))
        first = [new for one, new in publications.items() if one.refusals == 0 and one.job.generation == 0]
        again = [new for one, new in publications.items() if one.refusals or one.job.generation]
        refused: set[Publication] = set()
        for publish, news in ((self._broker.publish_again, again), (self._broker.publish, first)):
            if news:
                refused |= await self._refused_of(publish(news))
        return {one for one, new in publications.items() if new in refused}

    async def _refused_of(self, publishing: Awaitable[None]) -> set[Publication]:
        try:
            await publishing
        except PublicationsRefused as error:
            if self._said is None:
                log.error("publisher.redis_refuses", error=str(error), refused=len(error.refused))
            self._said = str(error)
            return set(error.refused)
        return set()

    async def _tell_of_growth(self) -> None:
        while True:
            await self._grown_wake.wait()
            self._grown_wake.clear()
            grown, self._grown = self._grown, set()
            try:
                await self._broker.live.tell([Told(str(conversation_id), LOG_GREW) for conversation_id in grown])
            except (BrokerUnavailable, CommandRefused) as error:
                log.debug("publisher.growth_untold", conversations=len(grown), error=str(error))

    def _publication(self, one: _Unpublished) -> Publication:
        job = one.job
        if job.queue == DEAD_LETTER:  # shown, not worked: it stays until it is replayed, discarded or trimmed
            return Publication(job.queue, job.bullmq_id, job.name, job.payload, job.priority, attempts=1)
        spec = self._spec(job.queue)
        delay_s = max(0.0, job.delay_s - (time.monotonic() - one.since)) if job.delay_s else 0.0
        return Publication(
            job.queue,
            job.bullmq_id,
            job.name,
            job.payload,
            job.priority,
            delay_ms=round(delay_s * 1000),
            attempts=spec.tries,
            keep_completed_s=spec.keep_completed_s,
            keep_failed_s=spec.keep_failed_s,
            keep_completed_jobs=spec.keep_completed_jobs,
            keep_failed_jobs=spec.keep_failed_jobs,
        )

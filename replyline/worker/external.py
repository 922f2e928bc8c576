"""Following the jobs of external queues: their results settle our rows, and none of them is done twice because of us."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby

import structlog

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable, CommandRefused, Finished, JobState
from replyline.external_results import (
    FAILED,
    STALLED,
    Result,
    read_external_id,
    record,
    record_after_all,
    refresh_gauges,
    remove_ended,
)
from replyline.store import external
from replyline.store.database import StoreUnavailable
from replyline.store.external import AT_WORK, LOST, WAITS, ExternalJob
from replyline.store.moves.claim import mark_unknown
from replyline.store.outbox import Outbox

log = structlog.get_logger(__name__)

_LISTEN_EVERY_S = 0.25
_PAGE = 500
_PAGES_A_LOOK = 4
_ENDED = ("completed", "failed")
# What BullMQ for Node says of a job under which its worker was lost too often.
_STALLED_SAID = "job stalled more than allowable limit"


class ExternalWork:
    """Listens to BullMQ's events of the external queues, and looks through all open jobs every `sweep_every_s` seconds.

    Events make it quick; the look makes it certain, also after a time without any worker of ours. Any number may run.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._queues = sorted(app.settings.external)
        self._heard: dict[str, str] = {}
        self._after: ExternalJob | None = None
        self._looked_at = float("-inf")
        self._grace_s = app.settings.sweep_grace_s

    async def run(self) -> None:
        """Follow until cancelled; an absent store is waited for, and one that refuses. Any other error is raised."""
        while True:
            try:
                await self.listen()
                if time.monotonic() - self._looked_at > self._app.settings.sweep_every_s:
                    self._looked_at = time.monotonic()
                    await self.look()
            except (StoreUnavailable, BrokerUnavailable, CommandRefused) as error:
                log.warning("external.store_away", error=str(error))
            await asyncio.sleep(_LISTEN_EVERY_S)

    async def listen(self) -> None:
        """Settle what ended since the last call."""
        for queue in self._queues:
            if queue not in self._heard:
                self._heard[queue] = await self._app.broker.watch.newest_event(queue)
            more = True
            while more:
                ended, event_id, more = await self._app.broker.watch.ended_since(queue, self._heard[queue])
                await self._settle_named(queue, ended)
                self._heard[queue] = event_id

    async def look(self) -> None:
        """Look at a part of the open jobs: settle what ended, publish what never was, mark what Redis has forgotten."""
        since_ms = await self._app.broker.watch.remembers_since()
        for _ in range(_PAGES_A_LOOK):
            async with self._app.database.connection() as connection:
                jobs = await external.page(connection, self._queues, after=self._after, limit=_PAGE)
            await self._examine(jobs, since_ms)
            self._after = jobs[-1] if len(jobs) == _PAGE else None
            if self._after is None:
                await self._clean()
                break
        await self._remove_ended()
        await refresh_gauges(self._app)

    async def _remove_ended(self) -> None:
        """What was reported while Redis was away still waits there: an external worker would do it again."""
        for queue in self._queues:
            waiting = await self._app.broker.watch.waiting(queue, limit=_PAGE)
            named = [(row_id, int(name.rpartition("-")[2]), name) for name in waiting if (row_id := _row_id(name))]
            for name in await remove_ended(self._app, queue, named) if named else ():
                log.info("external.removed", queue=queue, job=name)

    async def _settle_named(self, queue: str, bullmq_ids: Sequence[str]) -> None:
        ids = {row_id: name for name in bullmq_ids if (row_id := _row_id(name)) is not None}
        if not ids:
            return
        async with self._app.database.connection() as connection:
            jobs = await external.by_id(connection, self._queues, list(ids))
        known = {job.id for job in jobs}
        # A failed job that somebody has retried: done after all, though it was given up here.
        for row_id in ids.keys() - known:
            await self._settle_after_all(queue, row_id, ids[row_id])
        await self._settle([job for job in jobs if job.bullmq_id == ids[job.id]])

    async def _settle_after_all(self, queue: str, row_id: uuid.UUID, bullmq_id: str) -> None:
        (state,) = await self._app.broker.states(queue, [bullmq_id])
        generation = int(bullmq_id.rpartition("-")[2])
        if state != "completed" or not await external.is_given_up(self._app.database, row_id, generation=generation):
            return
        (finished,) = await self._app.broker.watch.finished(queue, [bullmq_id])
        await record_after_all(self._app, row_id, _result(finished, state))

    async def _settle(self, jobs: Sequence[ExternalJob]) -> None:
        for queue, group in groupby(sorted(jobs, key=lambda job: job.queue), key=lambda job: job.queue):
            of_queue = list(group)
            states = await self._app.broker.states(queue, [job.bullmq_id for job in of_queue])
            for ended in _ENDED:
                done = [job for job, state in zip(of_queue, states, strict=True) if state == ended]
                found = await self._app.broker.watch.finished(queue, [job.bullmq_id for job in done])
                await self._record(done, found, ended)

    async def _record(self, jobs: Sequence[ExternalJob], found: Sequence[Finished], state: str) -> None:
        # Together, so that their moves share transactions.
        results = [_result(finished, state) for finished in found]
        written = await asyncio.gather(
            *(record(self._app, job, result) for job, result in zip(jobs, results, strict=True)), return_exceptions=True
        )
        for job, outcome in zip(jobs, written, strict=True):
            if isinstance(outcome, StoreUnavailable):
                raise outcome
            if isinstance(outcome, BaseException):  # the next look tries again; the others must not wait for it
                log.error("external.not_recorded", queue=job.queue, job=job.bullmq_id, exc_info=outcome)

    async def _examine(self, jobs: Sequence[ExternalJob], since_ms: int | None) -> None:
        standings: list[tuple[uuid.UUID, str, bool]] = []
        unpublished: list[ExternalJob] = []
        lost: list[ExternalJob] = []
        ended: list[ExternalJob] = []
        for queue, group in groupby(sorted(jobs, key=lambda job: job.queue), key=lambda job: job.queue):
            of_queue = list(group)
            states = await self._app.broker.states(queue, [job.bullmq_id for job in of_queue])
            for job, state in zip(of_queue, states, strict=True):
                if state in _ENDED:
                    ended.append(job)
                elif state is not None:
                    standings += _changed(job, state)
                elif self._was_never_published(job, since_ms):
                    unpublished.append(job)
                elif job.wait_reason != LOST and self._is_lost(job, since_ms):
                    lost.append(job)
        await self._settle(ended)
        await self._publish(unpublished)
        await self._mark_lost(lost, standings)

    def _was_never_published(self, job: ExternalJob, since_ms: int | None) -> bool:
        """Whether BullMQ cannot have had it: it was due after this Redis last forgot anything, was never seen, and is not there.

        Only then may it be published. It keeps its id, so that a publisher that is late with it changes nothing.
        """
        if since_ms is None or job.handed_over_at is not None:
            return False
        due_ms = self._app.broker.now_ms() - job.late_s * 1000
        return job.late_s > self._grace_s and due_ms > since_ms

    def _is_lost(self, job: ExternalJob, since_ms: int | None) -> bool:
        """Whether a publisher has had time enough to tell this Redis of it."""
        if job.handed_over_at is None and since_ms is not None:
            return min(job.late_s, (self._app.broker.now_ms() - since_ms) / 1000) > 3 * self._grace_s
        return job.late_s > self._grace_s

    async def _publish(self, jobs: Sequence[ExternalJob]) -> None:
        if not jobs:
            return
        outbox = Outbox()
        async with self._app.database.connection() as connection:
            outbox.extend(await external.to_publish(connection, [job.id for job in jobs]))
        self._app.publisher.publish(outbox)
        for new in outbox.jobs:
            metrics.republished_jobs_total.labels(new.queue).inc()
        log.warning("external.published_late", jobs=len(outbox.jobs), first=str(jobs[0].id))

    async def _mark_lost(self, lost: Sequence[ExternalJob], standings: list[tuple[uuid.UUID, str, bool]]) -> None:
        for job in lost:
            log.error("external.lost", queue=job.queue, job=job.bullmq_id, message=str(job.message_id))
            standings.append((job.id, LOST, False))
        if not standings:
            return
        async with self._app.database.transaction() as connection:
            await external.note(connection, standings)
            for job in lost:
                await mark_unknown(connection, job.message_id, customer_id=job.customer_id)

    async def _clean(self) -> None:
        """All that ended is settled: BullMQ need not keep it longer than jobs of other queues."""
        for queue in self._queues:
            completed_s, failed_s = self._app.settings.shown_s(queue)
            await self._app.broker.watch.clean(queue, "completed", keep_s=completed_s)
            await self._app.broker.watch.clean(queue, "failed", keep_s=failed_s)


def _row_id(bullmq_id: str) -> uuid.UUID | None:
    row_id, _, generation = bullmq_id.rpartition("-")
    try:
        return uuid.UUID(row_id) if generation.isdecimal() and len(generation) < 10 else None
    except ValueError:  # somebody else's job in the same queue
        return None


def _changed(job: ExternalJob, state: JobState) -> list[tuple[uuid.UUID, str, bool]]:
    reason = AT_WORK if state == "active" else WAITS
    return [(job.id, reason, True)] if job.handed_over_at is None or job.wait_reason != reason else []


def _result(finished: Finished, state: str) -> Result:
    started_at = datetime.fromtimestamp(finished.started_ms / 1000, UTC) if finished.started_ms else datetime.now(UTC)
    worker = f"external: {finished.worker or 'unnamed'}"
    if state == "completed":
        return Result("sent", worker, started_at, external_id=read_external_id(finished.returned))
    return Result(
        "failed",
        worker,
        started_at,
        reason=STALLED if finished.failed_reason.startswith(_STALLED_SAID) else FAILED,
        error=finished.failed_reason,
        stack=finished.stack,
        attempts=finished.attempts,
    )

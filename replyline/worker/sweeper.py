"""The sweeper: finds waiting jobs that BullMQ does not know (any more), and publishes them again; clears away what is old."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from itertools import groupby

import structlog

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable, CommandRefused
from replyline.jobs import DEAD_LETTER
from replyline.store import api_keys, audit, customer_deletions, deletions, media, visitors
from replyline.store.database import StoreUnavailable
from replyline.store.moves.inbound_lane import free_lanes
from replyline.store.outbox import Outbox
from replyline.store.sweep import DueJob, LostJob, alone, due_jobs, purge, purge_callbacks, republish
from replyline.worker.channel_care import look_after

log = structlog.get_logger(__name__)

_PAGE = 500
# A pass over a long backlog is spread over several sweeps, so that looking stays a small share of Redis' work.
_PAGES_A_SWEEP = 4
_GRACE_AFTER_WIPE_S = 1.0
_PURGE_EVERY_S = 60.0
_NOTICES_KEPT = 10_000
# After Redis did not take writes, publishers have this long to bring what they hold, before it looks lost.
_SETTLING_S = 5.0
_LATE_S = 5.0
_ALIVE = frozenset({"waiting", "prioritized", "delayed", "active", "waiting-children"})


class Sweeper:
    """Looks every `sweep_every_s` seconds. Any number may run; one looks at a time."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._after: DueJob | None = None
        self._purged_at = 0.0
        self._settled_at = 0.0

    async def run(self) -> None:
        """Sweep until cancelled; an absent store is waited for, and one that refuses. Any other error is raised."""
        while True:
            try:
                await self.sweep()
                await look_after(self._app)
                if time.monotonic() - self._purged_at > _PURGE_EVERY_S:
                    await self._clear_away()
                    self._purged_at = time.monotonic()
            except (StoreUnavailable, BrokerUnavailable, CommandRefused) as error:
                log.warning("sweeper.store_away", error=str(error))
            await asyncio.sleep(self._app.settings.sweep_every_s)

    async def sweep(self) -> int:
        """Look once and return how many jobs were published again.

        Raises:
            StoreUnavailable, BrokerUnavailable: a store is away, or Redis takes no writes: then nothing that is missing there
                is taken for lost.
            CommandRefused: Redis does not let us write.
        """
        try:
            await self._app.broker.check_writable()
            wiped = await self._app.broker.epoch() is None
        except (BrokerUnavailable, CommandRefused):
            self._settled_at = time.monotonic() + _SETTLING_S
            raise
        if not wiped and time.monotonic() < self._settled_at:
            return 0
        grace_s = _GRACE_AFTER_WIPE_S if wiped else self._app.settings.sweep_grace_s
        found = 0
        async with self._app.database.connection() as connection, alone(connection) as mine:
            if not mine:
                return 0
            if wiped:
                self._after = None
            pages = 0
            while wiped or pages < _PAGES_A_SWEEP:
                page = await due_jobs(
                    connection, grace_s=grace_s, after=self._after, limit=_PAGE, without=self._app.settings.external
                )
                found += await self._publish_lost(page, wiped=wiped)
                self._after = page[-1] if len(page) == _PAGE else None
                pages += 1
                if self._after is None:
                    break
            found += await self._free_lanes()
            if wiped:
                # A new Redis is as empty as one that lost everything; only the second leaves work to be found.
                (log.warning if found else log.info)("sweeper.redis_was_empty", republished=found)
                await self._app.broker.set_epoch(str(uuid.uuid4()))
        return found

    async def _free_lanes(self) -> int:
        """Senders whose messages all wait behind one that is gone: a row that somebody deleted, a worker of an older version."""
        outbox = Outbox()
        async with self._app.database.transaction() as connection:
            freed = await free_lanes(connection, outbox)
        self._app.publisher.publish(outbox)
        if freed:
            log.warning("sweeper.freed_lanes", lanes=freed)
        return len(outbox.jobs)

    async def _publish_lost(self, page: Sequence[DueJob], *, wiped: bool) -> int:
        lost = await self._lost(page, wiped=wiped)
        if not lost:
            return 0
        outbox = Outbox()
        async with self._app.database.transaction() as connection:
            await republish(connection, lost, outbox)
        self._app.publisher.publish(outbox)
        for job in outbox.jobs:
            metrics.republished_jobs_total.labels(job.queue).inc()
        if outbox.jobs:
            log.warning("sweeper.republished", jobs=len(outbox.jobs), first=str(outbox.jobs[0].id))
        return len(outbox.jobs)

    async def _lost(self, page: Sequence[DueJob], *, wiped: bool) -> list[LostJob]:
        """Those that BullMQ does not hold alive: missing, or ended there without ending here (a worker died in between).

        What our own publisher still holds is not lost. What is due here and much later there (a clock was wrong) is let run.
        """
        lost: list[LostJob] = []
        for queue, group in groupby(sorted(page, key=lambda job: job.queue), key=lambda job: job.queue):
            jobs = [job for job in group if not self._app.publisher.holds(job.id)]
            try:
                states = await self._app.broker.states(queue, [job.bullmq_id for job in jobs])
                found = list(zip(jobs, states, strict=True))
                await self._let_run(queue, [job.bullmq_id for job, state in found if state == "delayed"])
            except (
                CommandRefused
            ) as error:  # what cannot be looked at is not lost, and is no reason not to look at the others
                log.warning("sweeper.queue_refused", queue=queue, error=str(error))
                continue
            lost.extend(LostJob(job, anew=wiped or state is not None) for job, state in found if state not in _ALIVE)
        return lost

    async def _let_run(self, queue: str, delayed: Sequence[str]) -> None:
        promoted = await self._app.broker.promote_late(queue, delayed, beyond_s=_LATE_S) if delayed else 0
        if promoted:
            log.warning("sweeper.promoted", queue=queue, jobs=promoted)
            metrics.promoted_jobs_total.labels(queue).inc(promoted)

    async def _clear_away(self) -> None:
        settings = self._app.settings
        async with self._app.database.connection() as connection:
            gone = await purge(connection, keep_dead_letters_s=settings.keep_dead_letters_s)
            gone += await purge_callbacks(
                connection, parked_s=settings.park_statuses_s, unread_s=settings.keep_unread_callbacks_s
            )
            gone += await visitors.purge(connection)
            gone += await media.forget_old(connection, keep_s=settings.keep_media_s)
            gone += await audit.purge(connection, keep_s=settings.keep_audit_s)
            gone += await api_keys.purge(connection, keep_s=settings.keep_audit_s)
            gone += await customer_deletions.purge(connection, keep_s=settings.keep_audit_s)
            given_up = await deletions.give_up_sessions(connection)
        for session, error in given_up:
            log.error("deletions.session_given_up", session=session, error=error)
        trimmed = await self._app.broker.trim(DEAD_LETTER, keep=_NOTICES_KEPT)
        if gone or trimmed:
            log.info("sweeper.cleared_away", rows=gone, notices=trimmed)

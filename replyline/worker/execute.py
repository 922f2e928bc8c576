"""One job's life: read it, run it within its time, and turn how it ended into a row in Postgres and an outcome for BullMQ."""

import asyncio
import random
import time
import traceback
import uuid
from datetime import UTC, datetime
from typing import Generic, TypeVar

import msgspec
import structlog

from replyline import jobs, metrics
from replyline.app import App
from replyline.broker import ActiveJob, Completed, Failed, Outcome, Postpone, Retry
from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.jobs import INCOMING_MESSAGES, Job
from replyline.processors import Processor
from replyline.produced import read_produced
from replyline.queues import QueueSpec
from replyline.redaction import redact
from replyline.retry import GiveUp, PostponeFor, RetryAfter, decide
from replyline.store.database import StoreUnavailable
from replyline.store.moves.adopt import adopt, bury_foreign
from replyline.store.moves.give_up import Consequence, GivenUp
from replyline.store.moves.setbacks import Failure, Setback
from replyline.store.moves.work import Run

log = structlog.get_logger(__name__)

J = TypeVar("J", bound=Job)

_STORE_AWAY_S = 1.0


class Executor(Generic[J]):
    """Runs the jobs of one queue: the handler that the queue engine calls for each."""

    def __init__(self, app: App, queue: str, processor: Processor[J], worker: str) -> None:
        self._app = app
        self._queue = queue
        self._processor = processor
        self._worker = worker
        self._spec: QueueSpec = app.settings.spec(queue)
        # Looked up once: a label lookup costs more than the count it is for.
        self._wait_seconds = metrics.job_wait_seconds.labels(queue)
        self._run_seconds = metrics.job_run_seconds.labels(queue)
        self._running = metrics.jobs_running.labels(queue)

    async def __call__(self, active: ActiveJob) -> Outcome:
        """Run one job to its end; never raises but for a cancellation, which hands the job back."""
        self._wait_seconds.observe(max(0, active.processed_ms - active.timestamp_ms) / 1000)
        self._running.inc()
        started = time.perf_counter()
        counted = "handed_back"
        try:
            outcome = await self._live(active)
            counted = _NAMES[type(outcome)]
            return outcome
        finally:
            self._running.dec()
            self._run_seconds.observe(time.perf_counter() - started)
            metrics.jobs_total.labels(self._queue, counted).inc()

    async def _live(self, active: ActiveJob) -> Outcome:
        try:
            run = self._run(active)
            if run is None:
                return await self._live_foreign(active)
            try:
                job = self._read(active)
            except Permanent as error:
                return await self._failed(active, run, None, error)
            return await self._execute(active, run, job)
        except StoreUnavailable as error:
            # Nothing can be decided or recorded without Postgres, and nothing is wrong with the job.
            log.warning("job.store_away", queue=self._queue, job=active.id, error=str(error))
            return Postpone(round(_STORE_AWAY_S * 1000 * random.uniform(0.5, 1.5)))

    async def _live_foreign(self, active: ActiveJob) -> Outcome:
        """A job whose BullMQ id is not one of ours: a producer of somebody else's added it."""
        try:
            if self._queue != INCOMING_MESSAGES:
                raise Permanent("jobs of this queue are Replyline's own", reason="foreign_job")
            try:
                produced = read_produced(active.data)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise Permanent(f"the payload cannot be read: {error}", reason="unreadable_payload") from error
            async with self._app.database.transaction() as connection:
                adopted = await adopt(connection, active.id, produced)
        except Permanent as error:
            return await self._bury(active, error)
        run = Run(adopted.job_id, _started_at(active), self._worker, repeated=active.stalled > 0)
        return await self._execute(active, run, adopted.job)  # type: ignore[arg-type]  # its queue's job type, just checked

    async def _execute(self, active: ActiveJob, run: Run, job: J) -> Outcome:
        if active.deferred_failure is not None:
            crashed = Permanent("workers were lost under this job again and again", reason="crashed")
            return await self._failed(active, run, job, crashed)
        scope = asyncio.timeout(self._spec.timeout_s)
        try:
            async with scope:
                await self._processor.process(job, run, self._app)
        except StoreUnavailable:
            raise
        except TimeoutError as error:
            if not scope.expired():
                return await self._failed(active, run, job, error)
            late = Temporary(f"not done within {self._spec.timeout_s:g} s", reason="timeout")
            return await self._failed(active, run, job, late)
        except Exception as error:
            return await self._failed(active, run, job, error)
        if log.is_enabled_for(_DEBUG):
            log.debug("job.completed", **self._context(active, job))
        return Completed()

    async def _failed(self, active: ActiveJob, run: Run, job: J | None, error: Exception) -> Outcome:
        standing = await self._app.reads.standing(run.job_id)
        if standing is None or not standing.waiting:  # another run finished it
            return Completed()
        attempt = standing.attempts + 1
        decision = decide(error, attempt=attempt, postponed_s=standing.postponed_s, spec=self._spec)
        reason = error.reason if isinstance(error, JobError) else "unforeseen"
        failure = self._failure(error, reason, attempt)
        context = self._context(active, job) | {"attempt": attempt, "reason": reason}
        match decision:
            case PostponeFor(seconds):
                log.debug("job.postponed", **context, seconds=round(seconds, 3))
                await self._app.moves.put_off(Setback(run.job_id, seconds, reason, None))
                return Postpone(round(seconds * 1000))
            case RetryAfter(seconds):
                self._log_failure("job.failed", error, failure, context | {"retry_in_s": round(seconds, 3)}, job)
                await self._app.moves.put_off(Setback(run.job_id, seconds, "retry", failure))
                return Retry(round(seconds * 1000), failure.message, failure.stack)
            case GiveUp(why):
                self._log_failure("job.given_up", error, failure, context | {"reason": why}, job)
                consequence = Consequence() if job is None else await self._processor.give_up(job, run, self._app)
                await self._app.moves.give_up(GivenUp(run, why, failure, consequence))
                return Failed(f"{why}: {failure.message}", failure.stack)

    async def _bury(self, active: ActiveJob, error: Permanent) -> Outcome:
        failure = self._failure(error, error.reason, 1)
        log.error("job.given_up", **self._context(active, None), reason=error.reason, error=failure.message)
        async with self._app.database.transaction() as connection:
            await bury_foreign(
                connection,
                queue=self._queue,
                bullmq_id=active.id,
                name=active.name,
                data=active.data,
                reason=error.reason,
                failure=failure,
            )
        return Failed(f"{error.reason}: {failure.message}")

    def _run(self, active: ActiveJob) -> Run | None:
        """This run of our row, or None where the id is not of the form `<row>-<generation>`."""
        row_id, _, generation = active.id.rpartition("-")
        try:
            job_id = uuid.UUID(row_id)
        except ValueError:
            return None
        repeated = active.stalled > 0 or generation != "0"
        return Run(job_id, _started_at(active), self._worker, repeated=repeated, starts=active.starts)

    def _read(self, active: ActiveJob) -> J:
        try:
            job = jobs.decode(self._queue, active.data)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Permanent(f"the payload cannot be read: {error}", reason="unreadable_payload") from error
        if not isinstance(job, self._processor.job_type):
            raise TypeError(f"{self._queue} decoded to {type(job).__name__}")
        return job

    def _failure(self, error: Exception, reason: str, attempt: int) -> Failure:
        return Failure(
            at=datetime.now(UTC).isoformat(),
            attempt=attempt,
            worker=self._worker,
            reason=reason,
            message=redact(str(error) or type(error).__name__),
            stack=redact("".join(traceback.format_exception(error))),
        )

    def _log_failure(
        self, event: str, error: Exception, failure: Failure, context: dict[str, object], job: J | None
    ) -> None:
        """What is expected to happen outside is a warning without a stack; a dead letter or a bug is an error with one."""
        details = context | {"error": failure.message, "payload": None if job is None else _without_text(job)}
        if isinstance(error, Temporary | RateLimited) and event == "job.failed":
            log.warning(event, **details)
        else:
            log.error(event, **details, stack=failure.stack)

    def _context(self, active: ActiveJob, job: Job | None) -> dict[str, object]:
        context: dict[str, object] = {"queue": self._queue, "job": active.id, "worker": self._worker}
        if job is not None:
            context |= {
                "message": _text(job.message_id),
                "customer": _text(job.customer_id),
                "trace": _text(job.trace_id),
            }
        return context


_DEBUG = 10
_NAMES: dict[type[Outcome], str] = {
    Completed: "completed",
    Retry: "retried",
    Postpone: "postponed",
    Failed: "dead",
}
_PERSONAL = ("content", "external_user_id", "contact_name", "reply_to", "body", "also_known_as", "media")


def _started_at(active: ActiveJob) -> datetime:
    return datetime.fromtimestamp(active.processed_ms / 1000, UTC)


def _text(value: uuid.UUID | None) -> str | None:
    return None if value is None else str(value)


def _without_text(job: Job) -> dict[str, str]:
    """The payload for the log: what a person wrote, and who they are, is left out."""
    fields = msgspec.structs.asdict(job)
    return {
        name: "[redacted]" if name in _PERSONAL else str(value) for name, value in fields.items() if value is not None
    }

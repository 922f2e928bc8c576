"""One job's life: read it, run it within its time, and turn how it ended into a row in Postgres and an outcome for BullMQ."""

import asyncio
import random
import re
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
from replyline.plain_text import storable
from replyline.processors import Processor
from replyline.processors.unreadable import give_up_unread
from replyline.produced import read_produced
from replyline.queues import QueueSpec
from replyline.redaction import redact
from replyline.retry import GiveUp, PostponeFor, RetryAfter, decide
from replyline.store import customers
from replyline.store.database import StoreBusy, StoreUnavailable
from replyline.store.job_rows import JobRow
from replyline.store.moves.adopt import adopt, bury_foreign
from replyline.store.moves.dead_letters import NotReplayable
from replyline.store.moves.give_up import GivenUp
from replyline.store.moves.setbacks import STORE_BUSY, Failure, Setback
from replyline.store.moves.work import Run
from replyline.store.persist import persist

log = structlog.get_logger(__name__)

J = TypeVar("J", bound=Job)

_STORE_AWAY_S = 1.0
# After each lock or timeout in a row a job waits twice as long; where not even that could be written, always so long.
_BUSY_FIRST_S, _BUSY_LONGEST_S, _BUSY_UNWRITTEN_S = 1.0, 30.0, 10.0
_BUSY_IS_LONG_S = 60.0
# Others of the queue get through if one did so lately; they may be few.
_OTHERS_WITHIN_S = 300.0
_PUT_OFF_FOR_S = 5.0


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
        self._done_at = -_OTHERS_WITHIN_S

    async def __call__(self, active: ActiveJob) -> Outcome:
        """Run one job to its end; never raises but for a cancellation, which hands the job back."""
        if active.timestamp_ms:  # not where Redis has lost the job's hash
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
        """Redis says only which row it is: what is to be done, and whether at all, stands in the row."""
        try:
            named = _named(active.id)
            row = None if named is None else await self._app.reads.job(named[0])
            if named is None or row is None or row.queue != self._queue:
                return await self._live_foreign(active)
            if row.state == "DEAD":
                return await self._given_up_before(active, row.id, newest=named[1] == row.generation)
            if row.state != "WAITING" or named[1] < row.generation:
                return Completed()  # finished by another run, or published again since: that run has it
            run = Run(row.id, _started_at(active), self._worker, generation=named[1])
            try:
                job = self._read(row.payload)
            except Permanent as error:
                return await self._failed(active, run, row, error)
            return await self._execute(active, run, job)
        except StoreUnavailable as error:
            # Nothing can be decided or recorded without Postgres, and nothing is wrong with the job.
            log.warning("job.store_away", queue=self._queue, job=active.id, error=str(error))
            pause_s = _BUSY_UNWRITTEN_S if isinstance(error, StoreBusy) else _STORE_AWAY_S
            return Postpone(round(pause_s * 1000 * random.uniform(0.5, 1.5)))

    async def _live_foreign(self, active: ActiveJob) -> Outcome:
        """A job that has no row of ours in this queue, whatever its id looks like: somebody else's producer added it."""
        try:
            if await self._is_left_over(active):
                log.warning("job.customer_gone", **self._context(active, None))
                return Completed()
            if self._queue != INCOMING_MESSAGES:
                raise Permanent("jobs of this queue are Replyline's own", reason="foreign_job")
            try:
                produced = read_produced(active.data, repeats=active.scheduler is not None)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise Permanent(f"the payload cannot be read: {error}", reason="unreadable_payload") from error
            async with self._app.database.transaction() as connection:
                adopted = await adopt(connection, _lasting_id(active), produced)
        except StoreUnavailable:
            raise
        except Permanent as error:
            return await self._bury(active, error)
        except Exception as error:
            return await self._not_adopted(active, error)
        if adopted.dead:
            # Its replays have ids of ours, so that only the first run is known to be this job.
            return await self._given_up_before(active, adopted.job_id, newest=adopted.generation == 0)
        run = Run(adopted.job_id, _started_at(active), self._worker, generation=adopted.generation)
        return await self._execute(active, run, adopted.job)  # type: ignore[arg-type]  # its queue's job type, just checked

    async def _given_up_before(self, active: ActiveJob, row_id: uuid.UUID, *, newest: bool) -> Outcome:
        """A run of a dead letter: Retry of BullMQ's tools replays it.

        Without Retry, its worker died between Postgres and BullMQ. Nobody has asked then, and green would say that it was done.
        """
        if not (active.retried and newest):
            return Failed(f"given up: replay it with `replyline dead-letters replay {row_id}`")
        try:
            dead = await self._app.replay(row_id, customer_id=None)
        except NotReplayable as error:
            return Failed(f"not replayed: {error}")
        again = f"{dead.id}-{dead.generation + 1}"
        log.info("job.replayed", **self._context(active, None), replayed_as=again)
        return Completed(msgspec.json.encode({"replayed": again}))

    async def _is_left_over(self, active: ActiveJob) -> bool:
        """Whether it was ours, and went from Postgres with its customer."""
        if _named(active.id) is None:
            return False
        try:
            customer_id = self._read(active.data).customer_id
        except Permanent:
            return False
        return customer_id is not None and await customers.get(self._app.database, customer_id=customer_id) is None

    async def _not_adopted(self, active: ActiveJob, error: Exception) -> Outcome:
        """A bug, or something in it that we did not foresee: tried as often as any job, and then kept as a dead letter."""
        attempt = active.attempts_made + 1
        decision = decide(error, attempt=attempt, postponed_s=0, spec=self._spec)
        if isinstance(decision, RetryAfter):
            failure = self._failure(error, "not_adopted", attempt)
            context = self._context(active, None) | {"attempt": attempt, "error": failure.message}
            log.error("job.not_adopted", **context, stack=failure.stack)
            return Retry(round(decision.seconds * 1000), failure.message, failure.stack)
        return await self._bury(active, Permanent(str(error) or type(error).__name__, reason="not_adopted"))

    async def _execute(self, active: ActiveJob, run: Run, job: J) -> Outcome:
        if active.deferred_failure is not None:
            crashed = Permanent("workers were lost under this job again and again", reason="crashed")
            return await self._failed(active, run, job, crashed)
        scope = asyncio.timeout(self._spec.timeout_s)
        try:
            async with scope:
                await self._processor.process(job, run, self._app)
        except StoreBusy as error:
            return await self._busy(active, run, job, error)
        except StoreUnavailable:
            raise
        except TimeoutError as error:
            if not scope.expired():
                return await self._failed(active, run, job, error)
            late = Temporary(f"not done within {self._spec.timeout_s:g} s", reason="timeout", outcome_unknown=True)
            return await self._failed(active, run, job, late)
        except Exception as error:
            return await self._failed(active, run, job, error)
        self._done_at = time.monotonic()
        if log.is_enabled_for(_DEBUG):
            log.debug("job.completed", **self._context(active, job))
        return Completed(_returned(job))

    async def _busy(self, active: ActiveJob, run: Run, job: J, error: StoreBusy) -> Outcome:
        """Postgres works, but not for this job: no attempt is used, and yet it is not tried for ever without being seen."""
        standing = await self._app.reads.standing(run.job_id)
        if standing is None or not standing.waiting:  # another run finished it
            return Completed()
        metrics.store_busy_total.labels(self._queue).inc()
        if standing.busy_s > self._app.settings.store_busy_s and time.monotonic() - self._done_at < _OTHERS_WITHIN_S:
            said = f"for {standing.busy_s:.0f} s Postgres could not do this in time, but other jobs: {error}"
            return await self._failed(active, run, job, Permanent(said, reason=STORE_BUSY))
        pause_s = min(_BUSY_FIRST_S * 2.0 ** min(standing.busy_times, 30), _BUSY_LONGEST_S) * random.uniform(0.5, 1.5)
        tell = log.error if standing.busy_s > _BUSY_IS_LONG_S else log.warning
        context = self._context(active, job) | {"times": standing.busy_times + 1, "for_s": round(standing.busy_s, 1)}
        tell("job.store_busy", **context, again_in_s=round(pause_s, 1), error=str(error))
        # Tried once: what meets this job's own row would be met again and again.
        await self._app.moves.put_off(Setback(run.job_id, pause_s, STORE_BUSY, None))
        return Postpone(round(pause_s * 1000), f"postponed for {pause_s:.1f} s: {STORE_BUSY}")

    async def _failed(self, active: ActiveJob, run: Run, work: J | JobRow, error: Exception) -> Outcome:
        """Decide what becomes of it; `work` is its payload, or its row where the payload cannot be read."""
        standing = await self._app.reads.standing(run.job_id)
        if standing is None or not standing.waiting:  # another run finished it
            return Completed()
        attempt = standing.attempts + 1
        decision = decide(error, attempt=attempt, postponed_s=standing.postponed_s, spec=self._spec)
        reason = error.reason if isinstance(error, JobError) else "unforeseen"
        failure = self._failure(error, reason, attempt)
        context = self._context(active, work) | {"attempt": attempt, "reason": reason}
        # An error that nobody foresaw says nothing about whether a send had gone out before.
        nothing_sent_by = run.id if isinstance(error, JobError) and not error.outcome_unknown else None
        match decision:
            case PostponeFor(seconds):
                log.debug("job.postponed", **context, seconds=round(seconds, 3))
                await self._put_off(Setback(run.job_id, seconds, reason, None, nothing_sent_by))
                note = f"{failure.at} postponed for {seconds:.1f} s: {reason}"
                return Postpone(round(seconds * 1000), note)
            case RetryAfter(seconds):
                self._log_failure("job.failed", error, failure, context | {"retry_in_s": round(seconds, 3)}, work)
                await self._put_off(Setback(run.job_id, seconds, "retry", failure, nothing_sent_by))
                note = f"{failure.at} attempt {attempt} failed ({reason}), again in {seconds:.1f} s: {_short(failure)}"
                return Retry(round(seconds * 1000), failure.message, failure.stack, note)
            case GiveUp(why):
                self._log_failure("job.given_up", error, failure, context | {"reason": why}, work)
                if isinstance(work, JobRow):
                    consequence = await give_up_unread(work, run, self._app)
                else:
                    consequence = await self._processor.give_up(work, run, self._app)
                await self._app.moves.give_up(GivenUp(run, why, failure, consequence))
                note = f"{failure.at} given up after attempt {attempt} ({why}): {_short(failure)}"
                return Failed(f"{why}: {failure.message}", failure.stack, note)

    async def _put_off(self, setback: Setback) -> None:
        """Only this run knows that it sent nothing: unwritten, the next one would have to take the send for unknown."""
        await persist(self._app.moves.put_off, setback, for_s=_PUT_OFF_FOR_S)

    async def _bury(self, active: ActiveJob, error: Permanent) -> Outcome:
        failure = self._failure(error, error.reason, 1)
        log.error("job.given_up", **self._context(active, None), reason=error.reason, error=failure.message)
        async with self._app.database.transaction() as connection:
            await bury_foreign(
                connection,
                queue=self._queue,
                bullmq_id=_lasting_id(active),
                name=active.name,
                data=active.data,
                reason=error.reason,
                failure=failure,
            )
        return Failed(f"{error.reason}: {failure.message}")

    def _read(self, payload: bytes) -> J:
        try:
            job = jobs.decode(self._queue, payload)
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
            message=storable(redact(str(error) or type(error).__name__)),
            stack=storable(redact("".join(traceback.format_exception(error)))),
        )

    def _log_failure(
        self, event: str, error: Exception, failure: Failure, context: dict[str, object], work: J | JobRow
    ) -> None:
        """What is expected to happen outside is a warning without a stack; a dead letter or a bug is an error with one."""
        details = context | {
            "error": failure.message,
            "payload": None if isinstance(work, JobRow) else logged_of(work),
        }
        if isinstance(error, Temporary | RateLimited) and event == "job.failed":
            log.warning(event, **details)
        else:
            log.error(event, **details, stack=failure.stack)

    def _context(self, active: ActiveJob, job: Job | JobRow | None) -> dict[str, object]:
        context: dict[str, object] = {"queue": self._queue, "job": active.id, "worker": self._worker}
        if job is not None:
            context |= {
                "message": _text(job.message_id),
                "customer": _text(job.customer_id),
                "trace": _text(job.trace_id),
            }
        return context


_DEBUG = 10
_NOTED_CHARS = 300
_NAMES: dict[type[Outcome], str] = {
    Completed: "completed",
    Retry: "retried",
    Postpone: "postponed",
    Failed: "dead",
}
# What a log line may show of a payload: our own ids and facts of the queues. Whatever else there is may name a person: also the
# channels' ids of messages do, which hold a telephone number in base64.
_LOGGED = frozenset(
    {
        "customer_id", "trace_id", "conversation_id", "message_id", "chatbot_id", "channel_id", "channel", "kind",
        "identity_kind", "after_seq", "through_seq", "event_id", "media_id",
    }
)  # fmt: skip


_OURS = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-([0-9]{1,9})")


def _named(bullmq_id: str) -> tuple[uuid.UUID, int] | None:
    """The row and generation that a BullMQ id of our form names, `<row>-<generation>`; None where it is not of that form."""
    found = _OURS.fullmatch(bullmq_id)
    return None if found is None else (uuid.UUID(found[1]), int(found[2]))


def _short(failure: Failure) -> str:
    return failure.message[:_NOTED_CHARS]


def _lasting_id(active: ActiveJob) -> str:
    """What tells a foreign job from all others.

    BullMQ numbers those that were given no id, and begins with 1 again where Redis was emptied: a number counts with its time.
    """
    return f"{active.id}@{active.timestamp_ms}" if active.id.isdecimal() else active.id


def _returned(job: Job) -> bytes:
    """What BullMQ's tools show as the job's `returnvalue`: the message that it is about."""
    return b"null" if job.message_id is None else b'{"messageId":"%b"}' % str(job.message_id).encode()


def _started_at(active: ActiveJob) -> datetime:
    return datetime.fromtimestamp(active.processed_ms / 1000, UTC)


def _text(value: uuid.UUID | None) -> str | None:
    return None if value is None else str(value)


def logged_of(job: Job) -> dict[str, str]:
    """What the log shows of a payload: nothing of what a person wrote or who they are."""
    fields = msgspec.structs.asdict(job)
    return {name: str(value) for name, value in fields.items() if name in _LOGGED and value is not None}

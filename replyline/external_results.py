"""What external workers report of the jobs they do, and what an operator may do where none reports."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec
import structlog

from replyline import metrics
from replyline.app import App
from replyline.plain_text import storable
from replyline.redaction import redact
from replyline.store import external
from replyline.store.database import Connection
from replyline.store.external import ExternalJob
from replyline.store.moves.dead_letters import NotReplayable, replay
from replyline.store.moves.give_up import Consequence, GivenUp
from replyline.store.moves.setbacks import Failure
from replyline.store.moves.settle import Settle, settle
from replyline.store.moves.work import Run
from replyline.store.outbox import Outbox

log = structlog.get_logger(__name__)

FAILED = "external_failed"
STALLED = "external_stalled"
_MAX_ID_CHARS = 512
_HAS_IT = ("active", "waiting", "prioritized", "delayed", "waiting-children")


class NotOpen(Exception):
    """There is no such job of an external queue, it ended already, or an external worker still has it; the message says which."""


@dataclass(frozen=True, slots=True)
class Result:
    """How an external worker's job ended. `external_id` is what the channel calls the message, if the worker told."""

    outcome: Literal["sent", "failed"]
    worker: str
    started_at: datetime
    external_id: str | None = None
    reason: str = FAILED
    error: str = ""
    stack: str = ""
    attempts: int = 1


class _Returned(msgspec.Struct, rename="camel"):
    external_id: str | None = None


_returned_decoder = msgspec.json.Decoder(_Returned | str | None)


def read_external_id(returned: bytes) -> str | None:
    """The channel's id of the message in a job's `returnvalue`: `{"externalId": "…"}` or the id itself; None if it has none."""
    try:
        value = _returned_decoder.decode(returned) if returned else None
    except (msgspec.MsgspecError, UnicodeDecodeError):  # the message was sent, whatever else was returned
        return None
    named = value.external_id if isinstance(value, _Returned) else value
    return named if named and len(named) <= _MAX_ID_CHARS and named.isprintable() else None


async def record(app: App, job: ExternalJob, result: Result) -> bool:
    """Write down how the job ended: its message is SENT or FAILED, and its conversation's next one goes.

    False if it had ended before.
    """
    run = _run(job, result)
    if result.outcome == "sent":
        async with app.database.connection() as connection:
            external_id = await _free_id(connection, job, result.external_id)
        written = await app.moves.settle(Settle(run, job.conversation_id, job.message_id, external_id))
    else:
        failure = Failure(
            at=datetime.now(UTC).isoformat(),
            attempt=max(1, result.attempts),
            worker=run.worker,
            reason=result.reason,
            message=storable(redact(result.error or "the external worker gave no reason")),
            stack=storable(redact(result.stack)),
        )
        consequence = Consequence(conversation_id=job.conversation_id, failed_message_id=job.message_id)
        written = await app.moves.give_up(GivenUp(run, result.reason, failure, consequence))
        if written:
            log.error(
                "external.failed", queue=job.queue, job=job.bullmq_id, reason=result.reason, error=failure.message
            )
    if written:
        metrics.external_results_total.labels(job.queue, result.outcome).inc()
    return written


async def record_after_all(app: App, job_id: uuid.UUID, result: Result) -> bool:
    """Write down that a given-up job was sent after all, because an external worker was told to try once more.

    One transaction: a job that is open again and not settled would be done twice. False if it cannot be replayed.
    """
    outbox = Outbox()
    try:
        async with app.database.transaction() as connection:
            await replay(connection, job_id, customer_id=None, outbox=Outbox())  # not published: it is done already
            (job,) = await external.by_id(connection, app.settings.external, [job_id])
            external_id = await _free_id(connection, job, result.external_id)
            sent = Settle(_run(job, result), job.conversation_id, job.message_id, external_id)
            await settle(connection, [sent], outbox)
    except NotReplayable as error:
        log.warning("external.result_ignored", job=str(job_id), error=str(error))
        return False
    app.publisher.publish(outbox)
    metrics.external_results_total.labels(job.queue, result.outcome).inc()
    return True


def _run(job: ExternalJob, result: Result) -> Run:
    return Run(job.id, result.started_at, storable(result.worker))


async def _free_id(connection: Connection, job: ExternalJob, external_id: str | None) -> str | None:
    """The id, unless another message has it: that this one was sent is what counts."""
    if external_id is None or not await external.is_taken(connection, job.message_id, external_id):
        return external_id
    log.error("external.id_taken", queue=job.queue, job=job.bullmq_id, message=str(job.message_id))
    return None


async def find_open(app: App, job_id: uuid.UUID) -> ExternalJob:
    """The open job of that id.

    Raises:
        NotOpen: there is none in an external queue that has not ended.
    """
    async with app.database.connection() as connection:
        found = await external.by_id(connection, app.settings.external, [job_id])
    if not found:
        raise NotOpen(f"no external worker is waited for with job {job_id}")
    return found[0]


async def report(app: App, job_id: uuid.UUID, result: Result) -> None:
    """Take a result that an operator, or an external worker by HTTP, reports.

    What ended before is taken from its queue all the same: Redis may have been away when it was reported first.

    Raises:
        NotOpen: see there.
    """
    try:
        job = await find_open(app, job_id)
    except NotOpen:
        await _remove_ended(app, job_id)
        raise
    if not await record(app, job, result):
        raise NotOpen(f"job {job_id} ended in this moment")
    await app.broker.remove(job.queue, job.bullmq_id)  # what waits there must not be done as well


async def _remove_ended(app: App, job_id: uuid.UUID) -> None:
    async with app.database.connection() as connection:
        found = await external.find(connection, app.settings.external, job_id)
    if found is None:
        return
    queue, bullmq_id = found
    await remove_ended(app, queue, [(job_id, int(bullmq_id.rpartition("-")[2]), bullmq_id)])


async def remove_ended(app: App, queue: str, bullmq_ids: Sequence[tuple[uuid.UUID, int, str]]) -> list[str]:
    """Take from the queue which of its waiting jobs (row, generation, BullMQ's id) need not be done any more; returns which.

    A dead letter that was tried before stays: an operator has retried it by BullMQ's tools.
    """
    async with app.database.connection() as connection:
        ended = await external.ended(connection, bullmq_ids)
    dead = [name for name, is_dead in ended if is_dead]
    tried = {
        name
        for name, left in zip(dead, await app.broker.watch.finished(queue, dead), strict=True)
        if left.attempts or left.stack
    }
    needless = [name for name, _ in ended if name not in tried]
    return [name for name in needless if await app.broker.remove(queue, name)]


async def hand_over_again(app: App, job_id: uuid.UUID) -> None:
    """Publish the job anew, although an external worker may have done it: an operator's decision.

    Raises:
        NotOpen: see there.
    """
    job = await find_open(app, job_id)
    if job.run_at is None:
        raise NotOpen(f"job {job_id} waits for an earlier message of its conversation")
    (state,) = await app.broker.states(job.queue, [job.bullmq_id])
    if state in _HAS_IT:
        raise NotOpen(f"BullMQ still has job {job.bullmq_id}, {state}")
    outbox = Outbox()
    async with app.database.transaction() as connection:
        again = await external.hand_over_again(connection, job)
        if again is None:
            raise NotOpen(f"job {job_id} ended in this moment")
        outbox.extend([again])
    app.publisher.publish(outbox)


async def refresh_gauges(app: App) -> None:
    """Bring the gauges of external queues up to date.

    Raises:
        StoreUnavailable: Postgres is away.
    """
    metrics.external_jobs.clear()
    if not app.settings.external:
        return
    for queue, standing, number in await external.count(
        app.database, app.settings.external, late_s=app.settings.external_late_s
    ):
        metrics.external_jobs.labels(queue, standing).set(number)

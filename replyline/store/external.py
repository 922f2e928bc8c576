"""Jobs that an external worker does: which are not done, what is known of them, and handing one over again."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from replyline.store.database import Connection, Database
from replyline.store.outbox import NewJob

WAITS = "waits for an external worker"
AT_WORK = "an external worker has it"
LOST = "Redis forgot it after it was handed over: an external worker may have done it"


@dataclass(frozen=True, slots=True)
class ExternalJob:
    """A job handed to an external queue whose result has not come. `handed_over_at` is when BullMQ was first seen to have it."""

    id: uuid.UUID
    queue: str
    generation: int
    customer_id: uuid.UUID
    conversation_id: uuid.UUID
    message_id: uuid.UUID
    wait_reason: str | None
    run_at: datetime | None
    """When it was due; None while it waits for an earlier message of its conversation."""
    handed_over_at: datetime | None
    late_s: float
    """How long it has been due, in seconds."""

    @property
    def bullmq_id(self) -> str:
        """The id that BullMQ knows it by."""
        return f"{self.id}-{self.generation}"


_COLUMNS = """
id, queue, generation, customer_id, conversation_id, message_id, wait_reason, nullif(run_at, 'infinity') AS run_at,
handed_over_at, CASE WHEN run_at = 'infinity' THEN 0 ELSE extract(epoch FROM now() - run_at)::float8 END AS late_s
"""
_UNDONE = "finished_at IS NULL AND queue = ANY($1::text[])"
_OPEN = "finished_at IS NULL AND queue = ANY($1::text[]) AND run_at < 'infinity' AND run_at <= now()"
_PAGE = f"""
SELECT {_COLUMNS} FROM jobs WHERE {_OPEN} AND ($2::timestamptz IS NULL OR (run_at, id) > ($2, $3)) ORDER BY run_at, id LIMIT $4
"""  # noqa: S608  the columns and conditions are the constants above
_OLDEST = f"""
SELECT {_COLUMNS} FROM jobs WHERE {_OPEN} AND ($2::text IS NULL OR wait_reason = $2) ORDER BY run_at, id LIMIT $3
"""  # noqa: S608  as above
_BY_ID = f"SELECT {_COLUMNS} FROM jobs WHERE {_UNDONE} AND id = ANY($2::uuid[]) ORDER BY id"  # noqa: S608  as above
_ENDED = """
SELECT r.name, j.state = 'DEAD' AND j.generation = r.generation AS dead
FROM unnest($1::uuid[], $2::int[], $3::text[]) AS r (id, generation, name) JOIN all_jobs j ON j.id = r.id
WHERE j.state <> 'WAITING' OR j.generation > r.generation
"""
_FIND = "SELECT queue, generation FROM all_jobs WHERE queue = ANY($1::text[]) AND id = $2 AND state <> 'WAITING'"
_IS_DEAD = "SELECT 1 FROM dead_jobs WHERE id = $1 AND generation = $2"
_IS_TAKEN = """
SELECT 1 FROM messages o JOIN messages m ON m.channel_id = o.channel_id AND m.id <> o.id
WHERE m.id = $1 AND o.external_id = $2
"""
_NOTE = """
UPDATE jobs j SET wait_reason = r.reason, wait_since = now(),
    waits = waits_of(j.waits, j.wait_reason, j.wait_since, j.run_at),
    handed_over_at = CASE WHEN r.known THEN coalesce(j.handed_over_at, now()) ELSE j.handed_over_at END
FROM unnest($1::uuid[], $2::text[], $3::bool[]) AS r (id, reason, known)
WHERE j.id = r.id AND j.finished_at IS NULL
"""
_PAYLOADS = """
SELECT id, queue, name, payload::text AS payload, priority::int AS priority, generation FROM jobs
WHERE id = ANY($1::uuid[]) AND finished_at IS NULL ORDER BY id
"""
_AGAIN = """
UPDATE jobs SET generation = generation + 1, handed_over_at = NULL, wait_reason = NULL, wait_since = NULL,
    waits = waits_of(waits, wait_reason, wait_since, run_at), run_at = now()
WHERE id = $1 AND generation = $2 AND finished_at IS NULL AND isfinite(run_at)
RETURNING id, queue, name, payload::text AS payload, priority::int AS priority, generation
"""
_SENDING = """
UPDATE messages SET status = 'SENDING', unknown_since = NULL
WHERE id = $1 AND customer_id = $2 AND status IN ('UNKNOWN', 'QUEUED')
"""
_COUNT = """
SELECT queue, CASE WHEN wait_reason = $2 THEN 'lost' WHEN run_at < now() - make_interval(secs => $3) THEN 'late' ELSE 'open' END
  AS standing, count(*)::int AS count
FROM jobs WHERE finished_at IS NULL AND queue = ANY($1::text[]) AND run_at < 'infinity' AND run_at <= now() GROUP BY 1, 2
"""


async def page(
    connection: Connection, queues: Collection[str], *, after: ExternalJob | None, limit: int
) -> list[ExternalJob]:
    """A page of open jobs of the queues, the longest due first, after the one given."""
    records = await connection.fetch(_PAGE, list(queues), after and after.run_at, after and after.id, limit)
    return [ExternalJob(**dict(record)) for record in records]


async def oldest(connection: Connection, queues: Collection[str], *, lost: bool, limit: int) -> list[ExternalJob]:
    """Open jobs of the queues, the longest due first; with `lost` only those that Redis forgot."""
    records = await connection.fetch(_OLDEST, list(queues), LOST if lost else None, limit)
    return [ExternalJob(**dict(record)) for record in records]


async def by_id(connection: Connection, queues: Collection[str], job_ids: Sequence[uuid.UUID]) -> list[ExternalJob]:
    """Those of the jobs that have not ended, also such as wait for an earlier message of their conversation."""
    return [ExternalJob(**dict(record)) for record in await connection.fetch(_BY_ID, list(queues), job_ids)]


async def ended(connection: Connection, named: Sequence[tuple[uuid.UUID, int, str]]) -> list[tuple[str, bool]]:
    """Of the jobs (row, generation, name) the names of those that ended or were published again, and which are dead letters."""
    records = await connection.fetch(
        _ENDED, [row[0] for row in named], [row[1] for row in named], [row[2] for row in named]
    )
    return [(record["name"], record["dead"]) for record in records]


async def find(connection: Connection, queues: Collection[str], job_id: uuid.UUID) -> tuple[str, str] | None:
    """The queue and BullMQ's id of a job of these queues, also of one that ended."""
    record = await connection.fetchrow(_FIND, list(queues), job_id)
    return None if record is None else (record["queue"], f"{job_id}-{record['generation']}")


async def is_given_up(db: Database, job_id: uuid.UUID, *, generation: int) -> bool:
    """Whether that generation of the job is a dead letter."""
    async with db.connection() as connection:
        return await connection.fetchval(_IS_DEAD, job_id, generation) is not None


async def is_taken(connection: Connection, message_id: uuid.UUID, external_id: str) -> bool:
    """Whether another message of the same channel has this id of the channel's."""
    return await connection.fetchval(_IS_TAKEN, message_id, external_id) is not None


async def note(connection: Connection, standings: Sequence[tuple[uuid.UUID, str, bool]]) -> None:
    """Write down why each job waits, and of which it is known that BullMQ has it."""
    ordered = sorted(standings)
    await connection.execute(
        _NOTE, [row[0] for row in ordered], [row[1] for row in ordered], [row[2] for row in ordered]
    )


async def to_publish(connection: Connection, job_ids: Sequence[uuid.UUID]) -> list[NewJob]:
    """The jobs as BullMQ is to be told of them, under the ids that they have."""
    return [_new(dict(record)) for record in await connection.fetch(_PAYLOADS, job_ids)]


async def hand_over_again(connection: Connection, job: ExternalJob) -> NewJob | None:
    """Make the job's next generation, which an external worker will do again; None if it ended meanwhile."""
    record = await connection.fetchrow(_AGAIN, job.id, job.generation)
    if record is None:
        return None
    await connection.execute(_SENDING, job.message_id, job.customer_id)
    return _new(dict(record))


async def count(db: Database, queues: Collection[str], *, late_s: float) -> list[tuple[str, str, int]]:
    """How many jobs of each queue are open, late (for over `late_s` seconds) and lost."""
    async with db.connection() as connection:
        records = await connection.fetch(_COUNT, list(queues), LOST, late_s)
    return [(record["queue"], record["standing"], record["count"]) for record in records]


def _new(fields: dict[str, object]) -> NewJob:
    payload = fields["payload"]
    return NewJob(**{**fields, "payload": payload.encode() if isinstance(payload, str) else b""})  # type: ignore[arg-type]

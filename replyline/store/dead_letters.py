"""Dead letters, as an operator looks at them; replaying and discarding are moves."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import msgspec

from replyline.store.database import Database

_PERSONAL = ("content", "externalUserId", "contactName", "replyTo")


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A job that was given up, with every error that was kept; personal text in its payload is left out."""

    id: uuid.UUID
    queue: str
    reason: str
    customer_id: uuid.UUID | None
    conversation_id: uuid.UUID | None
    message_id: uuid.UUID | None
    trace_id: uuid.UUID
    attempts: int
    generation: int
    payload: dict[str, object]
    errors: list[dict[str, object]]
    worker: str | None
    created_at: datetime
    finished_at: datetime


_SELECT = """
SELECT id, queue, coalesce(reason, 'unknown') AS reason, customer_id, conversation_id, message_id, trace_id, attempts, generation,
       payload::text AS payload, errors::text AS errors, worker, created_at, finished_at
FROM jobs
WHERE state = 'DEAD' AND ($1::uuid IS NULL OR customer_id = $1)
"""
_LIST = f"""
{_SELECT} AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR reason = $3) AND ($4::uuid IS NULL OR id < $4)
ORDER BY id DESC LIMIT $5
"""
_GET = f"{_SELECT} AND id = $2"
_IDS = """
SELECT id FROM jobs WHERE state = 'DEAD' AND ($1::uuid IS NULL OR customer_id = $1)
  AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR reason = $3) ORDER BY id LIMIT 100000
"""
_COUNT = """
SELECT queue, coalesce(reason, 'unknown') AS reason, count(*)::int AS count FROM jobs WHERE state = 'DEAD' GROUP BY 1, 2
"""


async def list_page(
    db: Database,
    *,
    customer_id: uuid.UUID | None,
    queue: str | None = None,
    reason: str | None = None,
    before: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[DeadLetterRecord]:
    """A page of dead letters, newest first, before the one given; without `customer_id`, everybody's: that is the operator."""
    async with db.connection() as connection:
        records = await connection.fetch(_LIST, customer_id, queue, reason, before, limit)
    return [_record(record) for record in records]


async def get(db: Database, job_id: uuid.UUID, *, customer_id: uuid.UUID | None) -> DeadLetterRecord | None:
    """The dead letter, or None where there is no such one (of that customer)."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, customer_id, job_id)
    return None if record is None else _record(record)


async def ids(
    db: Database, *, customer_id: uuid.UUID | None, queue: str | None, reason: str | None
) -> Sequence[uuid.UUID]:
    """Every dead letter that fits, oldest first."""
    async with db.connection() as connection:
        return [record["id"] for record in await connection.fetch(_IDS, customer_id, queue, reason)]


async def count(db: Database) -> Sequence[tuple[str, str, int]]:
    """How many there are, by queue and reason."""
    async with db.connection() as connection:
        return [(record["queue"], record["reason"], record["count"]) for record in await connection.fetch(_COUNT)]


def _record(record: asyncpg.Record) -> DeadLetterRecord:
    payload = msgspec.json.decode(record["payload"].encode(), type=dict[str, object])
    shown = {name: "[redacted]" if name in _PERSONAL else value for name, value in payload.items()}
    errors = msgspec.json.decode(record["errors"].encode(), type=list[dict[str, object]])
    return DeadLetterRecord(**{**record, "payload": shown, "errors": errors})

"""Dead letters to look at: which jobs were given up, why, and with what history; personal text and secrets are taken out."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import msgspec

from replyline.redaction import redact
from replyline.store.database import Database
from replyline.store.moves.setbacks import Failure

# What a person wrote, and what they are reached by (see replyline/jobs.py): how long it is may be seen, what it says may not.
_PERSONAL = frozenset(
    {"content", "contactName", "externalUserId", "replyTo", "filename", "unreadable", "body", "alsoKnownAs"}
)
_MOST_IDS = 10_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up. `generation` is how often it had been published again before."""

    id: uuid.UUID
    queue: str
    reason: str
    attempts: int
    generation: int
    customer_id: uuid.UUID | None
    conversation_id: uuid.UUID | None
    message_id: uuid.UUID | None
    trace_id: uuid.UUID
    payload: object
    errors: Sequence[Failure]
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


_COLUMNS = """
id, queue, coalesce(reason, 'unknown') AS reason, attempts, generation, customer_id, conversation_id, message_id, trace_id,
payload::text AS payload, errors::text AS errors, worker, created_at, started_at, finished_at
"""
_CHOSEN = """
($1::uuid IS NULL OR customer_id = $1) AND ($2::text IS NULL OR queue = $2)
AND ($3::text IS NULL OR reason = $3)
"""
_LIST = f"""
SELECT {_COLUMNS} FROM dead_jobs WHERE {_CHOSEN} AND ($4::uuid IS NULL OR id < $4) ORDER BY id DESC LIMIT $5
"""  # noqa: S608  the columns and conditions are the constants above
_GET = f"SELECT {_COLUMNS} FROM dead_jobs WHERE id = $1 AND ($2::uuid IS NULL OR customer_id = $2)"  # noqa: S608
_IDS = f"SELECT id FROM dead_jobs WHERE {_CHOSEN} ORDER BY id LIMIT $4"  # noqa: S608  as above
_COUNT = """
SELECT queue, coalesce(reason, 'unknown') AS reason, count(*)::int AS count FROM dead_jobs
GROUP BY 1, 2 ORDER BY 1, 2
"""


async def list_page(
    db: Database,
    *,
    customer_id: uuid.UUID | None,
    queue: str | None = None,
    reason: str | None = None,
    before: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[DeadLetter]:
    """A page of dead letters, newest job first, before the one given. Without `customer_id`, every customer's."""
    async with db.connection() as connection:
        records = await connection.fetch(_LIST, customer_id, queue, reason, before, limit)
    return [_dead_letter(record) for record in records]


async def get(db: Database, job_id: uuid.UUID, *, customer_id: uuid.UUID | None) -> DeadLetter | None:
    """The dead letter, or None where the customer has no such one. Without `customer_id`, any customer's."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, job_id, customer_id)
    return None if record is None else _dead_letter(record)


async def ids(
    db: Database, *, customer_id: uuid.UUID | None, queue: str | None = None, reason: str | None = None
) -> Sequence[uuid.UUID]:
    """The dead letters that fit, oldest job first, 10,000 at most: to replay or discard them one after the other."""
    async with db.connection() as connection:
        records = await connection.fetch(_IDS, customer_id, queue, reason, _MOST_IDS)
    return [record["id"] for record in records]


async def count(db: Database) -> Sequence[tuple[str, str, int]]:
    """How many dead letters each queue has for each reason."""
    async with db.connection() as connection:
        records = await connection.fetch(_COUNT)
    return [(record["queue"], record["reason"], record["count"]) for record in records]


def _dead_letter(record: asyncpg.Record) -> DeadLetter:
    fields = dict(record)
    fields["payload"] = _without_personal(msgspec.json.decode(fields["payload"]))
    fields["errors"] = msgspec.json.decode(fields["errors"], type=list[Failure])
    return DeadLetter(**fields)


def _without_personal(value: object, *, all_of_it: bool = False) -> object:
    match value:
        case dict():
            return {
                key: _without_personal(entry, all_of_it=all_of_it or key in _PERSONAL) for key, entry in value.items()
            }
        case list():
            return [_without_personal(entry, all_of_it=all_of_it) for entry in value]
        case str() if all_of_it:
            return f"[{len(value)} characters]"
        case str():
            return value if _is_id(value) else redact(value)
        case _:
            return value


def _is_id(value: str) -> bool:
    """Ids stay whole: one made of digits alone would pass for a telephone number."""
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False

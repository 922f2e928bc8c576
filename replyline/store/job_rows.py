"""Reading the rows of jobs, for many runs at once: what a run does is decided by its row, not by what Redis says of it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import asyncpg

from replyline.store.database import Connection
from replyline.store.outbox import Outbox


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job, as far as a run needs it."""

    id: uuid.UUID
    queue: str
    state: Literal["WAITING", "DONE", "DEAD"]
    generation: int
    payload: bytes
    """UTF-8 JSON."""
    customer_id: uuid.UUID | None
    conversation_id: uuid.UUID | None
    message_id: uuid.UUID | None
    trace_id: uuid.UUID


_WAITING = """
SELECT id, queue, state, generation, payload::text AS payload, customer_id, conversation_id, message_id, trace_id
FROM jobs WHERE id = ANY($1::uuid[])
"""
# All tables in one snapshot: a job that moves between them in this moment is in one of them.
_READ = _WAITING.replace("FROM jobs", "FROM all_jobs")


async def read_jobs(connection: Connection, job_ids: Sequence[uuid.UUID], _outbox: Outbox) -> list[JobRow | None]:
    """The row of each job; None if it does not exist. Nearly all wait: the tables of what ended are read for the others alone."""
    found = {record["id"]: _row(record) for record in await connection.fetch(_WAITING, job_ids)}
    others = [job_id for job_id in job_ids if job_id not in found]
    if others:
        found |= {record["id"]: _row(record) for record in await connection.fetch(_READ, others)}
    return [found.get(job_id) for job_id in job_ids]


def _row(record: asyncpg.Record) -> JobRow:
    return JobRow(
        record["id"],
        record["queue"],
        record["state"],
        record["generation"],
        record["payload"].encode(),
        record["customer_id"],
        record["conversation_id"],
        record["message_id"],
        record["trace_id"],
    )

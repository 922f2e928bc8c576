"""The move `adopt`: a job that a foreign BullMQ producer added gets a row, and from then on is one of ours."""

import uuid
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import msgspec

from replyline.errors import Permanent
from replyline.ids import new_id
from replyline.jobs import INCOMING_MESSAGES, IncomingMessageJob
from replyline.plain_text import mend_json, storable, without_nul
from replyline.produced import Produced
from replyline.store.database import Connection
from replyline.store.moves.accept import address_produced, lane_key
from replyline.store.moves.setbacks import Failure
from replyline.store.outbox import Enqueue, Outbox, insert_jobs

LOWEST_PRIORITY = 5
MAX_UNREADABLE_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Adopted:
    """The row a foreign job became, and its payload with the ids that the producer could not know."""

    job_id: uuid.UUID
    generation: int
    job: IncomingMessageJob
    dead: bool = False
    """Whether it was given up before."""


_KNOWN = "SELECT id, generation, state, payload::text AS payload FROM all_jobs WHERE dedupe_key = $1"
# Only a job that could not be adopted before has no customer.
_UNBURY = "DELETE FROM dead_jobs WHERE dedupe_key = $1 AND customer_id IS NULL RETURNING id"


async def adopt(connection: Connection, bullmq_id: str, produced: Produced) -> Adopted:
    """Give the foreign job `bullmq_id` a row, or find the one it has; the caller's transaction commits it.

    One that was buried before, and now can be adopted, is a dead letter no more.

    Raises:
        Permanent: see `address_produced`; or Postgres cannot keep it, because it has a NUL in it.
    """
    try:
        return await _adopt(connection, bullmq_id, produced)
    except asyncpg.DataError as error:
        raise Permanent(f"the payload cannot be kept: {error}", reason="unreadable_payload") from error


async def _adopt(connection: Connection, bullmq_id: str, produced: Produced) -> Adopted:
    unnamed = storable(f"bullmq:{INCOMING_MESSAGES}:{bullmq_id}")
    accepted = await address_produced(connection, produced, customer_id=None, unnamed=unnamed)
    full = accepted.job
    key = accepted.dedupe_key
    row = Enqueue(full, accepted.priority, full.trace_id or new_id(), dedupe_key=key, lane_key=lane_key(full))
    # Not to be published: BullMQ already has it, under its own id.
    if row.id in await insert_jobs(connection, [row], Outbox()):
        return Adopted(row.id, 0, full)
    if await connection.fetchval(_UNBURY, key) and row.id in await insert_jobs(connection, [row], Outbox()):
        return Adopted(row.id, 0, full)
    known = await connection.fetchrow(_KNOWN, key)
    if known is None:
        raise LookupError(f"the job with dedupe key {key} vanished while it was adopted")
    if known["state"] == "DEAD":
        return Adopted(known["id"], known["generation"], full, dead=True)
    return Adopted(
        known["id"], known["generation"], msgspec.json.decode(known["payload"].encode(), type=IncomingMessageJob)
    )


_BURY = """
INSERT INTO dead_jobs (id, queue, name, payload, trace_id, dedupe_key, priority, run_at, generation, attempts, created_at,
                       waits, errors, started_at, finished_at, worker, reason)
SELECT $1, $2, $3, $4::jsonb, $1, $5, $6, now(), 0, 1, now(), '[]', jsonb_build_array($8::jsonb), $9, now(), $10, $7
WHERE NOT EXISTS (SELECT FROM all_jobs WHERE dedupe_key = $5)
ON CONFLICT DO NOTHING
"""


async def bury_foreign(
    connection: Connection, *, queue: str, bullmq_id: str, name: str, data: bytes, reason: str, failure: Failure
) -> None:
    """Keep a foreign job that cannot become one of ours as a dead letter of no customer, so that it is not lost silently."""
    try:
        payload = msgspec.json.encode(msgspec.json.decode(mend_json(data))).decode()
    except (msgspec.DecodeError, RecursionError):
        payload = msgspec.json.encode({"unreadable": data[:MAX_UNREADABLE_BYTES].decode(errors="replace")}).decode()
    await connection.execute(
        _BURY,
        new_id(),
        queue,
        storable(name),
        without_nul(payload),
        storable(f"bullmq:{queue}:{bullmq_id}"),
        LOWEST_PRIORITY,
        reason,
        msgspec.json.encode(failure).decode(),
        datetime.fromisoformat(failure.at),
        failure.worker,
    )

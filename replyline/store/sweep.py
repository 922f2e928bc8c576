"""Looking for work that fell through, and clearing away what was kept long enough."""

import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from replyline.store.database import Connection
from replyline.store.outbox import NewJob, Outbox


@dataclass(frozen=True, slots=True)
class DueJob:
    """A waiting job whose time has come."""

    id: uuid.UUID
    queue: str
    generation: int
    run_at: datetime

    @property
    def bullmq_id(self) -> str:
        """The id that BullMQ should know it by."""
        return f"{self.id}-{self.generation}"


_REPEATED_FOR_S = 8 * 86_400.0
_SWEEPING = 0x73776565  # "swee": one sweep at a time, whichever process makes it

_DUE = """
SELECT id, queue, generation, run_at FROM jobs
WHERE finished_at IS NULL AND run_at < 'infinity' AND run_at < now() - make_interval(secs => $1) AND queue <> ALL($5::text[])
  AND ($2::timestamptz IS NULL OR (run_at, id) > ($2, $3))
ORDER BY run_at, id LIMIT $4
"""

# Never generation 0 again, because the lost one may have run: whoever runs this one must look before it acts. A later one says
# that already: it is added under the same id, so that generations do not pile up while something is wrong with Redis. Only where
# BullMQ keeps that id as ended, or has lost everything while it may have run, is the next generation needed. A job with a
# recipient in it was made for an external worker, who may have had it.
_REPUBLISH = """
UPDATE jobs j SET generation = CASE WHEN r.anew THEN j.generation + 1 ELSE greatest(j.generation, 1) END,
    handed_over_at = CASE WHEN j.payload ? 'to' THEN coalesce(j.handed_over_at, now()) ELSE j.handed_over_at END
FROM unnest($1::uuid[], $2::int[], $3::bool[]) AS r (id, generation, anew)
WHERE j.id = r.id AND j.generation = r.generation AND j.finished_at IS NULL AND j.run_at < now()
RETURNING j.id, j.queue, j.name, j.payload::text AS payload, j.priority::int AS priority, j.generation
"""

_PURGE_DEAD = """
DELETE FROM dead_jobs WHERE id IN (
    SELECT id FROM dead_jobs WHERE finished_at < now() - make_interval(secs => $1) ORDER BY finished_at LIMIT $2
)
"""
# Ids begin with the milliseconds of their making (UUID version 7), so the oldest events are found by the primary key.
_PURGE_EVENTS = """
DELETE FROM webhook_events WHERE id IN (
    SELECT id FROM webhook_events
    WHERE id < (lpad(to_hex(((extract(epoch FROM now()) - $1) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
      AND status <> 'PENDING' AND finished_at < now() - make_interval(secs => $1)
    ORDER BY id LIMIT $2
)
"""


_PURGE_PARKED = """
DELETE FROM parked_statuses WHERE (channel_id, external_id, status) IN (
    SELECT channel_id, external_id, status FROM parked_statuses WHERE parked_at < now() - make_interval(secs => $1) LIMIT $2
)
"""
_PURGE_AMENDMENTS = "DELETE FROM parked_amendments WHERE parked_at < now() - make_interval(secs => $1)"
_PURGE_NOTICES = "DELETE FROM channel_notices WHERE noticed_at < now() - make_interval(secs => $1)"
# Longer than a signature of the gateway's is good for (25 hours).
_PURGE_SESSION_EVENTS = "DELETE FROM session_events WHERE taken_at < now() - interval '26 hours'"
_PURGE_UNREAD = """
DELETE FROM unread_callbacks WHERE id IN (
    SELECT id FROM unread_callbacks WHERE received_at < now() - make_interval(secs => $1) LIMIT $2
)
"""


@asynccontextmanager
async def alone(connection: Connection) -> AsyncIterator[bool]:
    """Whether this process is the one that sweeps until the end of the block; the lock goes with the transaction."""
    async with connection.transaction():  # a lock of the session would stay behind in a pooler
        yield bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _SWEEPING))


async def due_jobs(
    connection: Connection, *, grace_s: float, after: DueJob | None, limit: int, without: Collection[str] = ()
) -> Sequence[DueJob]:
    """A page of waiting jobs that have been due for `grace_s` seconds, oldest first, after the one given.

    Jobs of the queues `without` are left out: external workers do them (`store/external.py`).
    """
    records = await connection.fetch(_DUE, grace_s, after and after.run_at, after and after.id, limit, list(without))
    return [DueJob(**dict(record)) for record in records]


@dataclass(frozen=True, slots=True)
class LostJob:
    """A due job that BullMQ does not hold alive."""

    due: DueJob
    anew: bool
    """Whether it needs a new id: BullMQ keeps it as completed or failed, or a run of it may still be under way."""


async def republish(connection: Connection, lost: Sequence[LostJob], outbox: Outbox) -> int:
    """Publish jobs again that BullMQ lost; those finished or republished meanwhile are left alone. Returns how many."""
    ordered = sorted(lost, key=lambda one: one.due.id)
    records = await connection.fetch(
        _REPUBLISH,
        [one.due.id for one in ordered],
        [one.due.generation for one in ordered],
        [one.anew for one in ordered],
    )
    # Oldest first, so that a conversation's messages come back in the order of their arrival.
    for record in sorted(records, key=lambda record: record["id"]):
        outbox.extend(
            [
                NewJob(
                    record["id"],
                    record["queue"],
                    record["name"],
                    record["payload"].encode(),
                    record["priority"],
                    generation=record["generation"],
                )
            ]
        )
    return len(records)


async def purge(connection: Connection, *, keep_dead_letters_s: float, limit: int = 5000) -> int:
    """Delete at most `limit` rows of each kind that were kept long enough; returns how many went."""
    gone = 0
    for statement in (_PURGE_DEAD, _PURGE_EVENTS):
        gone += int((await connection.execute(statement, keep_dead_letters_s, limit)).rsplit(" ", 1)[-1])
    return gone


async def purge_callbacks(connection: Connection, *, parked_s: float, unread_s: float, limit: int = 5000) -> int:
    """Delete statuses whose message never became known, and callbacks not understood, that were kept so long, in seconds."""
    gone = 0
    for statement, keep_s in ((_PURGE_PARKED, parked_s), (_PURGE_UNREAD, unread_s)):
        gone += int((await connection.execute(statement, keep_s, limit)).rsplit(" ", 1)[-1])
    # Meta repeats a callback for 7 days: so long a change may wait for its message, and a notice be recognised.
    for statement in (_PURGE_AMENDMENTS, _PURGE_NOTICES):
        gone += int((await connection.execute(statement, _REPEATED_FOR_S)).rsplit(" ", 1)[-1])
    gone += int((await connection.execute(_PURGE_SESSION_EVENTS)).rsplit(" ", 1)[-1])
    return gone

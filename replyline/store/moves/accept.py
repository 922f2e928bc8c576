"""The move `accept`: the door keeps a message that came in."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from replyline.errors import Permanent
from replyline.ids import new_id
from replyline.jobs import IncomingMessageJob
from replyline.store.database import Connection
from replyline.store.outbox import Enqueue, Outbox, insert_jobs


@dataclass(frozen=True, slots=True)
class Accept:
    """One message at the door; its job names customer, channel, message and trace."""

    job: IncomingMessageJob
    priority: int
    dedupe_key: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the sender may be told. A duplicate carries the ids of the first."""

    job_id: uuid.UUID
    message_id: uuid.UUID
    trace_id: uuid.UUID
    duplicate: bool


_CHANNELS = """
SELECT c.id, c.customer_id, u.priority::int AS priority FROM channels c JOIN customers u ON u.id = c.customer_id
WHERE c.chatbot_id = $1 AND c.kind = $2 AND ($3::uuid IS NULL OR c.id = $3) AND ($4::uuid IS NULL OR c.customer_id = $4)
  AND c.enabled
ORDER BY c.id LIMIT 2
"""

_KNOWN = "SELECT dedupe_key, id, message_id, trace_id FROM jobs WHERE dedupe_key = ANY($1::text[])"


_ACCEPTED_AS = "SELECT message_id FROM jobs WHERE dedupe_key = $1 AND customer_id = $2"


async def accepted_as(connection: Connection, key: str, *, customer_id: uuid.UUID) -> uuid.UUID | None:
    """Our id of the message that was accepted from the customer's people under that dedupe key."""
    found: uuid.UUID | None = await connection.fetchval(_ACCEPTED_AS, key, customer_id)
    return found


def dedupe_key(channel_id: uuid.UUID, external_message_id: str) -> str:
    """What makes a repeated message recognisable: the channel's own id of it."""
    return f"{channel_id}:{external_message_id}"


def lane_key(job: IncomingMessageJob) -> str:
    """What keeps the messages of one person in order until their conversation is known."""
    return f"{job.channel_id}:{job.external_user_id}"


async def address(
    connection: Connection, job: IncomingMessageJob, *, customer_id: uuid.UUID | None, unnamed: str | None = None
) -> Accept:
    """Fill in what the sender of a message could not know: its customer, channel and priority, and ids where they are missing.

    A message with an `externalMessageId` is accepted once in its channel; one without, once for each `unnamed` key.

    Raises:
        Permanent: the chatbot has no channel of that kind (of that customer, where one is given), or several and the job does
            not say which.
    """
    channels = await connection.fetch(_CHANNELS, job.chatbot_id, job.channel, job.channel_id, customer_id)
    if len(channels) != 1:
        count = "no" if not channels else "more than one"
        hint = "; name one by channelId" if channels else ""
        raise Permanent(f"chatbot {job.chatbot_id} has {count} {job.channel} channel{hint}", reason="unknown_channel")
    channel = channels[0]
    full = msgspec.structs.replace(
        job,
        customer_id=channel["customer_id"],
        channel_id=channel["id"],
        message_id=job.message_id or new_id(),
        trace_id=job.trace_id or new_id(),
    )
    key = dedupe_key(channel["id"], job.external_message_id) if job.external_message_id else unnamed
    return Accept(full, channel["priority"], key)


async def accept(connection: Connection, rows: Sequence[Accept], outbox: Outbox) -> list[Accepted]:
    """Insert a job for each message that is not known yet."""
    enqueued = [_enqueue(row) for row in rows]
    # In key order, so that two batches with the same keys cannot wait for each other.
    inserted = await insert_jobs(connection, sorted(enqueued, key=lambda row: (row.dedupe_key or "", row.id)), outbox)
    repeated = [row.dedupe_key for row in enqueued if row.id not in inserted]
    known = {record["dedupe_key"]: record for record in await connection.fetch(_KNOWN, repeated)} if repeated else {}
    results: list[Accepted] = []
    for row in enqueued:
        if row.id in inserted:
            if row.job.message_id is None:
                raise ValueError("an accepted job must name its message")
            results.append(Accepted(row.id, row.job.message_id, row.trace_id, duplicate=False))
        else:
            first = known[row.dedupe_key]
            results.append(Accepted(first["id"], first["message_id"], first["trace_id"], duplicate=True))
    return results


def _enqueue(row: Accept) -> Enqueue:
    if row.job.customer_id is None or row.job.trace_id is None or row.job.channel_id is None:
        raise ValueError("an accepted job must name its customer, channel and trace")
    return Enqueue(row.job, row.priority, row.job.trace_id, dedupe_key=row.dedupe_key, lane_key=lane_key(row.job))

"""Replaying and discarding dead letters."""

import uuid
from dataclasses import dataclass

import asyncpg

from replyline.jobs import AI_PROCESSING, OUTGOING_MESSAGES, WEBHOOK_DELIVERY, WHATSAPP_CLOUD_SEND, WHATSAPP_QR_SEND
from replyline.store.database import Connection
from replyline.store.moves.work import lock_conversations, save_conversations
from replyline.store.outbox import NewJob, Outbox

_LANE_QUEUES = (OUTGOING_MESSAGES, WHATSAPP_CLOUD_SEND, WHATSAPP_QR_SEND)


class NotReplayable(Exception):
    """There is no such dead letter, or it cannot be replayed now; the message says which."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The dead letter a call was about."""

    id: uuid.UUID
    queue: str
    generation: int


_FIND = """
SELECT id, queue, name, payload::text AS payload, conversation_id, message_id, priority::int AS priority, generation,
       payload ->> 'eventId' AS event_id, customer_id IS NULL AND dedupe_key LIKE 'bullmq:%' AS never_accepted, reason
FROM dead_jobs WHERE id = $1 AND ($2::uuid IS NULL OR customer_id = $2)
"""

_REVIVE = """
WITH back AS (DELETE FROM dead_jobs WHERE id = $1 RETURNING *)
INSERT INTO jobs (id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key, lane_key,
                  priority, generation, errors, created_at, started_at, worker, run_at, wait_reason, wait_since)
SELECT id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key, lane_key,
       priority, generation + 1, errors, created_at, started_at, worker, CASE WHEN $2 THEN 'infinity'::timestamptz ELSE now() END,
       CASE WHEN $2 THEN 'behind_earlier' END, CASE WHEN $2 THEN now() END
FROM back
RETURNING generation
"""

_NEVER_ACCEPTED = (
    "this job of another producer was never accepted ({}), so there is nothing to run again: when the cause is gone, "
    "Retry it in BullMQ (bull-board), which reads its data anew, or let the producer add it again; "
    "then discard this dead letter if it is left"
)
_OTHER_TURN = "SELECT 1 FROM jobs WHERE conversation_id = $1 AND queue = 'ai-processing' AND state = 'WAITING'"
_REQUEUE_MESSAGE = """
UPDATE messages SET status = 'QUEUED', failed_at = NULL, error_reason = NULL, error_detail = NULL
WHERE id = $1 AND status IN ('FAILED', 'QUEUED', 'SENDING', 'UNKNOWN') RETURNING id
"""
_REOPEN_EVENT = "UPDATE webhook_events SET status = 'PENDING', finished_at = NULL WHERE id = $1::uuid"
_DISCARD = """
DELETE FROM dead_jobs WHERE id = $1 AND ($2::uuid IS NULL OR customer_id = $2) RETURNING id, queue, generation
"""


async def replay(
    connection: Connection, job_id: uuid.UUID, *, customer_id: uuid.UUID | None, outbox: Outbox
) -> DeadLetter:
    """Make a dead letter a waiting job again: the same job, the next generation, no attempts used.

    A message that failed rejoins its conversation's lane: if another is leaving, it waits for it. Without `customer_id`, any
    customer's: that is the operator.

    Raises:
        NotReplayable: no such dead letter of this customer, its message was delivered meanwhile, or its conversation is being
            answered at the moment, or it is a producer's job that was never accepted.
    """
    found = await connection.fetchrow(_FIND, job_id, customer_id)
    if found is None:
        raise NotReplayable(f"there is no dead letter {job_id}")
    if found["never_accepted"]:
        raise NotReplayable(_NEVER_ACCEPTED.format(found["reason"]))
    conversation_id = found["conversation_id"]
    locked = await lock_conversations(connection, [conversation_id])
    conversation = locked.get(conversation_id)
    held = False
    if found["queue"] == AI_PROCESSING and await connection.fetchval(_OTHER_TURN, conversation_id):
        raise NotReplayable("the conversation's next turn is being answered; replay this one when it is done")
    if found["queue"] in _LANE_QUEUES:
        if conversation is None or not await connection.fetchval(_REQUEUE_MESSAGE, found["message_id"]):
            raise NotReplayable("the message was delivered or withdrawn meanwhile")
        held = conversation.lane_length > 0
        conversation.lane_length += 1
    if found["queue"] == WEBHOOK_DELIVERY:
        await connection.execute(_REOPEN_EVENT, found["event_id"])
    generation = await connection.fetchval(_REVIVE, job_id, held)
    if generation is None:
        raise NotReplayable(f"dead letter {job_id} was replayed by somebody else")
    await save_conversations(connection, locked)
    if not held:
        outbox.extend([_published(found, generation)])
    return DeadLetter(found["id"], found["queue"], found["generation"])


async def discard(connection: Connection, job_id: uuid.UUID, *, customer_id: uuid.UUID | None) -> DeadLetter:
    """Delete a dead letter for good.

    Raises:
        NotReplayable: no such dead letter of this customer.
    """
    gone = await connection.fetchrow(_DISCARD, job_id, customer_id)
    if gone is None:
        raise NotReplayable(f"there is no dead letter {job_id}")
    return DeadLetter(gone["id"], gone["queue"], gone["generation"])


def _published(found: asyncpg.Record, generation: int) -> NewJob:
    return NewJob(
        found["id"],
        found["queue"],
        found["name"],
        found["payload"].encode(),
        found["priority"],
        generation=generation,
    )

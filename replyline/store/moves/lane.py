"""The lane: outbound messages of a conversation leave one at a time, because only the first of them has a job."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from replyline.jobs import OutgoingMessageJob
from replyline.store.database import Connection
from replyline.store.moves.work import LockedConversation
from replyline.store.outbox import Enqueue, NewJob, Outbox


@dataclass(frozen=True, slots=True)
class Utterance:
    """A message of ours that is to be said."""

    conversation: LockedConversation
    content: str
    trace_id: uuid.UUID
    message_id: uuid.UUID
    parent_id: uuid.UUID
    turn_after_seq: int | None = None
    turn_through_seq: int | None = None
    role: str = "assistant"
    synthetic: bool = False
    body: bytes | None = None
    """What it is, as JSON, where it is not plain text (`contents.Content`)."""
    quotes: uuid.UUID | None = None
    """Our id of the message that it replies to."""


_INSERT = """
INSERT INTO messages (id, customer_id, conversation_id, channel_id, seq, direction, role, status, content, synthetic, trace_id,
                      turn_after_seq, turn_through_seq, body, quotes)
SELECT id, customer_id, conversation_id, channel_id, seq, 'OUTBOUND', role, 'QUEUED', content, synthetic, trace_id,
       turn_after_seq, turn_through_seq, body::jsonb, quotes
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::text[], $7::text[], $8::bool[], $9::uuid[],
            $10::bigint[], $11::bigint[], $12::text[], $13::uuid[])
  AS new (id, customer_id, conversation_id, channel_id, seq, role, content, synthetic, trace_id, turn_after_seq,
          turn_through_seq, body, quotes)
"""

_NEXT = """
SELECT DISTINCT ON (m.conversation_id) m.conversation_id, m.id, m.trace_id
FROM messages m
WHERE m.conversation_id = ANY($1::uuid[]) AND m.direction = 'OUTBOUND' AND m.status = 'QUEUED'
ORDER BY m.conversation_id, m.seq
"""

# A replayed job whose lane was busy waits with an infinite run_at until its message is the first.
_RELEASE = """
UPDATE jobs SET run_at = now(), wait_reason = NULL, wait_since = NULL,
    waits = waits_of(waits, wait_reason, wait_since, run_at)
WHERE message_id = ANY($1::uuid[]) AND finished_at IS NULL AND run_at = 'infinity'
RETURNING id, message_id, queue, name, payload::text AS payload, priority::int AS priority, generation
"""


async def say(connection: Connection, utterances: Sequence[Utterance], outbox: Outbox) -> list[Enqueue]:
    """Write messages of ours at the end of their conversations; returns the jobs of those that are first in their lane.

    The caller inserts the jobs (with its others, in one statement) and saves the conversations.
    """
    if not utterances:
        return []
    await connection.execute(
        _INSERT,
        [said.message_id for said in utterances],
        [said.conversation.customer_id for said in utterances],
        [said.conversation.id for said in utterances],
        [said.conversation.channel_id for said in utterances],
        [said.conversation.next_seq() for said in utterances],
        [said.role for said in utterances],
        [said.content for said in utterances],
        [said.synthetic for said in utterances],
        [said.trace_id for said in utterances],
        [said.turn_after_seq for said in utterances],
        [said.turn_through_seq for said in utterances],
        [None if said.body is None else said.body.decode() for said in utterances],
        [said.quotes for said in utterances],
    )
    first: list[Enqueue] = []
    for said in utterances:
        said.conversation.lane_length += 1
        if said.conversation.lane_length == 1:
            first.append(_outgoing(said.conversation, said.message_id, said.trace_id, said.parent_id))
    return first


async def leave(
    connection: Connection, settled: Sequence[tuple[LockedConversation, uuid.UUID]], outbox: Outbox
) -> list[Enqueue]:
    """Let the heads of lanes go (sent or failed, each with the job that ended it); returns the jobs of those that come next.

    A message that ends while it waits behind the head only leaves the lane (`leave_lane`): the head lets the next one go.
    The messages that leave must already have a status other than QUEUED.
    """
    parents: dict[uuid.UUID, uuid.UUID] = {}
    lanes: dict[uuid.UUID, LockedConversation] = {}
    for conversation, job_id in settled:
        conversation.leave_lane()
        if conversation.lane_length:
            lanes[conversation.id] = conversation
            parents[conversation.id] = job_id
    if not lanes:
        return []
    heads = await connection.fetch(_NEXT, list(lanes))
    released = {
        record["message_id"]: NewJob(
            record["id"],
            record["queue"],
            record["name"],
            record["payload"].encode(),
            record["priority"],
            generation=record["generation"],
        )
        for record in await connection.fetch(_RELEASE, [head["id"] for head in heads])
    }
    outbox.extend(released.values())
    return [
        _outgoing(lanes[head["conversation_id"]], head["id"], head["trace_id"], parents[head["conversation_id"]])
        for head in heads
        if head["id"] not in released
    ]


def _outgoing(
    conversation: LockedConversation, message_id: uuid.UUID, trace_id: uuid.UUID, parent_id: uuid.UUID
) -> Enqueue:
    return Enqueue(
        OutgoingMessageJob(
            customer_id=conversation.customer_id,
            trace_id=trace_id,
            conversation_id=conversation.id,
            message_id=message_id,
            channel=conversation.channel,
        ),
        conversation.priority,
        trace_id,
        parent_id=parent_id,
    )

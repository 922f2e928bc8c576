"""The timeline of a message: every job, message and webhook event that it caused, and why what waits does."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from replyline.store.database import Database
from replyline.store.moves.setbacks import Failure

_MOST_ROWS = 1000
_UUID_CHARS = 36


class Wait(msgspec.Struct, frozen=True):
    """Why a job was not due yet, since when, and for how many seconds; the same reason several times in a row is one wait."""

    reason: str
    since: datetime
    seconds: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class TimelineJob:
    """One job of the trace. `wait_s` is from when it was due to when its last run began, `run_s` that run; both in seconds.

    `waits` are the newest ten reasons for which it was not due before, oldest first; what it waits for now is `wait_reason`.
    """

    id: uuid.UUID
    queue: str
    state: Literal["WAITING", "DONE", "DEAD"]
    parent_id: uuid.UUID | None
    message_id: uuid.UUID | None
    conversation_id: uuid.UUID | None
    attempts: int
    generation: int
    reason: str | None
    wait_reason: str | None
    wait_since: datetime | None
    waits: Sequence[Wait]
    errors: Sequence[Failure]
    worker: str | None
    created_at: datetime
    run_at: datetime | None
    """When it is or was due; None while it waits for an earlier message of its conversation."""
    started_at: datetime | None
    finished_at: datetime | None
    wait_s: float
    run_s: float | None


@dataclass(frozen=True, slots=True)
class TimelineMessage:
    """One message of the trace, and how far it has come."""

    id: uuid.UUID
    direction: str
    role: str
    status: str
    synthetic: bool
    """Said by the system and not by a model or a human: the fallback text, say."""
    seq: int
    error_reason: str | None
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    content_type: str
    body: dict[str, object] | None
    """What it holds besides its words, as in `Message.body`."""


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One webhook event of the trace."""

    id: uuid.UUID
    endpoint_id: uuid.UUID
    type: str
    status: str
    attempts: int
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything that a message caused, each kind in the order it was made; the first 1000 of each.

    A message that was answered together with others of its turn shows the trace of the turn too, which is the first one's.
    """

    trace_id: uuid.UUID
    message_id: uuid.UUID
    customer_id: uuid.UUID
    owner: str | None
    """Who answers in the conversation now; None before the message has reached one."""
    jobs: Sequence[TimelineJob]
    messages: Sequence[TimelineMessage]
    webhook_events: Sequence[TimelineEvent]


# A message at the door has a job before it has a row of its own.
_START = """
SELECT trace_id, customer_id, conversation_id, seq, direction FROM messages
WHERE id = $1 AND ($2::uuid IS NULL OR customer_id = $2)
UNION ALL
SELECT trace_id, customer_id, NULL, NULL, NULL FROM jobs
WHERE finished_at IS NULL AND queue = 'incoming-messages' AND message_id = $1 AND ($2::uuid IS NULL OR customer_id = $2)
UNION ALL
SELECT trace_id, customer_id, NULL, NULL, NULL FROM dead_jobs
WHERE queue = 'incoming-messages' AND message_id = $1 AND customer_id = coalesce($2, customer_id)
LIMIT 1
"""

# Every part is found by an index of its own: jobs by trace, messages by conversation, events by the jobs that deliver them.
_READ = """
WITH traces AS (
    SELECT $1::uuid AS trace_id
    UNION SELECT m.trace_id FROM messages m
    WHERE m.conversation_id = $3 AND m.direction = 'OUTBOUND' AND m.turn_after_seq < $4 AND m.turn_through_seq >= $4
    UNION SELECT j.trace_id FROM jobs j JOIN conversations v ON v.id = j.conversation_id
    WHERE j.conversation_id = $3 AND j.queue = 'ai-processing' AND j.state = 'WAITING' AND v.answered_seq < $4
    UNION SELECT j.trace_id FROM dead_jobs j
    WHERE j.customer_id = $2 AND j.conversation_id = $3 AND j.queue = 'ai-processing'
      AND (j.payload ->> 'afterSeq')::bigint < $4 AND (j.payload ->> 'throughSeq')::bigint >= $4
), found AS (
    SELECT j.id, j.queue, j.state, j.parent_id, j.message_id, j.conversation_id, j.attempts, j.generation, j.reason,
           j.wait_reason, j.wait_since, j.waits, j.errors, j.worker, j.created_at, nullif(j.run_at, 'infinity') AS run_at,
           j.started_at, j.finished_at,
           CASE WHEN j.run_at = 'infinity' THEN extract(epoch FROM now() - j.created_at)
                WHEN j.finished_at IS NULL THEN greatest(0, extract(epoch FROM now() - j.run_at))
                ELSE greatest(0, extract(epoch FROM coalesce(j.started_at, j.finished_at) - j.run_at)) END AS wait_s,
           extract(epoch FROM j.finished_at - j.started_at) AS run_s,
           CASE WHEN j.queue = 'webhook-delivery' THEN (j.payload ->> 'eventId')::uuid END AS event_id
    FROM traces t CROSS JOIN LATERAL (
        SELECT * FROM all_jobs WHERE trace_id = t.trace_id AND customer_id = $2 ORDER BY id LIMIT $5
    ) j ORDER BY j.id LIMIT $5
), said AS (
    SELECT m.id, m.direction, m.role, m.status, m.synthetic, m.seq, m.error_reason, m.created_at, m.sent_at, m.delivered_at,
           m.read_at, m.failed_at, m.content_type, m.body
    FROM messages m
    WHERE m.conversation_id = $3 AND m.customer_id = $2 AND m.trace_id IN (SELECT trace_id FROM traces) ORDER BY m.seq LIMIT $5
), told AS (
    SELECT e.id, e.endpoint_id, e.type, e.status, e.created_at, e.finished_at,
           (SELECT count(*) FROM webhook_attempts a WHERE a.event_id = e.id) AS attempts
    FROM webhook_events e WHERE e.id IN (SELECT event_id FROM found) AND e.customer_id = $2 ORDER BY e.id LIMIT $5
)
SELECT (SELECT coalesce(json_agg(found ORDER BY found.id), '[]') FROM found)::text AS jobs,
       (SELECT coalesce(json_agg(said ORDER BY said.seq), '[]') FROM said)::text AS messages,
       (SELECT coalesce(json_agg(told ORDER BY told.id), '[]') FROM told)::text AS events,
       (SELECT v.owner FROM conversations v WHERE v.id = $3 AND v.customer_id = $2) AS owner
"""


_MESSAGE_OF_ID = """
SELECT id FROM messages WHERE id = $1
UNION ALL SELECT message_id FROM jobs WHERE finished_at IS NULL AND message_id = $1
UNION ALL SELECT coalesce(j.message_id, (
    SELECT t.message_id FROM all_jobs t WHERE t.trace_id = j.trace_id AND t.message_id IS NOT NULL ORDER BY t.id LIMIT 1
)) FROM all_jobs j WHERE j.id = $1
UNION ALL (SELECT message_id FROM all_jobs WHERE trace_id = $1 AND message_id IS NOT NULL ORDER BY id LIMIT 1)
LIMIT 1
"""
# By channel, because that is how the ids of the outside are indexed.
_MESSAGE_OF_EXTERNAL_ID = """
SELECT m.id FROM channels c CROSS JOIN LATERAL (
    SELECT id FROM messages WHERE channel_id = c.id AND external_id = $1 LIMIT 1
) m LIMIT 1
"""


async def find_message(db: Database, wanted: str) -> uuid.UUID | None:
    """The message that an id is about, of any customer: its own id, that of a trace or job, BullMQ's of a job, or the channel's.

    A trace is found for as long as its jobs are kept (REPLYLINE_KEEP_JOBS_S).
    """
    try:
        # BullMQ's id of a job is our id, a hyphen and the generation.
        known = uuid.UUID(wanted if len(wanted) <= _UUID_CHARS else wanted[:_UUID_CHARS])
    except ValueError:
        known = None
    async with db.connection() as connection:
        found: uuid.UUID | None = None
        if known is not None:
            found = await connection.fetchval(_MESSAGE_OF_ID, known)
        if found is None:
            found = await connection.fetchval(_MESSAGE_OF_EXTERNAL_ID, wanted)
    return found


async def trace(db: Database, message_id: uuid.UUID, *, customer_id: uuid.UUID | None) -> Timeline | None:
    """The timeline of a message, as it is at one moment; None where the customer has no such message.

    Without `customer_id`, any customer's: that is the operator. Finished jobs are in it for as long as they are kept
    (REPLYLINE_KEEP_JOBS_S), messages for ever.
    """
    async with db.connection() as connection:
        start = await connection.fetchrow(_START, message_id, customer_id)
        if start is None:
            return None
        seq = start["seq"] if start["direction"] == "INBOUND" else None
        record = await connection.fetchrow(
            _READ, start["trace_id"], start["customer_id"], start["conversation_id"], seq, _MOST_ROWS
        )
    if record is None:
        raise LookupError("a query that gives one row gave none")
    return Timeline(
        trace_id=start["trace_id"],
        message_id=message_id,
        customer_id=start["customer_id"],
        owner=record["owner"],
        jobs=msgspec.json.decode(record["jobs"], type=list[TimelineJob]),
        messages=msgspec.json.decode(record["messages"], type=list[TimelineMessage]),
        webhook_events=msgspec.json.decode(record["events"], type=list[TimelineEvent]),
    )

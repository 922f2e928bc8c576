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


@dataclass(frozen=True, slots=True)
class TimelineJob:
    """One job of the trace. `wait_s` is from when it was due to when its last run began, `run_s` that run; both in seconds."""

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
    jobs: Sequence[TimelineJob]
    messages: Sequence[TimelineMessage]
    webhook_events: Sequence[TimelineEvent]


# A message at the door has a job before it has a row of its own.
_START = """
SELECT trace_id, customer_id, conversation_id, seq, direction FROM messages
WHERE id = $1 AND ($2::uuid IS NULL OR customer_id = $2)
UNION ALL
SELECT trace_id, customer_id, NULL, NULL, NULL FROM jobs
WHERE state = 'WAITING' AND queue = 'incoming-messages' AND message_id = $1 AND ($2::uuid IS NULL OR customer_id = $2)
UNION ALL
SELECT trace_id, customer_id, NULL, NULL, NULL FROM jobs
WHERE state = 'DEAD' AND queue = 'incoming-messages' AND message_id = $1 AND customer_id = coalesce($2, customer_id)
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
    UNION SELECT j.trace_id FROM jobs j
    WHERE j.customer_id = $2 AND j.state = 'DEAD' AND j.conversation_id = $3 AND j.queue = 'ai-processing'
      AND (j.payload ->> 'afterSeq')::bigint < $4 AND (j.payload ->> 'throughSeq')::bigint >= $4
), found AS (
    SELECT j.id, j.queue, j.state, j.parent_id, j.message_id, j.conversation_id, j.attempts, j.generation, j.reason,
           j.wait_reason, j.errors, j.worker, j.created_at, nullif(j.run_at, 'infinity') AS run_at, j.started_at, j.finished_at,
           CASE WHEN j.run_at = 'infinity' THEN extract(epoch FROM now() - j.created_at)
                WHEN j.finished_at IS NULL THEN greatest(0, extract(epoch FROM now() - j.run_at))
                ELSE greatest(0, extract(epoch FROM coalesce(j.started_at, j.finished_at) - j.run_at)) END AS wait_s,
           extract(epoch FROM j.finished_at - j.started_at) AS run_s,
           CASE WHEN j.queue = 'webhook-delivery' THEN (j.payload ->> 'eventId')::uuid END AS event_id
    FROM jobs j WHERE j.trace_id IN (SELECT trace_id FROM traces) AND j.customer_id = $2 ORDER BY j.id LIMIT $5
), said AS (
    SELECT m.id, m.direction, m.role, m.status, m.seq, m.error_reason, m.created_at, m.sent_at, m.delivered_at, m.read_at,
           m.failed_at, m.content_type, m.body
    FROM messages m
    WHERE m.conversation_id = $3 AND m.customer_id = $2 AND m.trace_id IN (SELECT trace_id FROM traces) ORDER BY m.seq LIMIT $5
), told AS (
    SELECT e.id, e.endpoint_id, e.type, e.status, e.created_at, e.finished_at,
           (SELECT count(*) FROM webhook_attempts a WHERE a.event_id = e.id) AS attempts
    FROM webhook_events e WHERE e.id IN (SELECT event_id FROM found) AND e.customer_id = $2 ORDER BY e.id LIMIT $5
)
SELECT (SELECT coalesce(json_agg(found ORDER BY found.id), '[]') FROM found)::text AS jobs,
       (SELECT coalesce(json_agg(said ORDER BY said.seq), '[]') FROM said)::text AS messages,
       (SELECT coalesce(json_agg(told ORDER BY told.id), '[]') FROM told)::text AS events
"""


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
        jobs=msgspec.json.decode(record["jobs"], type=list[TimelineJob]),
        messages=msgspec.json.decode(record["messages"], type=list[TimelineMessage]),
        webhook_events=msgspec.json.decode(record["events"], type=list[TimelineEvent]),
    )

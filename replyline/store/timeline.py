"""The timeline of a message: every job, message and webhook event of its trace, and why what waits does."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import asyncpg
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
    """Everything that one inbound message caused, each kind in the order it was made; the first 1000 of each."""

    trace_id: uuid.UUID
    message_id: uuid.UUID
    customer_id: uuid.UUID
    jobs: Sequence[TimelineJob]
    messages: Sequence[TimelineMessage]
    webhook_events: Sequence[TimelineEvent]


# A message at the door has a job before it has a row of its own; an answer shares the trace of what it answers.
_TRACE = """
SELECT trace_id, customer_id FROM messages WHERE id = $1 AND ($2::uuid IS NULL OR customer_id = $2)
UNION ALL
SELECT trace_id, customer_id FROM jobs
WHERE queue = 'incoming-messages' AND state <> 'DONE' AND payload ->> 'messageId' = $1::text
  AND message_id = $1 AND ($2::uuid IS NULL OR customer_id = $2)
LIMIT 1
"""

_JOBS = """
SELECT id, queue, state, parent_id, message_id, conversation_id, attempts, generation, reason, wait_reason,
       errors::text AS errors, worker, created_at, nullif(run_at, 'infinity') AS run_at, started_at, finished_at,
       CASE WHEN run_at = 'infinity' THEN extract(epoch FROM now() - created_at)
            WHEN finished_at IS NULL THEN greatest(0, extract(epoch FROM now() - run_at))
            ELSE greatest(0, extract(epoch FROM coalesce(started_at, finished_at) - run_at)) END::float8 AS wait_s,
       extract(epoch FROM finished_at - started_at)::float8 AS run_s
FROM jobs WHERE trace_id = $1 AND customer_id = $2 ORDER BY id LIMIT $3
"""
_MESSAGES = """
SELECT id, direction, role, status, seq, error_reason, created_at, sent_at, delivered_at, read_at, failed_at
FROM messages WHERE trace_id = $1 AND customer_id = $2 ORDER BY id LIMIT $3
"""
_EVENTS = """
SELECT e.id, e.endpoint_id, e.type, e.status, e.created_at, e.finished_at,
       (SELECT count(*)::int FROM webhook_attempts a WHERE a.event_id = e.id) AS attempts
FROM webhook_events e WHERE e.trace_id = $1 AND e.customer_id = $2 ORDER BY e.id LIMIT $3
"""

"""Messages, as a customer sees them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import msgspec

from replyline.store.database import Database


@dataclass(frozen=True, slots=True)
class Message:
    """One utterance; `seq` is its place in the conversation."""

    id: uuid.UUID
    customer_id: uuid.UUID
    conversation_id: uuid.UUID
    channel_id: uuid.UUID
    seq: int
    direction: str
    role: str
    status: str
    content: str
    content_type: str
    synthetic: bool
    external_id: str | None
    trace_id: uuid.UUID
    quotes: uuid.UUID | None
    """Our id of the message that it replies to."""
    sent_as: str | None
    """What went out in place of the text, in words (a template, where the 24 hours were over)."""
    error_reason: str | None
    error_code: int | None
    """The channel's own number of the error."""
    error_title: str | None
    error_detail: str | None
    provider_at: datetime | None
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    accepted_at: datetime | None
    edited_at: datetime | None
    deleted_at: datetime | None
    body: dict[str, object] | None
    """What it holds besides `content`, as JSON: `InboundContent` of what people sent, `Content` of what was sent to them."""


_SELECT = """
SELECT id, customer_id, conversation_id, channel_id, seq, direction, role, status, content, content_type, synthetic, external_id,
       trace_id, quotes, sent_as, error_reason, error_code, error_title, error_detail, provider_at, created_at, sent_at,
       delivered_at, read_at, failed_at, accepted_at, edited_at, deleted_at, body::text AS body
FROM messages
"""
_LIST = f"""
{_SELECT}
WHERE customer_id = $1 AND ($2::uuid IS NULL OR conversation_id = $2) AND ($3::text IS NULL OR status = $3)
  AND ($4::uuid IS NULL OR id < $4)
ORDER BY id DESC LIMIT $5
"""
_GET = f"{_SELECT} WHERE id = $1 AND customer_id = $2"


async def list_page(
    db: Database,
    *,
    customer_id: uuid.UUID,
    conversation_id: uuid.UUID | None = None,
    status: str | None = None,
    before: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[Message]:
    """A page of the customer's messages (of one conversation or status, where named), newest first, before the one given."""
    async with db.connection() as connection:
        records = await connection.fetch(_LIST, customer_id, conversation_id, status, before, limit)
    return [_message(record) for record in records]


async def accepted_content(db: Database, job_id: uuid.UUID) -> str | None:
    """What the message says that was accepted as this job, as it was handed in; None if there is no such job."""
    async with db.connection() as connection:
        content: str | None = await connection.fetchval(
            "SELECT payload ->> 'content' FROM all_jobs WHERE id = $1", job_id
        )
    return content


async def get(db: Database, message_id: uuid.UUID, *, customer_id: uuid.UUID) -> Message | None:
    """The message, or None where the customer has no such one."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, message_id, customer_id)
    return None if record is None else _message(record)


def _message(record: asyncpg.Record) -> Message:
    fields = dict(record)
    raw = fields.pop("body")
    return Message(**fields, body=None if raw is None else msgspec.json.decode(raw, type=dict[str, object]))

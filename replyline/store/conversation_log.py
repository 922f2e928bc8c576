"""A conversation as an open page reads it: its messages in the order in which they became visible there."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import msgspec

from replyline.contents import Content, decode_content
from replyline.inbound_content import InboundContent, decode_inbound
from replyline.store.database import Connection, Database
from replyline.store.outbox import Outbox


class Attachment(msgspec.Struct, frozen=True):
    """A file of a message; `size` in bytes."""

    id: uuid.UUID
    name: str | None
    mime_type: str | None
    size: int | None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One message at its place `seq` of the log; places go up, and may leave some out."""

    id: uuid.UUID
    seq: int
    role: str
    content: str
    status: str
    external_id: str | None
    """Of a visitor's message: the id that the page gave it."""
    created_at: datetime
    attachments: tuple[Attachment, ...]
    body: Content | InboundContent | None
    """What it holds besides its words: `Content` of our messages, `InboundContent` of the visitor's."""
    quotes: uuid.UUID | None
    """The message that it replies to."""


@dataclass(frozen=True, slots=True)
class LogPlace:
    """How far somebody has read, and how many entries they want next."""

    conversation_id: uuid.UUID
    customer_id: uuid.UUID
    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class LogHead:
    """The place of the newest entry, and who answers in the conversation."""

    last: int
    owner: str


# `IS TRUE`: the index by customer must not fit.
_READ = """
SELECT r.ord, m.id, m.log_seq AS seq, m.role, m.content, m.status, m.external_id, m.created_at,
       files_of(m.id)::text AS attachments, m.direction, m.body::text AS body, m.quotes
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::int[]) WITH ORDINALITY
  AS r (conversation_id, customer_id, after, wanted, ord)
CROSS JOIN LATERAL (
    SELECT * FROM messages
    WHERE conversation_id = r.conversation_id AND (customer_id = r.customer_id) IS TRUE AND log_seq > r.after
    ORDER BY log_seq LIMIT r.wanted
) m
ORDER BY r.ord, m.log_seq
"""
_BEFORE = """
SELECT m.id, m.log_seq AS seq, m.role, m.content, m.status, m.external_id, m.created_at, files_of(m.id)::text AS attachments,
       m.direction, m.body::text AS body, m.quotes
FROM messages m
WHERE m.conversation_id = $1 AND (m.customer_id = $2) IS TRUE AND m.log_seq < $3 ORDER BY m.log_seq DESC LIMIT $4
"""
_CONTENT = """
SELECT body::text FROM messages
WHERE id = $1 AND conversation_id = $2 AND customer_id = $3 AND direction = 'OUTBOUND' AND log_seq IS NOT NULL
"""
_HEADS = "SELECT id, log_seq, owner FROM conversations WHERE id = ANY($1::uuid[])"


async def read_logs(connection: Connection, rows: Sequence[LogPlace], _outbox: Outbox) -> list[Sequence[LogEntry]]:
    """What comes next for each reader, oldest first."""
    found: list[list[LogEntry]] = [[] for _ in rows]
    for record in await connection.fetch(
        _READ,
        [row.conversation_id for row in rows],
        [row.customer_id for row in rows],
        [row.after for row in rows],
        [row.limit for row in rows],
    ):
        found[record["ord"] - 1].append(_entry(record))
    return list(found)


async def before(
    db: Database, *, conversation_id: uuid.UUID, customer_id: uuid.UUID, seq: int, limit: int
) -> Sequence[LogEntry]:
    """The newest entries before place `seq`, oldest first."""
    async with db.connection() as connection:
        records = await connection.fetch(_BEFORE, conversation_id, customer_id, seq, limit)
    return [_entry(record) for record in reversed(records)]


async def content_of(
    db: Database, message_id: uuid.UUID, *, conversation_id: uuid.UUID, customer_id: uuid.UUID
) -> Content | None:
    """What a message of ours in this log holds besides its words; None where it holds nothing or there is no such message."""
    async with db.connection() as connection:
        body: str | None = await connection.fetchval(_CONTENT, message_id, conversation_id, customer_id)
    return None if body is None else decode_content(body.encode())


async def heads(db: Database, conversation_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, LogHead]:
    """How long each log is; a conversation that has not begun is left out. For readers whose right to it was checked."""
    async with db.connection() as connection:
        records = await connection.fetch(_HEADS, conversation_ids)
    return {record["id"]: LogHead(record["log_seq"], record["owner"]) for record in records}


def _entry(record: asyncpg.Record) -> LogEntry:
    files = record["attachments"]
    body: Content | InboundContent | None = None
    if record["body"] is not None:
        raw = record["body"].encode()
        body = decode_inbound(raw) if record["direction"] == "INBOUND" else decode_content(raw)
    return LogEntry(
        id=record["id"],
        seq=record["seq"],
        role=record["role"],
        content=record["content"],
        status=record["status"],
        external_id=record["external_id"],
        created_at=record["created_at"],
        attachments=msgspec.json.decode(files, type=tuple[Attachment, ...]) if files else (),
        body=body,
        quotes=record["quotes"],
    )

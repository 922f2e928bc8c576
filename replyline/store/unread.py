"""Callbacks, or parts of them, that were not understood: kept for a human, so that nothing is lost silently."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from replyline.ids import new_id
from replyline.store.database import Database

MAX_BODY_CHARS = 65_536
MOST_OF_A_CHANNEL = 10_000
"""Kept of one channel; the oldest make room."""


@dataclass(frozen=True, slots=True)
class UnreadCallback:
    """One part of a callback, as it came (its first 65,536 characters), and why it was not understood."""

    id: uuid.UUID
    channel_id: uuid.UUID
    reason: str
    body: str
    received_at: datetime


_INSERT = """
INSERT INTO unread_callbacks (id, customer_id, channel_id, reason, body)
SELECT id, $1, $2, reason, body FROM unnest($3::uuid[], $4::text[], $5::text[]) AS new (id, reason, body)
"""
_TRIM = """
DELETE FROM unread_callbacks WHERE channel_id = $1 AND id <= (
    SELECT id FROM unread_callbacks WHERE channel_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1
)
"""
_LIST = """
SELECT id, channel_id, reason, body, received_at FROM unread_callbacks
WHERE channel_id = $1 AND customer_id = $2 AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4
"""


async def keep(
    db: Database, *, customer_id: uuid.UUID, channel_id: uuid.UUID, items: Sequence[tuple[str, bytes]]
) -> None:
    """Keep items that were not understood, each with why."""
    bodies = [raw.decode(errors="replace").replace("\x00", "")[:MAX_BODY_CHARS] for _, raw in items]
    async with db.transaction() as connection:
        await connection.execute(
            _INSERT, customer_id, channel_id, [new_id() for _ in items], [reason for reason, _ in items], bodies
        )
        await connection.execute(_TRIM, channel_id, MOST_OF_A_CHANNEL)


async def list_page(
    db: Database, *, customer_id: uuid.UUID, channel_id: uuid.UUID, before: uuid.UUID | None = None, limit: int = 50
) -> Sequence[UnreadCallback]:
    """A page of what a channel of the customer did not understand, newest first, before the one given."""
    async with db.connection() as connection:
        records = await connection.fetch(_LIST, channel_id, customer_id, before, limit)
    return [UnreadCallback(**dict(record)) for record in records]

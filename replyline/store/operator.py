"""What the operator reads across customers: whose a record is, and which channels cannot send."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from replyline.store.database import Database

RecordKind = Literal["chatbot", "channel", "conversation", "document", "webhook endpoint"]

_OWNERS: dict[RecordKind, str] = {
    "chatbot": "SELECT customer_id FROM chatbots WHERE id = $1",
    "channel": "SELECT customer_id FROM channels WHERE id = $1",
    "conversation": "SELECT customer_id FROM conversations WHERE id = $1",
    "document": "SELECT customer_id FROM knowledge_documents WHERE id = $1",
    "webhook endpoint": "SELECT customer_id FROM webhook_endpoints WHERE id = $1",
}

_CHANNELS = """
SELECT c.id, c.customer_id, u.name AS customer, c.kind, c.name, c.external_id, c.enabled, c.health, c.health_reason,
       c.health_detail, c.unhealthy_since
FROM channels c JOIN customers u ON u.id = c.customer_id
WHERE ($1::uuid IS NULL OR c.customer_id = $1) AND (NOT $2 OR c.health = 'UNHEALTHY')
ORDER BY c.unhealthy_since NULLS LAST, c.id LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class ChannelHealth:
    """Whether one channel can send, and whose it is."""

    id: uuid.UUID
    customer_id: uuid.UUID
    customer: str
    kind: str
    name: str
    external_id: str
    enabled: bool
    health: str
    health_reason: str | None
    health_detail: str | None
    unhealthy_since: datetime | None


async def customer_of(db: Database, kind: RecordKind, record_id: uuid.UUID) -> uuid.UUID | None:
    """The customer whom a record belongs to, or None if there is no such record."""
    async with db.connection() as connection:
        owner: uuid.UUID | None = await connection.fetchval(_OWNERS[kind], record_id)
    return owner


async def channels_health(
    db: Database, *, customer_id: uuid.UUID | None, unhealthy: bool, limit: int
) -> Sequence[ChannelHealth]:
    """Channels of one customer or, with None, of all: those that have been unhealthy for longest come first."""
    async with db.connection() as connection:
        records = await connection.fetch(_CHANNELS, customer_id, unhealthy, limit)
    return [ChannelHealth(**dict(record)) for record in records]

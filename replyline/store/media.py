"""Files that people sent: what the channel said of each, where its bytes are kept, and for how long."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from replyline.jobs import MediaRef
from replyline.store.database import Connection, Database


@dataclass(frozen=True, slots=True)
class Media:
    """One file; `path` is where it is kept, below the place that the deployment keeps files in, once it is STORED."""

    id: uuid.UUID
    customer_id: uuid.UUID
    channel_id: uuid.UUID
    message_id: uuid.UUID
    kind: str
    provider_id: str
    mime_type: str | None
    sha256: str | None
    filename: str | None
    size: int | None
    state: Literal["PENDING", "STORED", "FAILED"]
    path: str | None
    error_reason: str | None
    created_at: datetime
    stored_at: datetime | None

    @property
    def age_s(self) -> float:
        """How long it has been known, in seconds, by this machine's clock."""
        return max(0.0, (datetime.now(UTC) - self.created_at).total_seconds())

    @property
    def ref(self) -> MediaRef:
        """As its channel names it."""
        return MediaRef(
            kind=self.kind,
            provider_id=self.provider_id,
            mime_type=self.mime_type,
            sha256=self.sha256,
            filename=self.filename,
        )


_GET = "SELECT * FROM media WHERE id = $1 AND customer_id = $2"
_OF_MESSAGE = "SELECT * FROM media WHERE message_id = $1 AND customer_id = $2 ORDER BY id"
_OF_TURN = """
SELECT d.* FROM media d JOIN messages m ON m.id = d.message_id
WHERE m.conversation_id = $1 AND m.customer_id = $2 AND m.seq > $3 AND m.seq <= $4 AND m.deleted_at IS NULL AND d.kind = $5
ORDER BY m.seq, d.id LIMIT $6
"""
_OLD = """
DELETE FROM media WHERE id IN (SELECT id FROM media WHERE created_at < now() - make_interval(secs => $1) LIMIT $2) RETURNING path
"""


async def get(db: Database, media_id: uuid.UUID, *, customer_id: uuid.UUID) -> Media | None:
    """The file, or None where the customer has no such one."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, media_id, customer_id)
    return None if record is None else Media(**dict(record))


async def of_message(db: Database, message_id: uuid.UUID, *, customer_id: uuid.UUID) -> Sequence[Media]:
    """The files that came with a message of the customer."""
    async with db.connection() as connection:
        return [Media(**dict(record)) for record in await connection.fetch(_OF_MESSAGE, message_id, customer_id)]


async def of_turn(
    db: Database,
    *,
    conversation_id: uuid.UUID,
    customer_id: uuid.UUID,
    after_seq: int,
    through_seq: int,
    kind: str,
    limit: int,
) -> Sequence[Media]:
    """The files of one kind that came with the messages after `after_seq` through `through_seq`, oldest first."""
    async with db.connection() as connection:
        records = await connection.fetch(_OF_TURN, conversation_id, customer_id, after_seq, through_seq, kind, limit)
    return [Media(**dict(record)) for record in records]


async def take_old(connection: Connection, *, keep_s: float, limit: int = 500) -> Sequence[str]:
    """Forget files older than `keep_s` seconds; returns where their bytes are, which the caller deletes."""
    return [record["path"] for record in await connection.fetch(_OLD, keep_s, limit) if record["path"]]

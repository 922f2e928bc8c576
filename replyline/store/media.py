"""Files that people sent: what the channel said of each, where its bytes are kept, and for how long."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from replyline.jobs import MediaRef
from replyline.store.database import Connection, Database


@dataclass(frozen=True, slots=True)
class Media:
    """One file; `path` is where it is kept, below the place that the deployment keeps files in, once it is STORED."""

    id: uuid.UUID
    customer_id: uuid.UUID
    channel_id: uuid.UUID
    message_id: uuid.UUID | None
    """None until the message comes that an uploaded file belongs to."""
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
    uploaded_by: str | None
    """Of a file that a visitor uploaded: who they are at its channel."""
    age_s: float
    """How long it had been known when it was read, in seconds, by Postgres' clock, which noted when it came."""

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


UNATTACHED_S = 86_400.0
"""How long an uploaded file waits for its message, in seconds."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a visitor sent before the message it belongs to; its bytes are kept under `path` already."""

    id: uuid.UUID
    customer_id: uuid.UUID
    channel_id: uuid.UUID
    uploaded_by: str
    kind: Literal["image", "document"]
    mime_type: str
    filename: str
    sha256: str
    size: int

    @property
    def path(self) -> str:
        """Below the place that the deployment keeps files in."""
        return f"{self.customer_id}/{self.channel_id}/{self.id}"


_KEEP_UPLOAD = """
INSERT INTO media
    (id, customer_id, channel_id, uploaded_by, kind, provider_id, mime_type, filename, sha256, size, path, state, stored_at)
VALUES ($1, $2, $3, $4, $5, $1::uuid::text, $6, $7, $8, $9, $10, 'STORED', now())
"""
_COLUMNS = "d.*, extract(epoch FROM now() - d.created_at)::float8 AS age_s"
_OF_CONVERSATION = f"""
SELECT {_COLUMNS} FROM media d LEFT JOIN messages m ON m.id = d.message_id
WHERE d.id = $1 AND d.customer_id = $2
  AND (m.conversation_id = $3 OR d.message_id IS NULL AND d.channel_id = $4 AND d.uploaded_by = $5)
"""  # noqa: S608  as above
_UNATTACHED = """
SELECT count(*) FROM media
WHERE id = ANY($1::uuid[]) AND customer_id = $2 AND channel_id = $3 AND uploaded_by = $4 AND message_id IS NULL
"""
_GET = f"SELECT {_COLUMNS} FROM media d WHERE d.id = $1 AND d.customer_id = $2"  # noqa: S608  the constant above
_OF_MESSAGE = f"SELECT {_COLUMNS} FROM media d WHERE d.message_id = $1 AND d.customer_id = $2 ORDER BY d.id"  # noqa: S608
_OF_TURN = f"""
SELECT {_COLUMNS} FROM media d JOIN messages m ON m.id = d.message_id
WHERE m.conversation_id = $1 AND m.customer_id = $2 AND m.seq > $3 AND m.seq <= $4 AND m.deleted_at IS NULL AND d.kind = $5
ORDER BY m.seq, d.id LIMIT $6
"""  # noqa: S608  as above
_OLD = """
DELETE FROM media WHERE id IN (
    SELECT id FROM media
    WHERE created_at < now() - make_interval(secs => CASE WHEN message_id IS NULL THEN $3::float8 ELSE $1::float8 END) LIMIT $2
)
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


async def keep_upload(db: Database, new: Upload) -> None:
    """Note a file whose bytes are kept."""
    async with db.connection() as connection:
        await connection.execute(
            _KEEP_UPLOAD,
            new.id,
            new.customer_id,
            new.channel_id,
            new.uploaded_by,
            new.kind,
            new.mime_type,
            new.filename,
            new.sha256,
            new.size,
            new.path,
        )


async def are_unattached(
    db: Database, ids: Sequence[uuid.UUID], *, customer_id: uuid.UUID, channel_id: uuid.UUID, uploaded_by: str
) -> bool:
    """Whether all of these are files that this visitor uploaded and no message has yet."""
    async with db.connection() as connection:
        found: int = await connection.fetchval(_UNATTACHED, ids, customer_id, channel_id, uploaded_by)
    return found == len(set(ids))


async def of_conversation(
    db: Database,
    media_id: uuid.UUID,
    *,
    customer_id: uuid.UUID,
    conversation_id: uuid.UUID,
    channel_id: uuid.UUID,
    uploaded_by: str,
) -> Media | None:
    """A file of that conversation, or one that this visitor has uploaded for their next message."""
    async with db.connection() as connection:
        record = await connection.fetchrow(
            _OF_CONVERSATION, media_id, customer_id, conversation_id, channel_id, uploaded_by
        )
    return None if record is None else Media(**dict(record))


async def forget_old(connection: Connection, *, keep_s: float, limit: int = 500) -> int:
    """Forget files older than `keep_s` seconds, and uploads that no message came for; returns how many. Their bytes go with what
    `store.deletions` notes."""
    status = await connection.execute(_OLD, keep_s, limit, min(keep_s, UNATTACHED_S))
    return int(status.rsplit(" ", 1)[-1])

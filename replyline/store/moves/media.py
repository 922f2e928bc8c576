"""What becomes of a file: it is to be fetched, kept, or will not be had; or it was there before its message."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from replyline.ids import new_id
from replyline.jobs import IncomingMessageJob, MediaFetchJob, MediaRef
from replyline.store.database import Connection
from replyline.store.moves.work import LockedConversation, Run, finish
from replyline.store.outbox import Enqueue

_INSERT_MEDIA = """
INSERT INTO media (id, customer_id, channel_id, message_id, kind, provider_id, mime_type, sha256, filename)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
"""

_STORED = (
    "UPDATE media SET state = 'STORED', path = $2, size = $3, stored_at = now(), error_reason = NULL WHERE id = $1"
)
_FAILED = "UPDATE media SET state = 'FAILED', error_reason = $2 WHERE id = $1 AND state = 'PENDING'"

# Each file belongs to one message, of the person who uploaded it at this channel.
_ATTACH = """
UPDATE media d SET message_id = r.message_id
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) AS r (id, message_id, channel_id, uploaded_by)
WHERE d.id = r.id AND d.channel_id = r.channel_id AND d.uploaded_by = r.uploaded_by AND d.message_id IS NULL
"""


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """A file of a message that was just saved, with the job that brought it."""

    job: IncomingMessageJob
    media: MediaRef
    conversation: LockedConversation
    parent_id: uuid.UUID


async def fetch_files(connection: Connection, files: Sequence[IncomingFile]) -> list[Enqueue]:
    """A row and a job for each file, which is fetched while the person already waits for an answer."""
    if not files:
        return []
    ids = [new_id() for _ in files]
    await connection.execute(
        _INSERT_MEDIA,
        ids,
        [file.conversation.customer_id for file in files],
        [file.conversation.channel_id for file in files],
        [file.job.message_id for file in files],
        [file.media.kind for file in files],
        [file.media.provider_id for file in files],
        [file.media.mime_type for file in files],
        [file.media.sha256 for file in files],
        [file.media.filename for file in files],
    )
    return [_fetch(media_id, file) for media_id, file in zip(ids, files, strict=True)]


def _fetch(media_id: uuid.UUID, file: IncomingFile) -> Enqueue:
    if file.job.trace_id is None:
        raise ValueError("a received job must name its trace")
    return Enqueue(
        MediaFetchJob(
            customer_id=file.conversation.customer_id,
            trace_id=file.job.trace_id,
            conversation_id=file.conversation.id,
            message_id=file.job.message_id,
            media_id=media_id,
        ),
        file.conversation.priority,
        file.job.trace_id,
        parent_id=file.parent_id,
    )


async def attach_uploads(connection: Connection, saved: Sequence[tuple[IncomingMessageJob, uuid.UUID]]) -> None:
    """Files that were uploaded before their message (each with its channel) become its own."""
    files = [(upload, job, channel_id) for job, channel_id in saved for upload in job.uploads]
    if files:
        await connection.execute(
            _ATTACH,
            [upload for upload, _, _ in files],
            [job.message_id for _, job, _ in files],
            [channel_id for _, _, channel_id in files],
            [job.external_user_id for _, job, _ in files],
        )


async def keep_file(connection: Connection, run: Run, media_id: uuid.UUID, *, path: str, size: int) -> bool:
    """The file's bytes are under `path`: its job is done. False where another run had finished it."""
    if run.job_id not in await finish(connection, [run]):
        return False
    await connection.execute(_STORED, media_id, path, size)
    return True


async def fail_file(connection: Connection, media_id: uuid.UUID, reason: str) -> None:
    """The file will not be had."""
    await connection.execute(_FAILED, media_id, reason)

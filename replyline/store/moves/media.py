"""What becomes of a file: it is kept, and its job is done; it will not be had; or it was there before its message."""

import uuid
from collections.abc import Sequence

from replyline.jobs import IncomingMessageJob
from replyline.store.database import Connection
from replyline.store.moves.work import Run, finish

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

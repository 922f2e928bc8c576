"""What becomes of a file: it is kept, and its job is done; or it will not be had."""

import uuid

from replyline.store.database import Connection
from replyline.store.moves.work import Run, finish

_STORED = (
    "UPDATE media SET state = 'STORED', path = $2, size = $3, stored_at = now(), error_reason = NULL WHERE id = $1"
)
_FAILED = "UPDATE media SET state = 'FAILED', error_reason = $2 WHERE id = $1 AND state = 'PENDING'"


async def keep_file(connection: Connection, run: Run, media_id: uuid.UUID, *, path: str, size: int) -> bool:
    """The file's bytes are under `path`: its job is done. False where another run had finished it."""
    if run.job_id not in await finish(connection, [run]):
        return False
    await connection.execute(_STORED, media_id, path, size)
    return True


async def fail_file(connection: Connection, media_id: uuid.UUID, reason: str) -> None:
    """The file will not be had."""
    await connection.execute(_FAILED, media_id, reason)

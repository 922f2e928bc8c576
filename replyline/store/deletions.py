"""Deletions that outlast their rows: files of media, and sessions at gateways; triggers note them with the row's own deletion."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from replyline.store.database import Connection, Database, StoreBusy
from replyline.vault import Vault

# A try takes less than its claim: another process takes the row up again only if this one died.
_CLAIM_S = 120.0
_LONGEST_WAIT_S = 3600.0
_KEEP_TRYING_S = 30 * 86_400.0
_DEADLOCKS = 3


@dataclass(frozen=True, slots=True)
class SessionToDelete:
    """A session at a gateway whose channel `id` is gone."""

    id: uuid.UUID
    session: str
    gateway_url: str
    secrets_sealed: str | None = field(repr=False)
    tries: int

    def open_secrets(self, vault: Vault) -> dict[str, str]:
        """What the channel had.

        Raises:
            UnreadableSecret: they were sealed with a key that this deployment does not have.
        """
        if self.secrets_sealed is None:
            return {}
        return msgspec.json.decode(vault.open(self.secrets_sealed).encode(), type=dict[str, str])


async def delete_with_all(db: Database, statement: str, *values: object) -> bool:
    """Run a DELETE that reaches many tables and returns what it deleted; whether it deleted anything.

    What is at work on these rows takes locks in other orders: after a deadlock it is tried again, three times.
    """
    for _ in range(_DEADLOCKS):
        try:
            async with db.connection() as connection:
                return await connection.fetchval(statement, *values) is not None
        except StoreBusy:
            await asyncio.sleep(random.uniform(0.05, 0.2))
    async with db.connection() as connection:
        return await connection.fetchval(statement, *values) is not None


_CLAIM_FILES = """
UPDATE files_to_delete f
SET tries = f.tries + 1, try_at = now() + make_interval(secs => least($2 * 2.0 ^ least(f.tries, 20), $3))
FROM (SELECT path FROM files_to_delete WHERE try_at <= now() ORDER BY try_at LIMIT $1 FOR UPDATE SKIP LOCKED) due
WHERE f.path = due.path RETURNING f.path
"""
_CLAIM_SESSIONS = """
UPDATE sessions_to_delete s SET tries = s.tries + 1, try_at = now() + make_interval(secs => $2)
FROM (SELECT id FROM sessions_to_delete WHERE try_at <= now() ORDER BY try_at LIMIT $1 FOR UPDATE SKIP LOCKED) due
WHERE s.id = due.id RETURNING s.id, s.session, s.gateway_url, s.secrets_sealed, s.tries
"""
_POSTPONE_SESSION = """
UPDATE sessions_to_delete SET last_error = $2, try_at = now() + make_interval(secs => least(5 * 2.0 ^ least(tries, 20), $3))
WHERE id = $1
"""
_GIVE_UP_SESSIONS = """
DELETE FROM sessions_to_delete WHERE created_at < now() - make_interval(secs => $1) RETURNING session, last_error
"""


async def claim_files(db: Database, *, limit: int) -> Sequence[str]:
    """Where files are that are to be deleted; after two minutes they are tried again, then after twice as long, up to an hour."""
    async with db.connection() as connection:
        return [record["path"] for record in await connection.fetch(_CLAIM_FILES, limit, _CLAIM_S, _LONGEST_WAIT_S)]


async def files_deleted(db: Database, paths: Sequence[str]) -> None:
    """They are gone; those of a claim that are not named here are tried again."""
    async with db.connection() as connection:
        await connection.execute("DELETE FROM files_to_delete WHERE path = ANY($1::text[])", list(paths))


async def note_file(db: Database, path: str) -> None:
    """A file whose row went while it was written is to be deleted too."""
    async with db.connection() as connection:
        await connection.execute("INSERT INTO files_to_delete (path) VALUES ($1) ON CONFLICT DO NOTHING", path)


async def claim_sessions(db: Database, *, limit: int) -> Sequence[SessionToDelete]:
    """Sessions that gateways are to forget; who gets them has two minutes until they are given to somebody else."""
    async with db.connection() as connection:
        records = await connection.fetch(_CLAIM_SESSIONS, limit, _CLAIM_S)
    return [SessionToDelete(**dict(record)) for record in records]


async def session_deleted(db: Database, channel_id: uuid.UUID) -> None:
    """Its gateway has forgotten it."""
    async with db.connection() as connection:
        await connection.execute("DELETE FROM sessions_to_delete WHERE id = $1", channel_id)


async def postpone_session(db: Database, channel_id: uuid.UUID, error: str) -> None:
    """Its gateway did not forget it: 10 seconds later it is asked again, then each time after twice as long, up to an hour."""
    async with db.connection() as connection:
        await connection.execute(_POSTPONE_SESSION, channel_id, error, _LONGEST_WAIT_S)


async def give_up_sessions(connection: Connection) -> Sequence[tuple[str, str | None]]:
    """Sessions that no gateway has forgotten in 30 days, each with the last error; they are asked for no more."""
    records = await connection.fetch(_GIVE_UP_SESSIONS, _KEEP_TRYING_S)
    return [(record["session"], record["last_error"]) for record in records]

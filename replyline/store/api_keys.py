"""API keys: shown once, kept as a hash, found by it."""

import hashlib
import secrets
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from replyline.ids import new_id
from replyline.store import audit
from replyline.store.customer_deletions import STAYS
from replyline.store.database import Connection, Database

_PREFIX = "rk_"
_SHOWN_CHARS = 9

MOST_LIVE_KEYS = 100
"""How many keys of a customer may work at the same time."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: `key_prefix` is enough to recognise it, not to use it. `last_used_at` may be a minute old."""

    id: uuid.UUID
    customer_id: uuid.UUID
    name: str
    key_prefix: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whose key it is, and whether its use is to be noted: it was not within the last minute."""

    key_id: uuid.UUID
    customer_id: uuid.UUID
    unnoted: bool


class TooManyKeys(Exception):
    """The customer has as many live keys as one may have."""


_COLUMNS = "id, customer_id, name, key_prefix, created_at, last_used_at, revoked_at"
_LOCK_OWNER = f"SELECT id FROM customers c WHERE id = $1 AND {STAYS} FOR NO KEY UPDATE"  # noqa: S608  a constant
_COUNT_LIVE = "SELECT count(*) FROM api_keys WHERE customer_id = $1 AND revoked_at IS NULL"
_INSERT = f"""
INSERT INTO api_keys (id, customer_id, name, key_prefix, key_hash) VALUES ($1, $2, $3, $4, $5) RETURNING {_COLUMNS}
"""  # noqa: S608  the columns are the constant above
_LIST = f"""
SELECT {_COLUMNS} FROM api_keys WHERE customer_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3
"""  # noqa: S608  as above
_REVOKE = """
UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND customer_id = $2 AND revoked_at IS NULL RETURNING name
"""
_UNNOTED = "(last_used_at IS NULL OR last_used_at < now() - interval '1 minute')"
_FIND = f"""
SELECT id AS key_id, customer_id, {_UNNOTED} AS unnoted FROM api_keys WHERE key_hash = $1 AND revoked_at IS NULL
"""  # noqa: S608  as above
# In the order of their ids, so that two processes that note the same keys do not wait for each other in a circle.
_NOTE_USE = f"""
UPDATE api_keys SET last_used_at = now() WHERE id IN (
    SELECT id FROM api_keys WHERE id = ANY($1::uuid[]) AND {_UNNOTED} ORDER BY id FOR NO KEY UPDATE
)
"""  # noqa: S608  as above
_PURGE = """
DELETE FROM api_keys WHERE id IN (
    SELECT id FROM api_keys WHERE revoked_at < now() - make_interval(secs => $1) LIMIT $2
)
"""


async def create(
    db: Database, *, customer_id: uuid.UUID, name: str, actor: str = audit.OPERATOR
) -> tuple[ApiKey, str] | None:
    """Make a key; the second value is the key itself, which nobody can read again. None if there is no such customer.

    Raises:
        TooManyKeys: they have 100 live ones.
    """
    key = _PREFIX + secrets.token_urlsafe(32)
    async with db.transaction() as connection:
        if await connection.fetchval(_LOCK_OWNER, customer_id) is None:
            return None
        if await connection.fetchval(_COUNT_LIVE, customer_id) >= MOST_LIVE_KEYS:
            raise TooManyKeys(f"a customer has at most {MOST_LIVE_KEYS} live keys: revoke one that is not used")
        record = await connection.fetchrow(_INSERT, new_id(), customer_id, name, key[:_SHOWN_CHARS], hash_of(key))
        if record is None:
            raise LookupError("an inserted key was not returned")
        made = ApiKey(**dict(record))
        await _note(connection, made.id, made.name, customer_id=customer_id, actor=actor, action="api_key.created")
    return made, key


async def list_page(
    db: Database, *, customer_id: uuid.UUID, after: uuid.UUID | None = None, limit: int = 50
) -> Sequence[ApiKey]:
    """A page of the customer's keys, oldest first, after the one given; revoked ones too."""
    async with db.connection() as connection:
        return [ApiKey(**dict(record)) for record in await connection.fetch(_LIST, customer_id, after, limit)]


async def revoke(db: Database, key_id: uuid.UUID, *, customer_id: uuid.UUID, actor: str = audit.OPERATOR) -> bool:
    """Make the key useless; False where the customer has no such live key."""
    async with db.transaction() as connection:
        name: str | None = await connection.fetchval(_REVOKE, key_id, customer_id)
        if name is None:
            return False
        await _note(connection, key_id, name, customer_id=customer_id, actor=actor, action="api_key.revoked")
    return True


async def find(db: Database, key: str) -> KeyHolder | None:
    """Whose key it is; None where it is unknown or revoked."""
    if not key.startswith(_PREFIX):
        return None
    async with db.connection() as connection:
        record = await connection.fetchrow(_FIND, hash_of(key))
    return None if record is None else KeyHolder(**dict(record))


async def note_use(db: Database, key_ids: Collection[uuid.UUID]) -> None:
    """They were used just now; of a key whose use was noted within the last minute nothing is written."""
    async with db.connection() as connection:
        await connection.execute(_NOTE_USE, list(key_ids))


async def purge(connection: Connection, *, keep_s: float, limit: int = 5000) -> int:
    """Delete at most `limit` keys that were revoked so long ago, in seconds; returns how many went."""
    return int((await connection.execute(_PURGE, keep_s, limit)).rsplit(" ", 1)[-1])


def hash_of(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


async def _note(
    connection: Connection, key_id: uuid.UUID, name: str, *, customer_id: uuid.UUID, actor: str, action: str
) -> None:
    await audit.note(
        connection, customer_id=customer_id, actor=actor, action=action, subject_id=key_id, subject_name=name
    )

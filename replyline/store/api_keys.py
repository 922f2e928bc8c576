"""API keys: shown once, kept as a hash, found by it."""

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from replyline.ids import new_id
from replyline.store.database import Database
from replyline.store.recently import Recently

_PREFIX = "rk_"
_SHOWN_CHARS = 9


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: `key_prefix` is enough to recognise it, not to use it."""

    id: uuid.UUID
    customer_id: uuid.UUID
    name: str
    key_prefix: str
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whose key it is, and the priority (1, 3 or 5) that their plan buys."""

    customer_id: uuid.UUID
    priority: int


_COLUMNS = "id, customer_id, name, key_prefix, created_at, revoked_at"
_INSERT = f"""
INSERT INTO api_keys (id, customer_id, name, key_prefix, key_hash)
SELECT $1, u.id, $3, $4, $5 FROM customers u WHERE u.id = $2 RETURNING {_COLUMNS}
"""  # noqa: S608  the columns are the constant above
_LIST = f"SELECT {_COLUMNS} FROM api_keys WHERE customer_id = $1 ORDER BY id LIMIT 200"  # noqa: S608  as above
_REVOKE = """
UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND customer_id = $2 AND revoked_at IS NULL RETURNING id
"""
_FIND = """
SELECT k.customer_id, u.priority::int AS priority FROM api_keys k JOIN customers u ON u.id = k.customer_id
WHERE k.key_hash = $1 AND k.revoked_at IS NULL
"""


async def create(db: Database, *, customer_id: uuid.UUID, name: str) -> tuple[ApiKey, str] | None:
    """Make a key; the second value is the key itself, which nobody can read again. None where there is no such customer."""
    key = _PREFIX + secrets.token_urlsafe(32)
    async with db.connection() as connection:
        record = await connection.fetchrow(_INSERT, new_id(), customer_id, name, key[:_SHOWN_CHARS], _hash(key))
    return None if record is None else (ApiKey(**dict(record)), key)


async def list_all(db: Database, *, customer_id: uuid.UUID) -> Sequence[ApiKey]:
    """The customer's keys, oldest first, revoked ones too; 200 at most."""
    async with db.connection() as connection:
        return [ApiKey(**dict(record)) for record in await connection.fetch(_LIST, customer_id)]


async def revoke(db: Database, key_id: uuid.UUID, *, customer_id: uuid.UUID) -> bool:
    """Make the key useless; False where the customer has no such live key."""
    async with db.connection() as connection:
        return await connection.fetchval(_REVOKE, key_id, customer_id) is not None


async def find(db: Database, key: str) -> KeyHolder | None:
    """Whose key it is; None where it is unknown or revoked."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_FIND, _hash(key))
    return None if record is None else KeyHolder(**dict(record))


class KeyHolders:
    """Finds the holder of a key without a read for each request; a revoked key works up to 5 seconds longer."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._recently: Recently[bytes, KeyHolder] = Recently()

    async def find(self, key: str) -> KeyHolder | None:
        """Whose key it is; None where it is unknown or revoked."""
        if not key.startswith(_PREFIX):
            return None
        return await self._recently.get(_hash(key), lambda: find(self._db, key))


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()

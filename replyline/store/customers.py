"""Customers: who pays, how much, and so which plan and priority they have."""

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypedDict

import msgspec

from replyline.ids import new_id
from replyline.store import customer_deletions
from replyline.store.customer_deletions import STAYS
from replyline.store.database import Database, StoreUnavailable

_AT_ONCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Customer:
    """A business that pays us. Plan and priority (1, 3 or 5; lower runs first) follow from the price in US dollars."""

    id: uuid.UUID
    name: str
    monthly_price: Decimal
    plan: str
    priority: int
    created_at: datetime
    updated_at: datetime


class CustomerChanges(TypedDict, total=False):
    """What may be changed; what is left out stays."""

    name: str
    monthly_price: Decimal


_INSERT = "INSERT INTO customers (id, name, monthly_price) VALUES ($1, $2, $3) RETURNING *"
_LIST = f"SELECT * FROM customers c WHERE ($1::uuid IS NULL OR id > $1) AND {STAYS} ORDER BY id LIMIT $2"  # noqa: S608
_GET = f"SELECT * FROM customers c WHERE id = $1 AND {STAYS}"  # noqa: S608  a constant

# jsonb_populate_record keeps the row's own value of every column that the changes do not name.
_UPDATE = f"""
UPDATE customers c
SET (name, monthly_price) = (SELECT n.name, n.monthly_price FROM jsonb_populate_record(c, $2::jsonb) n), updated_at = now()
WHERE c.id = $1 AND {STAYS} RETURNING c.*
"""  # noqa: S608  a constant


async def create(db: Database, *, name: str, monthly_price: Decimal) -> Customer:
    """Add a customer; `monthly_price` is in US dollars and not negative."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_INSERT, new_id(), name, monthly_price)
    if record is None:
        raise LookupError("an inserted customer was not returned")
    return Customer(**dict(record))


async def list_page(db: Database, *, after: uuid.UUID | None = None, limit: int = 50) -> Sequence[Customer]:
    """A page of all customers, oldest first, after the one given."""
    async with db.connection() as connection:
        return [Customer(**dict(record)) for record in await connection.fetch(_LIST, after, limit)]


async def get(db: Database, *, customer_id: uuid.UUID) -> Customer | None:
    """The customer, or None if it does not exist."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, customer_id)
    return None if record is None else Customer(**dict(record))


async def update(db: Database, *, customer_id: uuid.UUID, changes: CustomerChanges) -> Customer | None:
    """Change the customer; None if it does not exist. A new plan counts for the jobs enqueued from now on."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_UPDATE, customer_id, msgspec.json.encode(changes).decode())
    return None if record is None else Customer(**dict(record))


async def delete(db: Database, *, customer_id: uuid.UUID) -> bool:
    """Delete the customer with everything of theirs; False where there is none.

    For everybody who asks they are gone when this returns, and with few rows they are. What takes more than about 2 seconds is
    the workers' (`replyline.store.customer_deletions`).
    """
    if not await customer_deletions.begin(db, customer_id):
        return False
    with contextlib.suppress(StoreUnavailable):  # it is written down: a worker goes on
        await customer_deletions.go_on(db, customer_id=customer_id, for_s=_AT_ONCE_S)
    return True

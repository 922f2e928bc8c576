"""Deleting a customer: at once for everybody who asks, and row by row in batches, however much there is of theirs."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from replyline.store.database import Connection, Database

BATCH = 1000
"""At most so many rows are deleted by one statement, beside what hangs on them (a message's files, an event's attempts)."""


STAYS = "NOT EXISTS (SELECT 1 FROM customer_deletions d WHERE d.customer_id = c.id)"
"""In a statement: the customer `c` is not being deleted."""


@dataclass(frozen=True, slots=True)
class CustomerDeletion:
    """A deletion that was asked for; it goes on where `finished_at` is None. `deleted_rows` are those deleted by themselves."""

    customer_id: uuid.UUID
    name: str
    requested_at: datetime
    deleted_rows: int
    finished_at: datetime | None


# Work first, so that what runs finds that it is gone; then what hangs on something else before that.
_TABLES = (
    "jobs",
    "dead_jobs",
    "webhook_attempts",
    "webhook_events",
    "usage_logs",
    "media",
    "messages",
    "conversations",
    "visitor_tokens",
    "visitors",
    "contact_identities",
    "contacts",
    "knowledge_chunks",
    "knowledge_documents",
    "parked_statuses",
    "parked_amendments",
    "unread_callbacks",
)

_BEGIN = """
INSERT INTO customer_deletions (customer_id, name) SELECT id, name FROM customers WHERE id = $1
ON CONFLICT DO NOTHING RETURNING customer_id
"""
# Nothing of theirs comes in or goes out any more: no key is known, no channel and no endpoint is open.
_CLOSE = (
    "DELETE FROM api_keys WHERE customer_id = $1",
    "UPDATE channels SET enabled = false, updated_at = now() WHERE customer_id = $1 AND enabled",
    "UPDATE webhook_endpoints SET enabled = false, updated_at = now() WHERE customer_id = $1 AND enabled",
)
_CLAIM = """
SELECT customer_id FROM customer_deletions WHERE finished_at IS NULL AND ($1::uuid IS NULL OR customer_id = $1)
ORDER BY requested_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
# What a move has locked just now is passed over, and found by the next pass.
_DELETE_SOME = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE customer_id = $1 LIMIT $2 FOR UPDATE SKIP LOCKED))
"""
_LEFT = "SELECT EXISTS (SELECT 1 FROM {table} WHERE customer_id = $1)"
_COUNT = "UPDATE customer_deletions SET deleted_rows = deleted_rows + $2 WHERE customer_id = $1"
_FINISH = "UPDATE customer_deletions SET finished_at = now() WHERE customer_id = $1"
_LIST = "SELECT * FROM customer_deletions ORDER BY requested_at DESC LIMIT $1"
_PURGE = "DELETE FROM customer_deletions WHERE finished_at < now() - make_interval(secs => $1)"


async def begin(db: Database, customer_id: uuid.UUID) -> bool:
    """From here on the customer is gone for everybody who asks; False where there is none, or their deletion goes on already."""
    async with db.transaction() as connection:
        if await connection.fetchval(_BEGIN, customer_id) is None:
            return False
        for statement in _CLOSE:
            await connection.execute(statement, customer_id)
    return True


async def go_on(db: Database, *, customer_id: uuid.UUID | None = None, for_s: float) -> Sequence[uuid.UUID] | None:
    """Delete in batches for about `for_s` seconds, at least one; whose deletion was finished, or None if nothing could be done.

    Each batch is a transaction of its own, so this can be interrupted at any time. One process works on a customer at a time, and
    half of its time.

    Raises:
        StoreBusy: what is at work on the rows kept them locked; to be tried again.
    """
    until = time.monotonic() + for_s
    finished: list[uuid.UUID] = []
    places: dict[uuid.UUID, int] = {}
    worked = False
    while not worked or time.monotonic() < until:
        began = time.monotonic()
        async with db.transaction() as connection:
            claimed: uuid.UUID | None = await connection.fetchval(_CLAIM, customer_id)
            if claimed is None:
                break
            place = await _delete_batch(connection, claimed, places.get(claimed, 0))
            if place is None and await _finish(connection, claimed):
                finished.append(claimed)
            elif place is None and claimed not in places:
                break  # a whole pass found only what others have locked
        worked = True
        if place is None:
            places.pop(claimed, None)
        else:
            places[claimed] = place
        await asyncio.sleep(min(time.monotonic() - began, 1.0))
    return finished if worked else None


async def _delete_batch(connection: Connection, customer_id: uuid.UUID, first: int) -> int | None:
    """Delete some rows of a table, beginning with the table of that place; its place, or None where nothing was found."""
    for place, table in enumerate(_TABLES[first:], first):
        done = await connection.execute(_DELETE_SOME.format(table=table), customer_id, BATCH)
        count = int(done.rsplit(" ", 1)[-1])
        if count:
            await connection.execute(_COUNT, customer_id, count)
            return place
    return None


async def _finish(connection: Connection, customer_id: uuid.UUID) -> bool:
    """Delete the customer; False where something of theirs is left: it was locked, or came since."""
    for table in _TABLES:
        if await connection.fetchval(_LEFT.format(table=table), customer_id):
            return False
    await connection.execute("DELETE FROM customers WHERE id = $1", customer_id)
    await connection.execute(_FINISH, customer_id)
    return True


async def list_newest(db: Database, *, limit: int = 50) -> Sequence[CustomerDeletion]:
    """Deletions, the newest first."""
    async with db.connection() as connection:
        return [CustomerDeletion(**dict(record)) for record in await connection.fetch(_LIST, limit)]


async def purge(connection: Connection, *, keep_s: float) -> int:
    """Forget deletions that were finished so long ago, in seconds; returns how many."""
    return int((await connection.execute(_PURGE, keep_s)).rsplit(" ", 1)[-1])

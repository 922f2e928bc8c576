"""Erasing what the partitions hold of customers that are gone, without an index by customer, which each finish would pay for."""

import uuid
from collections.abc import Sequence

from replyline.store.database import Connection, Database
from replyline.store.partitions import partitions

_PAGES_AT_ONCE = 2_000
_GONE = "SELECT customer_id FROM customers_to_erase ORDER BY gone_at LIMIT 100"
_PAGES = "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::bigint"
_DONE = "DELETE FROM customers_to_erase WHERE customer_id = ANY($1::uuid[])"


async def erase_gone_customers(database: Database, tables: Sequence[str], guard: Connection) -> int:
    """Delete the rows of customers that were deleted, some thousand pages at a time; returns how many rows went.

    `guard` is the connection that keeps this process alone in it (`partitions.alone`).

    A customer is deleted after all their jobs have ended (the deletion waits for each one's transaction), so no more rows come.

    Raises:
        StoreUnavailable: see there; it begins anew then.
    """
    async with database.connection() as connection:
        gone = [record["customer_id"] for record in await connection.fetch(_GONE)]
        names = [name for table in tables for name in await partitions(connection, table)] if gone else []
    erased = 0
    for name in names:
        async with database.connection() as connection:
            pages = await connection.fetchval(_PAGES, name)
        for start in range(0, pages, _PAGES_AT_ONCE):
            async with database.connection() as connection:
                erased += await _erase(connection, name, start, gone)
            await guard.execute("SELECT 1")
    if gone:
        async with database.connection() as connection:
            await connection.execute(_DONE, gone)
    return erased


async def _erase(connection: Connection, name: str, start: int, customer_ids: Sequence[uuid.UUID]) -> int:
    """A range of pages, which Postgres reads as such (a TID range scan)."""
    done = await connection.execute(
        f"DELETE FROM {name} WHERE ctid >= '({start},0)' AND ctid < '({start + _PAGES_AT_ONCE},0)'"  # noqa: S608
        " AND customer_id = ANY($1::uuid[])",
        customer_ids,
    )
    return int(done.rsplit(" ", 1)[-1])

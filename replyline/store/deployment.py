"""Which deployment of Replyline this database is the record of: what tells two that share a Redis apart."""

import asyncpg

from replyline.store.database import Database


async def deployment_id(database: Database) -> str | None:
    """The id that `replyline migrate` gave this database, for its whole life; None where it is not migrated.

    Raises:
        StoreUnavailable: Postgres does not answer.
    """
    try:
        async with database.connection() as connection:
            found: str | None = await connection.fetchval("SELECT id::text FROM deployment")
    except asyncpg.UndefinedTableError:
        return None
    return found

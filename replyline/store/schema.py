"""Whether Postgres can do what this version of Replyline needs of it: writable, and migrated far enough."""

from functools import cache
from pathlib import Path

import asyncpg

from replyline.store.database import Database, StoreUnavailable


class NotMigrated(Exception):
    """The tables are not there, or of an older version."""


_LOOK = """
SELECT pg_is_in_recovery() AS standby, current_setting('transaction_read_only') = 'on' AS read_only,
       (SELECT max(version_num) FROM alembic_version) AS version
"""


@cache
def needed_version() -> str:
    """The newest migration of this package, as '0003'."""
    found = (Path(__file__).parent / "migrations" / "versions").glob("[0-9][0-9][0-9][0-9]_*.py")
    return max(file.name[:4] for file in found)


async def check(database: Database) -> None:
    """Look once. A database that is migrated further than this version needs is fine: it is migrated before an upgrade.

    Raises:
        StoreUnavailable: it does not answer, takes no writes, or its disk was full a moment ago.
        NotMigrated: `replyline migrate` must be run.
    """
    needed = needed_version()
    try:
        async with database.connection() as connection:
            record = await connection.fetchrow(_LOOK)
    except asyncpg.UndefinedTableError as error:
        raise NotMigrated("the tables are not there: run `replyline migrate`") from error
    if record is None:
        raise StoreUnavailable("Postgres gave no answer")
    if record["standby"] or record["read_only"]:
        raise StoreUnavailable("Postgres is read-only")
    if (record["version"] or "") < needed:
        raise NotMigrated(f"the tables are of version {record['version']}, {needed} is needed: run `replyline migrate`")
    if database.was_full:
        raise StoreUnavailable("Postgres' disk is full")

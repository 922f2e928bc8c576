"""Tables of rows that only age out, one partition a day (UTC): days are made ahead, and dropped whole when they are old.

Locks (PostgreSQL documentation, "ALTER TABLE", and 13.3 "Explicit Locking"): ATTACH takes SHARE UPDATE EXCLUSIVE on the table,
which stops neither reads nor writes, and ACCESS EXCLUSIVE on its default partition, which is empty; DETACH takes ACCESS EXCLUSIVE
on the table. So each is a transaction of its own that waits for its locks for a tenth of a second at most: who queues behind it
waits no longer. DETACH CONCURRENTLY would wait less, but is refused where there is a default partition, and in a transaction, and
a pooler gives nothing else.
"""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from replyline.store.database import Connection, Database

DAYS_AHEAD = 3
"""So many days after today have their partitions: upkeep may be away so long before rows go to the default partition."""
_SHORTLY = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '5s'"
_UPKEEP = 0x75706B65  # "upke": one process at a time
_DAY_S = 86_400
_DELETED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A table by day of its column `by`. Rows are kept for `keep_s` seconds, and then a day or two until their day is dropped."""

    table: str
    by: str
    keep_s: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What a round of upkeep did: partitions made and dropped, rows deleted from default partitions."""

    made: Sequence[str]
    dropped: Sequence[str]
    deleted: int


class DaysMissing(Exception):
    """Today's rows are in a default partition, because nobody had made the partition of the day; the message says where."""


_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::text::regclass ORDER BY c.relname
"""
_LOCK = "SELECT pg_try_advisory_xact_lock($1)"


@asynccontextmanager
async def alone(database: Database) -> AsyncIterator["Connection | None"]:
    """The connection that keeps this process the one that does the upkeep until the end of the block; None if another does it.

    What takes long must ask it something now and then: Postgres ends a transaction in which nothing happens for a minute.
    """
    async with database.transaction() as guard:
        yield guard if await guard.fetchval(_LOCK, _UPKEEP) else None


async def keep(database: Database, tables: Sequence[Partitioned]) -> Kept:
    """Make the days ahead and drop the old ones.

    Raises:
        StoreBusy: a lock was not to be had; what was done before stays, and the rest is done the next time.
        DaysMissing: see there; everything was done all the same.
    """
    made: list[str] = []
    dropped: list[str] = []
    strayed: list[str] = []
    deleted = 0
    for table in tables:
        async with database.connection() as connection:
            now: datetime = await connection.fetchval("SELECT now()")
            there = await partitions(connection, table.table)
        made += await _make(database, table, there, now)
        dropped += await _drop(database, table, there, now)
        async with database.connection() as connection:
            deleted += await _delete_strayed(connection, table)
            if await _has_strayed(connection, table, now.astimezone(UTC).date()):
                strayed.append(f"{table.table}_default")
    if strayed:
        raise DaysMissing(f"rows of today are in {', '.join(strayed)}, where they cost more: was upkeep away for days?")
    return Kept(made, dropped, deleted)


async def partitions(connection: Connection, table: str) -> list[str]:
    """The names of a table's partitions, the oldest first, its default one among them."""
    return [record["relname"] for record in await connection.fetch(_PARTITIONS, table)]


def name_of(table: str, day: date) -> str:
    """The partition of a day."""
    return f"{table}_{day:%Y%m%d}"


def end_of(name: str) -> datetime | None:
    """When the day of a partition ends, or the days of one that holds what was there before; None for the default partition."""
    match = re.search(r"_(until_)?(\d{8})$", name)
    if match is None:
        return None
    day = datetime.strptime(match[2], "%Y%m%d").replace(tzinfo=UTC)
    return day if match[1] else day + timedelta(days=1)


# Every name in a statement below is a constant of ours with a date; rows and values are not.


async def _make(database: Database, table: Partitioned, there: Sequence[str], now: datetime) -> list[str]:
    before = max((end for name in there if "_until_" in name and (end := end_of(name)) is not None), default=None)
    today = now.astimezone(UTC).date()
    made = []
    for day in (today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)):
        name, start = name_of(table.table, day), datetime.combine(day, time(), UTC)
        if name in there or (before is not None and start < before):
            continue
        async with database.transaction() as connection:
            await connection.execute(_SHORTLY)
            if not await _has_strayed(connection, table, day):  # else the day's rows stay in the default partition
                await connection.execute(
                    f"CREATE TABLE {name} (LIKE {table.table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
                )
                await connection.execute(
                    f"ALTER TABLE {table.table} ATTACH PARTITION {name}"
                    f" FOR VALUES FROM ('{start.isoformat()}') TO ('{(start + timedelta(days=1)).isoformat()}')"
                )
                made.append(name)
    return made


async def _drop(database: Database, table: Partitioned, there: Sequence[str], now: datetime) -> list[str]:
    old = [
        name
        for name in there
        if (end := end_of(name)) is not None and end + timedelta(seconds=table.keep_s + _DAY_S) <= now
    ]
    for name in old:
        async with database.transaction() as connection:
            await connection.execute(_SHORTLY)
            await connection.execute(f"ALTER TABLE {table.table} DETACH PARTITION {name}")
            await connection.execute(f"DROP TABLE {name}")
    return old


async def _delete_strayed(connection: Connection, table: Partitioned) -> int:
    done = await connection.execute(
        f"DELETE FROM {table.table}_default WHERE ctid IN (SELECT ctid FROM {table.table}_default"  # noqa: S608
        f" WHERE {table.by} < now() - make_interval(secs => $1) LIMIT $2)",
        table.keep_s + _DAY_S,
        _DELETED_AT_ONCE,
    )
    return int(done.rsplit(" ", 1)[-1])


async def _has_strayed(connection: Connection, table: Partitioned, day: date) -> bool:
    start = datetime.combine(day, time(), UTC)
    return bool(
        await connection.fetchval(
            f"SELECT EXISTS (SELECT FROM {table.table}_default WHERE {table.by} >= $1 AND {table.by} < $2)",  # noqa: S608
            start,
            start + timedelta(days=1),
        )
    )

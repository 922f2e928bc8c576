"""Many rows quickly: what the product wrote for a few messages, copied as often as wanted by Postgres itself.

The rows are the product's own, in all its tables, with all its columns and indexes, whichever these are: ids, times and what else
must differ is changed the same way everywhere, so copies belong together as the originals do. Nothing is dropped meanwhile.
"""

# ruff: noqa: S608 - names of tables and columns come from the catalogue
import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from bench.pipeline.servers import Servers

_ROWS_A_STATEMENT = 400_000
_AT_ONCE = 2
_TIMEOUT_S = 6 * 3600.0

_TABLES = """
SELECT c.relname AS name FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1
"""
_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, NULL) AS kind,
       EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = a.attrelid AND a.attnum = ANY (i.indkey::int2[])) AS indexed
FROM pg_attribute a WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum
"""
# An id of a copy: its first 48 bits are milliseconds, as of the originals (RFC 9562, version 7), so that copies lie in the
# indexes as rows do that were written in the course of time; the rest is a hash of the original and the copy's number.
_COPY_ID = """
CREATE OR REPLACE FUNCTION bench.copy_id(id uuid, number bigint, step_ms float8) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT overlay(md5(id::text || number) PLACING lpad(to_hex(
        ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint - (number * step_ms)::bigint
    ), 12, '0') FROM 1 FOR 12)::uuid
$$
"""


@dataclass(frozen=True, slots=True)
class Originals:
    """The rows to be copied, kept in a schema: how many there are of each table, and what each column of a copy is."""

    schema: str
    rows: Mapping[str, int]
    columns: Mapping[str, Mapping[str, str]]


async def keep_originals(servers: Servers, schema: str, *, remove: bool = False) -> Originals:
    """Keep in `schema` what is in the tables, but for those that were filled when the database was furnished (customers …).

    With `remove` the rows are taken out of the tables.
    """
    connection = await asyncpg.connect(servers.database_url)
    try:
        fixed, fixed_ids = await _fixed(servers)
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS bench; {_COPY_ID}; CREATE SCHEMA {schema}")
        tables = [row["name"] for row in await connection.fetch(_TABLES) if row["name"] not in fixed]
        rows, columns = {}, {}
        for table in tables:
            count = await connection.fetchval(f"SELECT count(*) FROM {table}")
            if count:
                rows[table] = count
                await connection.execute(f"CREATE TABLE {schema}.{table} AS SELECT * FROM {table}")
                columns[table] = {
                    row["name"]: await _changed(connection, table, row, fixed_ids)
                    for row in await connection.fetch(_COLUMNS, table)
                }
        if remove:
            await connection.execute("SET session_replication_role = replica")
            for table in rows:
                await connection.execute(f"DELETE FROM {table}")
        return Originals(schema, rows, columns)
    finally:
        await connection.close()


async def copy(
    servers: Servers,
    originals: Originals,
    copies: int,
    *,
    over_s: float = 3600.0,
    instead: Mapping[str, str] | None = None,
    first: int = 1,
) -> float:
    """Write so many copies of every original; the seconds that it took.

    They are spread over the `over_s` seconds before the originals. `instead` gives columns of any table another value (SQL, in
    which `p` is the original and `n` the copy's number). Copies of an earlier call end where `first` begins.
    """
    if copies < 1:
        return 0.0
    began = time.perf_counter()
    step_ms = over_s * 1000 / copies
    turns = asyncio.Semaphore(_AT_ONCE)

    async def fill(table: str) -> None:
        values = {
            **originals.columns[table],
            **{k: v for k, v in (instead or {}).items() if k in originals.columns[table]},
        }
        into = f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(values.values())}"
        each = f"CROSS JOIN LATERAL (SELECT {step_ms}::float8 AS step_ms, * FROM {originals.schema}.{table}) p"
        async with turns:
            at_once = max(1, _ROWS_A_STATEMENT // originals.rows[table])
            await _fill(servers, (into, each), range(first, first + copies), at_once)

    # Without checkpoints in the middle; afterwards as it was.
    await servers.administer("ALTER SYSTEM SET max_wal_size = '16GB'")
    await servers.administer("SELECT pg_reload_conf()")
    await asyncio.gather(*(fill(table) for table in sorted(originals.rows, key=lambda name: -originals.rows[name])))
    await servers.administer("ALTER SYSTEM RESET max_wal_size")
    await servers.administer("SELECT pg_reload_conf()")
    await servers.administer("CHECKPOINT")
    return time.perf_counter() - began


async def _fill(servers: Servers, statement: tuple[str, str], numbers: range, at_once: int) -> None:
    into, each = statement
    connection = await asyncpg.connect(servers.database_url)
    try:
        # Foreign keys hold by how the copies are made, so they are not looked up row by row.
        await connection.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        # The oldest first, as it was written.
        for highest in range(numbers.stop - 1, numbers.start - 1, -at_once):
            lowest = max(numbers.start, highest - at_once + 1)
            series = f"FROM generate_series({highest}::bigint, {lowest}, -1) n"
            await connection.execute(f"{into} {series} {each}", timeout=_TIMEOUT_S)
    finally:
        await connection.close()


async def _fixed(servers: Servers) -> tuple[set[str], list[str]]:
    """The tables that are filled when a database is furnished, and all ids in them."""
    connection = await asyncpg.connect(servers.pristine_url)
    try:
        tables, ids = set(), []
        for row in await connection.fetch(_TABLES):
            if await connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {row['name']})"):
                tables.add(row["name"])
                columns = {column["name"]: column["kind"] for column in await connection.fetch(_COLUMNS, row["name"])}
                if columns.get("id") == "uuid":
                    ids += [str(found["id"]) for found in await connection.fetch(f"SELECT id FROM {row['name']}")]
        return tables, ids
    finally:
        await connection.close()


async def _changed(connection: asyncpg.Connection, table: str, column: asyncpg.Record, fixed_ids: Sequence[str]) -> str:
    """What a copy has in a column."""
    name, kind = column["name"], column["kind"]
    quoted = f'p."{name}"'
    if kind.startswith("timestamp"):
        return f"{quoted} - make_interval(secs => n * p.step_ms / 1000)"
    if kind == "uuid":
        others = f'SELECT EXISTS (SELECT 1 FROM {table} WHERE "{name}" <> ALL($1::uuid[]))'
        return f"bench.copy_id({quoted}, n, p.step_ms)" if await connection.fetchval(others, fixed_ids) else quoted
    # Of indexed words those that name something have digits (a number, an id), those that say what it is have none.
    names = f"""SELECT coalesce(bool_and("{name}" ~ '[0-9]'), false) FROM {table} WHERE "{name}" IS NOT NULL"""
    if kind == "text" and column["indexed"] and await connection.fetchval(names):
        return f"{quoted} || '~' || n"
    return quoted

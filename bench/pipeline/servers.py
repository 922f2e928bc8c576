"""A Valkey and a Postgres of a contender's own: what they used is what the contender used of them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis.asyncio

from bench.pipeline.cpu import tree_cpu_s
from replyline.embedded import EmbeddedPostgres, EmbeddedValkey

DATABASE = "bench"
_PRISTINE = "bench_pristine"

# pg_stat_statements is exact at once; the counters of pg_stat_database come up to ten seconds late from idle sessions.
_STATEMENTS = """
SELECT coalesce(sum(calls), 0)::bigint AS statements,
       coalesce(sum(calls) FILTER (WHERE query ILIKE 'begin%'), 0)::bigint AS transactions,
       coalesce(sum(shared_blks_hit + shared_blks_read), 0)::bigint AS buffers,
       coalesce(sum(wal_bytes), 0)::bigint AS wal_bytes
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database()
"""
_TOP = """
SELECT regexp_replace(query, '\\s+', ' ', 'g') AS query, calls, rows, total_exec_time AS ms,
       shared_blks_hit + shared_blks_read AS buffers
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database()
ORDER BY total_exec_time DESC LIMIT $1
"""
_RELATIONS = """
SELECT count(*), sum(pg_table_size(c.oid))::bigint AS tables, sum(pg_indexes_size(c.oid))::bigint AS indexes,
       sum(coalesce(s.n_dead_tup, 0))::bigint AS dead, sum(coalesce(s.n_live_tup, 0))::bigint AS live
FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a contender's servers have done so far."""

    valkey_cpu_s: float
    postgres_cpu_s: float
    scripts: int
    """Calls of EVALSHA, EVAL and FCALL."""
    commands: int
    """All commands of Valkey, those that scripts made excluded."""
    statements: int
    transactions: int
    """Explicit ones: calls of BEGIN."""
    buffers: int
    """8 KiB pages that statements looked at, found in memory or read."""
    wal_bytes: int

    def since(self, before: "Counts") -> "Counts":
        """The difference."""
        return Counts(*(getattr(self, one.name) - getattr(before, one.name) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of Postgres, all its calls together."""

    query: str
    calls: int
    rows: int
    ms: float
    buffers: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes and rows as they are now."""

    tables: int
    indexes: int
    dead_rows: int
    live_rows: int
    valkey: int


class Servers:
    """Both run in `folder`, with the settings that Replyline's embedded servers have: fsync on, append-only file."""

    def __init__(self, folder: Path, *, postgres_settings: Mapping[str, str] | None = None) -> None:
        folder.mkdir()
        folder.chmod(0o711)
        self._valkey = EmbeddedValkey(folder)
        more = {"shared_preload_libraries": "pg_stat_statements", **(postgres_settings or {})}
        self._postgres = EmbeddedPostgres(folder, more=more)
        self._pool: asyncpg.Connection | None = None

    async def __aenter__(self) -> Self:
        await asyncio.gather(self._valkey.start(), self._postgres.start())
        await self.administer(f"CREATE DATABASE {_PRISTINE}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._postgres.stop(), self._valkey.stop())

    @property
    def redis_url(self) -> str:
        """unix://…"""
        return self._valkey.url

    @property
    def database_url(self) -> str:
        """Of the database that the contender works in."""
        return self._named(DATABASE)

    @property
    def pristine_url(self) -> str:
        """Of the database that is furnished once; the one that is worked in is a copy of it."""
        return self._named(_PRISTINE)

    async def begin_anew(self) -> None:
        """Make the contender's database a fresh copy, and Valkey empty. Nothing may be connected."""
        await self.administer(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        await self.administer(f"CREATE DATABASE {DATABASE} TEMPLATE {_PRISTINE} STRATEGY FILE_COPY")
        await self.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        await self.empty_valkey()

    async def empty_valkey(self) -> None:
        """Remove all keys."""
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            await client.flushall()

    async def forbid_autovacuum(self) -> None:
        """Statistics stay as they are until somebody runs ANALYZE."""
        tables = await self.rows(
            "SELECT c.oid::regclass::text AS name FROM pg_class c WHERE c.relkind = 'r' "
            "AND c.relnamespace = 'public'::regnamespace"
        )
        for row in tables:
            await self.execute(f"ALTER TABLE {row['name']} SET (autovacuum_enabled = false)")

    async def administer(self, statement: str) -> None:
        """Run one statement in the database `postgres`."""
        await _execute(self._named("postgres"), statement)

    async def execute(self, statement: str, *, timeout_s: float = 3600) -> None:
        """Run statements in the contender's database."""
        await _execute(self.database_url, statement, timeout_s=timeout_s)

    async def rows(self, query: str, *given: object) -> list[asyncpg.Record]:
        """The rows of a query of the contender's database."""
        connection = await asyncpg.connect(self.database_url)
        try:
            found: list[asyncpg.Record] = await connection.fetch(query, *given, timeout=600)
            return found
        finally:
            await connection.close()

    async def counts(self) -> Counts:
        """What they have done and used."""
        (row,) = await self.rows(_STATEMENTS)
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            stats = await client.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
        scripts = sum(calls.get(name, 0) for name in ("evalsha", "eval", "fcall"))
        valkey_cpu_s, postgres_cpu_s = await asyncio.to_thread(self._cpu_s)
        return Counts(
            valkey_cpu_s,
            postgres_cpu_s,
            scripts,
            sum(calls.values()),
            row["statements"],
            row["transactions"],
            row["buffers"],
            row["wal_bytes"],
        )

    async def top_statements(self, most: int) -> list[Statement]:
        """Those that took the most time since `forget_statements`."""
        return [Statement(**dict(row)) for row in await self.rows(_TOP, most)]

    async def forget_statements(self) -> None:
        """Begin to count statements from 0."""
        await self.execute("SELECT pg_stat_statements_reset()")

    async def sizes(self) -> Sizes:
        """Sizes of all tables, their indexes, and of what is in Valkey's memory."""
        (row,) = await self.rows(_RELATIONS)
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            memory = await client.info("memory")
        return Sizes(row["tables"], row["indexes"], row["dead"], row["live"], int(memory["used_memory_dataset"]))

    def _cpu_s(self) -> tuple[float, float]:
        valkey, postgres = self._valkey.pid, self._postgres.pid
        if valkey is None or postgres is None:
            raise RuntimeError("a server has ended")
        return tree_cpu_s(valkey), tree_cpu_s(postgres)

    def _named(self, name: str) -> str:
        return urlunsplit(urlsplit(self._postgres.url)._replace(path=f"/{name}"))


async def _execute(url: str, statement: str, *, timeout_s: float = 120) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, timeout=timeout_s)
    finally:
        await connection.close()

"""Whether a statement of the hot path finds its rows by their keys, whatever the statistics say.

Every statement that the tests of this folder run on the hot path's connections is planned again here, on tables in which much
waits: with statistics of a moment in which little did, with none at all, and with right ones.
"""

import re
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import asyncpg
import msgspec

from replyline.store.database import Connection, Database
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, make_scene

_FEW, _MANY = 20, 4000
_MUCH_WAITS = (Path(__file__).parent / "much_waits.sql").read_text()
_TABLES = (
    "SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
)
_FORGET = """
DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace);
UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r';
"""
# A lookup by these alone may find a large part of a table.
_FEW_VALUES = frozenset(
    {
        "channel_id", "customer_id", "chatbot_id", "endpoint_id", "kind", "identity_kind", "state", "status", "queue",
        "direction", "run_at", "finished_at", "created_at", "health", "held_by",
    }
)  # fmt: skip
_SMALL = frozenset({"channels", "chatbots", "customers", "webhook_endpoints"})
_IS_PLANNED = re.compile(r"\b(FROM|INTO|UPDATE) \w")
_EQUALS = re.compile(r"\b(\w+) = (?!'|ANY \('\{)")


@dataclass(frozen=True, slots=True)
class Unbounded:
    """A part of a plan that reads more rows than its keys need."""

    statement: str
    statistics: str
    part: str

    def __str__(self) -> str:
        return f"{self.part}, with statistics {self.statistics}, in: {' '.join(self.statement.split())}"


class Plans:
    """A database in which much waits, and the statements that were planned there before."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._checked: set[str] = set()
        self._scene: Scene | None = None

    async def where_much_waits(self) -> tuple[str, Scene]:
        """The database's URL, and the customer's channel that all of it is of."""
        if self._scene is None:
            self._scene = await self._fill()
        return self._url, self._scene

    async def unbounded(self, statements: set[str]) -> list[Unbounded]:
        """What the statements that are new here would read without a bound."""
        new = sorted(statements - self._checked)
        self._checked |= statements
        if not new:
            return []
        await self.where_much_waits()
        async with _opened(self._url) as database, database.hot_connection() as connection:
            found = [part for statement in new for part in await _planned(connection, statement, "of little")]
            for statistics, made_by in (("none", _FORGET), ("right", "ANALYZE")):
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute(made_by)
                found += [part for statement in new for part in await _planned(connection, statement, statistics)]
                await transaction.rollback()
        return found

    async def _fill(self) -> Scene:
        async with _opened(self._url) as database:
            scene = await make_scene(database)
            await make_webhook_endpoint(database, scene.customer.id)
            whose = {"CUSTOMER": scene.customer.id, "CHATBOT": scene.chatbot.id, "CHANNEL": scene.channel.id}
            async with database.connection() as connection:
                for table in await connection.fetch(_TABLES):
                    await connection.execute(f"ALTER TABLE {table['name']} SET (autovacuum_enabled = off)")
                await connection.execute(_rows(1, _FEW, whose))
                await connection.execute("ANALYZE")
                await connection.execute(_rows(_FEW + 1, _MANY, whose))
            return scene


def _rows(first: int, last: int, whose: Mapping[str, uuid.UUID]) -> str:
    values = {"FIRST": str(first), "LAST": str(last), **{name: f"'{id_}'::uuid" for name, id_ in whose.items()}}
    return re.sub(r"(?<!:):([A-Z]+)", lambda found: values[found[1]], _MUCH_WAITS)


class _opened:
    def __init__(self, url: str) -> None:
        self._database = Database(url, pool_size=4)

    async def __aenter__(self) -> Database:
        await self._database.open()
        return self._database

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()


async def _planned(connection: Connection, statement: str, statistics: str) -> list[Unbounded]:
    await connection.execute(f"PREPARE planned AS {statement}")
    try:
        count = await connection.fetchval(
            "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'planned'"
        )
        values = f"({', '.join(['NULL'] * count)})" if count else ""
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE planned{values}")
    finally:
        await connection.execute("DEALLOCATE planned")
    (top,) = msgspec.json.decode(plan, type=list[dict[str, object]])
    return [
        Unbounded(statement, statistics, part)
        for part in _unbounded(cast("dict[str, object]", top["Plan"]), limited=False)
    ]


def _unbounded(node: dict[str, object], *, limited: bool) -> Iterator[str]:
    kind, table = str(node["Node Type"]), node.get("Relation Name")
    condition = str(node.get("Index Cond", ""))
    if (
        table is not None
        and table not in _SMALL
        and kind in {"Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Seq Scan", "Tid Scan"}
    ):
        condition = condition or " ".join(_conditions_below(node))
        if not limited and not _has_key(condition):
            yield f"{kind} on {table} by {condition or 'nothing'} (filter {node.get('Filter')})"
    # A limit bounds what is read in the order of an index, but not what a filter or a sort below it throws away.
    limits = kind == "Limit" or (limited and kind in {"LockRows", "Subquery Scan", "Append", "Merge Append"})
    for below in cast("Sequence[dict[str, object]]", node.get("Plans", ())):
        yield from _unbounded(below, limited=limits and "Filter" not in below)


def _conditions_below(node: dict[str, object]) -> Iterator[str]:
    for below in cast("Sequence[dict[str, object]]", node.get("Plans", ())):
        if str(below["Node Type"]) in {"Bitmap Index Scan", "BitmapOr", "BitmapAnd"}:
            yield str(below.get("Index Cond", ""))
            yield from _conditions_below(below)


def _has_key(condition: str) -> bool:
    """Whether one of its equalities is with a key of the batch, on a column that tells rows apart."""
    return any(column not in _FEW_VALUES for column in _EQUALS.findall(condition))


class Noting(Database):
    """A database that notes the statements of the hot path."""

    def __init__(self, url: str) -> None:
        super().__init__(url, pool_size=8)
        self.statements: set[str] = set()

    @asynccontextmanager
    async def hot_connection(self) -> AsyncIterator[Connection]:
        """See there."""
        async with super().hot_connection() as connection:
            with self._noting(connection):
                yield connection

    @asynccontextmanager
    async def hot_transaction(self) -> AsyncIterator[Connection]:
        """See there."""
        async with super().hot_transaction() as connection:
            with self._noting(connection):
                yield connection

    @contextmanager
    def _noting(self, connection: Connection) -> Iterator[None]:
        connection.add_query_logger(self._note)
        try:
            yield
        finally:
            connection.remove_query_logger(self._note)

    def _note(self, record: asyncpg.connection.LoggedQuery) -> None:
        if (
            _IS_PLANNED.match(record.query) and " pg_" not in record.query
        ):  # what the driver or a test asks of Postgres itself
            self.statements.add(record.query)

"""Group commit against a real Postgres: sharing, order, and a bad row that hurts only itself."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from replyline.ids import new_id
from replyline.store.database import Connection, Database, StoreUnavailable
from replyline.store.group_commit import GroupCommit
from replyline.store.outbox import NewJob, Outbox

_INSERT = "INSERT INTO customers (id, name, monthly_price) SELECT * FROM unnest($1::uuid[], $2::text[], $3::numeric[])"


class _Writer:
    """Inserts one customer a row and notes which rows shared a transaction."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.published: list[NewJob] = []

    def publish(self, outbox: Outbox) -> None:
        self.published.extend(outbox.jobs)

    async def write(self, connection: Connection, rows: Sequence[tuple[str, int]], outbox: Outbox) -> list[str]:
        self.batches.append([name for name, _ in rows])
        ids = [new_id() for _ in rows]
        await connection.execute(_INSERT, ids, [name for name, _ in rows], [price for _, price in rows])
        outbox.extend(NewJob(id_, "incoming-messages", "process-message", b"{}", 1) for id_ in ids)
        return [name for name, _ in rows]

    def commit(self, database: Database, *, size: int = 64) -> GroupCommit[tuple[str, int], str]:
        return GroupCommit(
            self.write,
            within=database.hot_transaction,
            limit=database.limit,
            key=lambda row: row[0].split("/", maxsplit=1)[0],
            publish=self.publish,
            size=size,
        )


async def _names(database: Database) -> list[str]:
    async with database.connection() as connection:
        return [record["name"] for record in await connection.fetch("SELECT name FROM customers ORDER BY id")]


async def test_rows_of_the_same_moment_share_transactions(database: Database) -> None:
    writer = _Writer()
    commit = writer.commit(database)
    await asyncio.gather(*(commit((f"c{number}", 1)) for number in range(200)))
    assert len(await _names(database)) == 200
    assert len(writer.batches) < 20


async def test_a_bad_row_hurts_only_itself(database: Database) -> None:
    writer = _Writer()
    commit = writer.commit(database)
    results = await asyncio.gather(
        *(commit((f"c{number}", -1 if number == 7 else 1)) for number in range(20)), return_exceptions=True
    )
    failed = [number for number, result in enumerate(results) if isinstance(result, BaseException)]
    assert failed == [7]
    assert isinstance(results[7], asyncpg.CheckViolationError)
    assert len(await _names(database)) == 19
    assert len(writer.published) == 19


async def test_rows_with_the_same_key_keep_their_order(database: Database) -> None:
    writer = _Writer()
    commit = writer.commit(database, size=5)
    wanted = [f"same/{number}" for number in range(40)]
    await asyncio.gather(*(commit((name, 1)) for name in wanted))
    assert await _names(database) == wanted


async def test_rows_of_one_identity_never_share_a_transaction(database: Database) -> None:
    writer = _Writer()
    commit = GroupCommit(
        writer.write,
        within=database.hot_transaction,
        limit=database.limit,
        key=lambda _row: "same",
        identity=lambda row: row[0],
        publish=writer.publish,
    )
    await asyncio.gather(*(commit((name, 1)) for name in ["a", "b", "a", "b", "c", "a"]))
    assert all(len(set(batch)) == len(batch) for batch in writer.batches)
    assert sorted(await _names(database)) == ["a", "a", "a", "b", "b", "c"]


async def test_a_row_whose_job_was_cancelled_before_its_turn_is_not_written(database: Database) -> None:
    writer = _Writer()
    commit = writer.commit(database, size=1)
    first = [asyncio.ensure_future(commit((f"same/{number}", 1))) for number in range(5)]
    first[-1].cancel()
    results = await asyncio.gather(*first, return_exceptions=True)
    assert isinstance(results[-1], asyncio.CancelledError)
    assert await _names(database) == [f"same/{number}" for number in range(4)]


async def test_an_absent_postgres_fails_every_row_and_publishes_nothing(database_url: str) -> None:
    writer = _Writer()
    commit = writer.commit(Database(database_url))
    results = await asyncio.gather(*(commit((f"c{number}", 1)) for number in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert writer.published == []


@pytest.mark.parametrize("rows", [1, 3])
async def test_what_is_published_was_committed(database: Database, rows: int) -> None:
    writer = _Writer()
    commit = writer.commit(database)
    await asyncio.gather(*(commit((f"c{number}", 1)) for number in range(rows)))
    async with database.connection() as connection:
        kept = {record["id"] for record in await connection.fetch("SELECT id FROM customers")}
    assert {job.id for job in writer.published} == kept

"""Upkeep: the days of the tables that only age out are made ahead and dropped whole, and nothing stops meanwhile."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from replyline.app import App, open_app
from replyline.store import customers
from replyline.store.database import Database, StoreBusy
from replyline.store.partitions import DAYS_AHEAD, DaysMissing, Partitioned, alone, end_of, keep, name_of, partitions
from replyline.worker.upkeep import Upkeep
from tests.running import settings_for
from tests.store.scene import Scene, make_scene
from tests.waiting import until

_DAY_S = 86_400
_TABLE = Partitioned("finished_jobs", "finished_at", 7 * _DAY_S)


@pytest.fixture
async def app(database: Database, database_url: str, valkey_url: str) -> AsyncIterator[App]:
    """An app whose upkeep only the test does."""
    async with open_app(settings_for(valkey_url, database_url)) as opened:
        yield opened
    async with database.connection() as connection:  # as other tests find it
        await connection.execute("TRUNCATE finished_jobs")
        for name in await partitions(connection, "finished_jobs"):
            if (end := end_of(name)) is not None and end < datetime.now(UTC):
                await connection.execute(f"DROP TABLE {name}")
    await keep(database, [_TABLE])


async def _days(database: Database) -> Sequence[str]:
    async with database.connection() as connection:
        return [name for name in await partitions(connection, "finished_jobs") if end_of(name) is not None]


async def _make_day(database: Database, day: date) -> str:
    name, end = name_of("finished_jobs", day), day + timedelta(days=1)
    async with database.connection() as connection:
        await connection.execute(
            f"CREATE TABLE {name} PARTITION OF finished_jobs FOR VALUES FROM ('{day}T00:00Z') TO ('{end}T00:00Z')"
        )
    return name


async def _drop_days(database: Database) -> None:
    for name in await _days(database):
        async with database.connection() as connection:
            await connection.execute(f"DROP TABLE {name}")


async def _finish(scene: Scene, text: str) -> uuid.UUID:
    accepted = await scene.accept(text)
    await scene.receive(accepted)
    return accepted.job_id


async def test_days_are_made_ahead_and_those_that_are_old_are_dropped_whole(app: App, database: Database) -> None:
    today = datetime.now(UTC).date()
    await _drop_days(database)
    kept, old = (
        await _make_day(database, today - timedelta(days=8)),
        await _make_day(database, today - timedelta(days=9)),
    )
    assert await Upkeep(app).keep() is False
    wanted = [name_of("finished_jobs", today + timedelta(days=ahead)) for ahead in range(DAYS_AHEAD + 1)]
    assert await _days(database) == [kept, *wanted]
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT to_regclass($1)", old) is None
        indexes = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = $1", wanted[-1])
        parents = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = 'finished_jobs'")
    assert len(indexes) == len(parents) == 4


async def test_one_process_at_a_time_does_the_upkeep(app: App, database: Database) -> None:
    await _drop_days(database)
    async with alone(database) as guard:
        assert guard is not None
        assert await Upkeep(app).keep() is False
        assert await _days(database) == []
    await Upkeep(app).keep()
    assert len(await _days(database)) == DAYS_AHEAD + 1


async def test_jobs_finish_while_no_day_is_there_and_health_says_so(app: App, database: Database) -> None:
    scene = await make_scene(database)
    await _drop_days(database)
    job_id = await _finish(scene, "hello")
    assert await scene.value("SELECT count(*) FROM finished_jobs_default WHERE id = $1", job_id) == 1
    upkeep = Upkeep(app)
    with pytest.raises(DaysMissing, match="finished_jobs_default"):
        await upkeep.keep()
    assert name_of("finished_jobs", datetime.now(UTC).date()) not in await _days(database)
    assert len(await _days(database)) == DAYS_AHEAD
    row = await scene.reads.job(job_id)
    assert row is not None
    assert row.state == "DONE"
    app.health.watch("upkeep", lambda: upkeep.trouble, vital=False)
    running = asyncio.create_task(upkeep.run())
    try:
        await until(lambda: upkeep.trouble)
        report = await app.health.report()
    finally:
        running.cancel()
    assert "finished_jobs_default" in report.parts["upkeep"]
    # What strayed ages out all the same.
    await scene.value("UPDATE finished_jobs SET finished_at = now() - interval '9 days'")
    assert (await keep(database, [_TABLE])).deleted == 1


async def test_upkeep_waits_for_no_lock_that_jobs_hold_for_long_and_tries_again(app: App, database: Database) -> None:
    old = await _make_day(database, datetime.now(UTC).date() - timedelta(days=20))
    scene = await make_scene(database)
    async with database.transaction() as reader:
        await reader.fetch("SELECT count(*) FROM finished_jobs")
        with pytest.raises(StoreBusy):
            await keep(database, [_TABLE])
        await _finish(scene, "goes on")
    kept = await keep(database, [_TABLE])
    assert old in kept.dropped


async def test_jobs_go_on_finishing_while_days_are_made_and_dropped(app: App, database: Database) -> None:
    today = datetime.now(UTC).date()
    scene = await make_scene(database)
    stop = asyncio.Event()
    finished: list[uuid.UUID] = []

    async def finish(sender: str) -> None:
        while not stop.is_set():
            accepted = await scene.accept("hello", sender=sender)
            await scene.receive(accepted)
            finished.append(accepted.job_id)

    busy = [asyncio.create_task(finish(f"s{number}")) for number in range(8)]
    future = [today + timedelta(days=ahead) for ahead in range(1, DAYS_AHEAD + 1)]
    for _ in range(10):
        for day in future:
            await _do(database, f"DROP TABLE IF EXISTS {name_of('finished_jobs', day)}")
        await _make_day(database, today - timedelta(days=30))
        async with asyncio.timeout(20):
            while True:
                try:
                    await keep(database, [_TABLE])
                    break
                except StoreBusy:
                    await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*busy)
    assert len(finished) > 20
    assert await scene.value("SELECT count(*) FROM finished_jobs WHERE id = ANY($1::uuid[])", finished) == len(finished)


async def test_what_a_deleted_customer_left_in_the_partitions_is_erased(app: App, database: Database) -> None:
    mine, theirs = await make_scene(database), await make_scene(database)
    for scene in (mine, theirs):
        for number in range(3):
            await _finish(scene, f"m{number}")
    dead = await mine.accept("dies")
    await mine.value("UPDATE jobs SET state = 'DEAD' WHERE id = $1", dead.job_id)
    assert await customers.delete(database, customer_id=mine.customer.id)
    assert await mine.value("SELECT count(*) FROM dead_jobs") == 0
    await Upkeep(app).keep()
    rows = await mine.fetch("SELECT customer_id, count(*) AS jobs FROM finished_jobs GROUP BY 1")
    assert [(row["customer_id"], row["jobs"]) for row in rows] == [(theirs.customer.id, 3)]
    assert await mine.value("SELECT count(*) FROM customers_to_erase") == 0


async def _do(database: Database, statement: str) -> None:
    """Again and again, as somebody by hand would, until the lock is had."""
    while True:
        try:
            async with database.connection() as connection:
                await connection.execute(statement)
            return
        except (StoreBusy, asyncpg.LockNotAvailableError):
            await asyncio.sleep(0.01)

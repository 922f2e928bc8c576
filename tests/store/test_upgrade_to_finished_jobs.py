"""The upgrade that takes what ended out of `jobs`: processes of the version before go on meanwhile, and nothing is lost."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from replyline.store.database import Database
from replyline.store.leftovers import drop_old_indexes, move_ended
from replyline.store.migrate import migrate
from replyline.store.timeline import find_message, trace
from tests.store.scene import make_scene

_BEFORE = "0012"
_DONE, _WAITING, _DEAD = 10_000, 1_000, 100

# As the version before finished, buried and received.
_FINISH = """
UPDATE jobs j SET state = 'DONE', finished_at = now(), worker = 'old', wait_reason = NULL, wait_since = NULL
WHERE j.id = ANY($1::uuid[]) AND j.state = 'WAITING' RETURNING j.id
"""
_BURY = """
UPDATE jobs j SET state = 'DEAD', reason = 'broken', finished_at = now() WHERE j.id = $1 AND j.state = 'WAITING' RETURNING j.id
"""
_INSERT = """
INSERT INTO jobs (id, queue, name, payload, state, customer_id, message_id, trace_id, dedupe_key, lane_key, priority, finished_at,
                  created_at, run_at)
SELECT gen_random_uuid(), 'incoming-messages', 'process-message', '{}', $1, $2, gen_random_uuid(), gen_random_uuid(), $1 || n,
       'lane' || n % 50, 5, CASE WHEN $1 <> 'WAITING' THEN now() - n % 6 * interval '1 day' END, now() - interval '6 days', now()
FROM generate_series(1, $3::int) AS n
"""


@pytest.fixture
async def old_url(database_url: str) -> AsyncIterator[str]:
    """A database of the version before."""
    name = f"old_{uuid.uuid4().hex[:8]}"
    server = await asyncpg.connect(database_url)
    await server.execute(f"CREATE DATABASE {name}")
    url = urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
    await asyncio.to_thread(migrate, url, to=_BEFORE)
    yield url
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


async def test_nothing_is_lost_while_the_version_before_still_ends_jobs(old_url: str) -> None:
    database = Database(old_url, pool_size=5)
    await database.open()
    try:
        scene = await make_scene(database)
        for state, count in (("DONE", _DONE), ("WAITING", _WAITING), ("DEAD", _DEAD)):
            await scene.value(_INSERT, state, scene.customer.id, count)
        stop = asyncio.Event()
        old = asyncio.create_task(_work_as_before(old_url, stop))
        await asyncio.to_thread(migrate, old_url)
        moved_while_it_works = await _move_all(database)
        stop.set()
        finished, buried = await old
        moved = moved_while_it_works + await _move_all(database)
        assert finished + buried > 100
        assert 0 < moved <= _DONE + finished
        ended = await scene.fetch("SELECT state, count(DISTINCT id) AS ids, count(*) AS jobs FROM all_jobs GROUP BY 1")
        assert {row["state"]: (row["ids"], row["jobs"]) for row in ended} == {
            "DONE": (_DONE + finished,) * 2,
            "DEAD": (_DEAD + buried,) * 2,
            "WAITING": (_WAITING - finished - buried,) * 2,
        }
        assert await scene.value("SELECT count(*) FROM jobs WHERE state <> 'WAITING'") == 0
        assert await scene.value("SELECT count(*) FROM finished_jobs_default") == 0
        await _check_that_it_is_found(database)
        assert len(await drop_old_indexes(database)) == 5
        assert await drop_old_indexes(database) == []
    finally:
        await database.close()


async def _work_as_before(url: str, stop: asyncio.Event) -> tuple[int, int]:
    """Finish jobs eight at a time and bury every ninth; how many."""
    connection = await asyncpg.connect(url)
    finished = buried = 0
    try:
        while not stop.is_set():
            rows = await connection.fetch("SELECT id FROM jobs WHERE state = 'WAITING' LIMIT 9")
            ids = [row["id"] for row in rows]
            if not ids or finished + buried > _WAITING * 0.8:
                await asyncio.sleep(0.02)
                continue
            finished += len(await connection.fetch(_FINISH, ids[:8]))
            buried += len(await connection.fetch(_BURY, ids[-1]))
            await asyncio.sleep(0.005)
    finally:
        await connection.close()
    return finished, buried


async def _move_all(database: Database) -> int:
    moved = 0
    while True:
        async with database.connection() as connection:
            step = await move_ended(connection, limit=700)
        if step == 0:
            return moved
        moved += step


async def _check_that_it_is_found(database: Database) -> None:
    """By the door, by the timeline and by an operator's search, whatever became of it."""
    scene = await make_scene(database)
    async with database.connection() as connection:
        rows = await connection.fetch(
            "(SELECT * FROM all_jobs WHERE state = 'DONE' LIMIT 3)"
            " UNION ALL (SELECT * FROM all_jobs WHERE state = 'DEAD' LIMIT 3)"
            " UNION ALL (SELECT * FROM all_jobs WHERE state = 'WAITING' LIMIT 3)"
        )
    for row in rows:
        again = await scene.moves.accept(replace(scene.row("again"), dedupe_key=row["dedupe_key"]))
        assert (again.duplicate, again.job_id, again.message_id) == (True, row["id"], row["message_id"])
        assert await find_message(database, f"{row['id']}-0") == row["message_id"]
        if row["state"] != "DONE":
            timeline = await trace(database, row["message_id"], customer_id=row["customer_id"])
            assert timeline is not None
            assert [(job.id, job.state) for job in timeline.jobs] == [(row["id"], row["state"])]

"""What could make a send go out twice or never: Redis and Postgres fail around it, sends are slow and statuses come late."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from replyline.jobs import QUEUE_NAMES
from tests.chaos.town import Town, lost_and_doubled, people
from tests.waiting import until

pytestmark = pytest.mark.chaos

_STATUS = '"statuses"'


@asynccontextmanager
async def _late_statuses(
    *, sends_take_s: float, statuses_after_s: float, reconcile_after_s: float
) -> AsyncIterator[Town]:
    """A town in which a double is seen: sends take a while, and what became of them is told late, but in time."""
    async with Town(settings={"REPLYLINE_RECONCILE_AFTER_S": f"{reconcile_after_s}"}) as town:
        await town.fault("whatsapp_cloud", kind="slow", seconds=sends_take_s, match={"contains": "Echo"})
        await town.fault("whatsapp_cloud", kind="callback_delay", seconds=statuses_after_s, match={"contains": _STATUS})
        yield town


async def test_redis_refuses_writes_but_answers_reads(full: bool) -> None:
    async with _late_statuses(sends_take_s=0.5, statuses_after_s=2, reconcile_after_s=6) as town:
        town.start_worker("one")
        town.start_worker("two")
        wrote = people(400 if full else 60)
        writing = await town.write_to_the_middle(wrote)
        await town.redis("CONFIG", "SET", "maxmemory", "1")
        refusing_since = asyncio.get_running_loop().time()
        # Longer than the sweeper's grace: jobs that the publishers still hold look lost to it.
        await until(lambda: asyncio.get_running_loop().time() - refusing_since > (45 if full else 5), timeout_s=60)
        await town.redis("CONFIG", "SET", "maxmemory", "0")
        await writing
        await town.until_settled()
        await _assert_each_once(town, wrote)


async def test_postgres_locks_conversations_while_their_sends_are_settled(full: bool) -> None:
    async with _late_statuses(sends_take_s=1, statuses_after_s=7, reconcile_after_s=9) as town:
        town.start_worker()
        wrote = people(40 if full else 8)
        await town.write(wrote)
        await until(lambda: _seen(town, len(wrote)), timeout_s=30)
        locking = await asyncpg.connect(town.postgres.url)
        transaction = locking.transaction()
        await transaction.start()
        await locking.execute("SELECT 1 FROM conversations FOR UPDATE")
        # Runs end in `settle`, and the next ones find sends of which nobody has said how they ended.
        await until(lambda: _unknown(town), timeout_s=60)
        await transaction.rollback()
        await locking.close()
        await town.until_settled()
        await _assert_each_once(town, wrote)


async def test_redis_comes_back_with_an_older_state(full: bool) -> None:
    async with _late_statuses(sends_take_s=1, statuses_after_s=4, reconcile_after_s=7) as town:
        town.start_worker()
        wrote = people(90 if full else 30)
        await town.write(wrote)
        await until(lambda: _backlog(town, len(wrote) // 2), timeout_s=60)
        folder = Path(town.valkey.folder)
        older = folder.parent / "older"
        before = await town.count_seen()
        await _flushed_to_disk(town)
        shutil.copytree(folder / "appendonlydir", older)
        await until(lambda: _seen(town, before + 8), timeout_s=30)
        town.valkey.kill()
        shutil.rmtree(folder / "appendonlydir")
        shutil.copytree(older, folder / "appendonlydir")
        await town.valkey.restart()
        await town.until_settled()
        await _assert_each_once(town, wrote)


async def test_redis_evicts_what_it_likes(full: bool) -> None:
    async with Town() as town:
        town.start_worker()
        wrote = people(300 if full else 60)
        writing = await town.write_to_the_middle(wrote)
        await town.redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        used = await _used_memory(town)
        for share in (0.9, 0.8, 0.7):
            await town.redis("CONFIG", "SET", "maxmemory", str(int(used * share)))
        await town.redis("CONFIG", "SET", "maxmemory", "0")
        await writing
        await town.until_settled()
        await _assert_each_once(town, wrote)


async def test_the_hashes_of_jobs_are_deleted(full: bool) -> None:
    async with Town() as town:
        town.start_worker()
        wrote = people(300 if full else 60)
        writing = await town.write_to_the_middle(wrote)
        for queue in QUEUE_NAMES:
            for key in await town.redis("KEYS", f"bull:{queue}:????????-*"):
                await town.redis("DEL", key)
        await writing
        await town.until_settled()
        await _assert_each_once(town, wrote)


async def _assert_each_once(town: Town, wrote: dict[str, list[str]]) -> None:
    lost, doubled = lost_and_doubled(wrote, await town.seen())
    assert (lost, doubled, await town.dead()) == ([], [], [])
    stuck = await town.rows("SELECT id FROM messages WHERE status IN ('QUEUED', 'SENDING', 'UNKNOWN')")
    lanes = await town.rows("SELECT id FROM conversations WHERE lane_length <> 0")
    assert (stuck, lanes) == ([], [])


async def _seen(town: Town, count: int) -> bool:
    return await town.count_seen() >= count


async def _unknown(town: Town) -> bool:
    rows = await town.rows("SELECT count(*) AS n FROM messages WHERE status = 'UNKNOWN'")
    return bool(rows[0]["n"])


async def _backlog(town: Town, count: int) -> bool:
    rows = await town.rows(
        "SELECT count(*) AS n FROM all_jobs WHERE queue = 'whatsapp-cloud-send' AND state = 'WAITING'"
    )
    return bool(rows[0]["n"] >= count)


async def _flushed_to_disk(town: Town) -> None:
    """Valkey writes its file every second; a command that waits for it makes sure that what was said until now is there."""
    await town.redis("WAITAOF", "1", "0", "5000")


async def _used_memory(town: Town) -> int:
    async with redis.asyncio.Redis.from_url(town.valkey.url) as client:
        return int((await client.info("memory"))["used_memory"])

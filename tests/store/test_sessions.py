"""No session state stays on a connection that goes back to the pool: it is given to the next one without a reset."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from replyline.store.database import Connection, Database, StoreBusy
from tests.store.scene import make_scene

_STATE = """
SELECT 'setting ' || name AS what FROM pg_settings WHERE source = 'session' AND setting IS DISTINCT FROM reset_val
UNION ALL SELECT 'lock ' || locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
UNION ALL SELECT 'temporary table ' || relname FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid)
UNION ALL SELECT 'channel ' || pg_listening_channels()
UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
"""
_HOT = 6
_OTHERS = 8


async def _left_behind(database: Database) -> tuple[list[str], set[int]]:
    """What is left on any connection of either pool, and how many connections were looked at."""
    async with AsyncExitStack() as stack:
        connections: list[Connection] = [
            await stack.enter_async_context(database.hot_connection()) for _ in range(_HOT)
        ] + [await stack.enter_async_context(database.connection()) for _ in range(_OTHERS)]
        found = [record["what"] for connection in connections for record in await connection.fetch(_STATE)]
        return found, {await connection.fetchval("SELECT pg_backend_pid()") for connection in connections}


async def test_no_state_is_left_on_any_connection(database: Database) -> None:
    scene = await make_scene(database)
    await asyncio.gather(
        *(scene.hear("hello", sender=f"person-{number}", external_id=f"in-{number}") for number in range(20))
    )
    await scene.fetch("DELETE FROM jobs")
    await scene.say("how are you?", "well")
    await scene.route()
    await scene.send("wamid.1")
    await scene.report("wamid.1", "READ")
    await scene.fall_ill("token_expired")
    await scene.get_well()
    found, sessions = await _left_behind(database)
    assert found == []
    assert len(sessions) == _HOT + _OTHERS


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("hello")
    async with database.transaction() as holder:
        await holder.execute("SELECT 1 FROM conversations FOR UPDATE")
        accepted = await scene.accept("and again")
        for _ in range(2):  # the second one alone, with a shorter lock_timeout
            with pytest.raises(StoreBusy):
                await scene.receive(accepted)
    found, _ = await _left_behind(database)
    assert found == []
    async with database.hot_connection() as connection:
        assert await connection.fetchval("SHOW lock_timeout") == "1s"
        assert await connection.fetchval("SHOW plan_cache_mode") == "force_generic_plan"
    async with database.connection() as connection:
        assert await connection.fetchval("SHOW plan_cache_mode") == "auto"

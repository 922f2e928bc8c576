"""What an orchestrator and a monitor are told."""

import asyncio
import re
import time
from pathlib import Path

import asyncpg

from replyline.embedded import EmbeddedValkey
from replyline.ids import new_id
from replyline.store.outbox import NewJob, Outbox
from replyline.web.scrapes import Scrapes
from tests.proxy import FaultProxy
from tests.waiting import until
from tests.web.conftest import Door, Serve, free_port

_WELL = {"status": "ready", "postgres": "ok", "redis": "ok", "publication": "ok", "tasks": "ok", "external": "ok"}


async def _until_ready_says(door: Door, status: int, **parts: str) -> dict[str, object]:
    """Ask until that is the answer; `parts` are patterns of what is said."""

    async def said() -> dict[str, object] | None:
        ready = await door.call("GET", "/health/ready")
        fits = all(re.search(pattern, str(ready.json[part])) for part, pattern in parts.items())
        return ready.json if ready.status == status and fits else None

    found = await until(said, timeout_s=20, what=f"{status} {parts}")
    assert found is not None
    return found


async def test_a_door_where_all_is_well_is_ready(door: Door) -> None:
    assert await _until_ready_says(door, 200) == _WELL
    assert (await door.call("GET", "/health/live")).status == 200


async def test_a_door_without_redis_is_ready_for_a_while_and_says_so(serve: Serve) -> None:
    async with serve(redis_url=f"redis://127.0.0.1:{free_port()}/0") as door:
        said = await _until_ready_says(door, 200, redis="cannot connect")
        assert said == _WELL | {"redis": said["redis"]}


async def test_a_door_without_redis_for_long_is_not_ready(serve: Serve) -> None:
    async with serve(redis_url=f"redis://127.0.0.1:{free_port()}/0", not_ready_after_s=1) as door:
        await _until_ready_says(door, 503, redis="cannot connect", postgres="^ok$")


async def test_a_door_whose_jobs_do_not_get_into_redis_is_not_ready(serve: Serve, tmp_path: Path) -> None:
    valkey = EmbeddedValkey(tmp_path)
    await valkey.start()
    async with serve(redis_url=valkey.url, not_ready_after_s=1) as door:
        await _until_ready_says(door, 200)
        await door.app.broker.command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        outbox = Outbox()
        outbox.extend([NewJob(new_id(), "ai-processing", "job", b"{}", 3)])
        door.app.publisher.publish(outbox)
        await _until_ready_says(door, 503, publication="1 jobs wait for Redis.*NOPERM", redis="^ok$")
        assert b"replyline_unpublished_jobs 1.0" in (await door.call("GET", "/metrics")).body
        await door.app.broker.command("ACL", "SETUSER", "default", "+@all")
        assert await _until_ready_says(door, 200) == _WELL
    await valkey.stop()


async def test_a_redis_that_became_a_replica_is_not_ok_though_it_answers(serve: Serve, tmp_path: Path) -> None:
    valkey = EmbeddedValkey(tmp_path)
    await valkey.start()
    async with serve(redis_url=valkey.url, not_ready_after_s=1) as door:
        await _until_ready_says(door, 200)
        await door.app.broker.command("REPLICAOF", "127.0.0.1", str(free_port()))
        await _until_ready_says(door, 503, redis="(?i)read.?only|cannot connect")
        assert b"replyline_redis_up 0.0" in (await door.call("GET", "/metrics")).body
    await valkey.stop()


async def test_a_door_without_postgres_is_not_ready_but_lives(serve: Serve) -> None:
    async with serve() as door:
        await door.app.database.close()
        await _until_ready_says(door, 503, postgres="not open", redis="^ok$")
        assert (await door.call("GET", "/health/live")).status == 200
        assert b"replyline_postgres_up 0.0" in (await door.call("GET", "/metrics")).body


async def test_a_door_whose_database_is_not_migrated_says_what_to_run(serve: Serve, database_url: str) -> None:
    other = database_url.replace("/test_", "/unmigrated_", 1)
    name = other.partition("?")[0].rpartition("/")[2]
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        async with serve(database_url=other) as door:
            await _until_ready_says(door, 503, postgres="run `replyline migrate`")
            older = await asyncpg.connect(other)
            await older.execute(
                "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('0002')"
            )
            await _until_ready_says(door, 503, postgres="of version 0002, .* run `replyline migrate`")
            await older.execute("UPDATE alembic_version SET version_num = '9999'")
            await _until_ready_says(door, 200)
            await older.close()
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


async def test_a_door_whose_postgres_is_read_only_is_not_ready(serve: Serve, database_url: str) -> None:
    url = f"{database_url}&default_transaction_read_only=on"
    async with serve(database_url=url) as door:
        await _until_ready_says(door, 503, postgres="read-only")


async def test_a_door_whose_background_task_keeps_failing_is_not_ready(door: Door) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    failing = door.app.supervisor.start("sorting", fail, vital=False)
    await _until_ready_says(door, 503, tasks="sorting failed .* ValueError: broken")
    await failing.stop()
    await _until_ready_says(door, 200)


async def test_ready_is_answered_at_once_though_both_servers_hang(
    serve: Serve, database_url: str, valkey_url: str
) -> None:
    async with (
        FaultProxy(database_url) as postgres,
        FaultProxy(valkey_url) as redis,
        serve(database_url=postgres.url(), redis_url=redis.url(), not_ready_after_s=1) as door,
    ):
        await _until_ready_says(door, 200)
        postgres.freeze()
        redis.freeze()
        took = []

        async def hang_is_seen() -> bool:
            began = time.monotonic()
            ready = await door.call("GET", "/health/ready")
            took.append(time.monotonic() - began)
            return ready.status == 503 and "no answer" in f"{ready.json['postgres']}" and ready.json["redis"] != "ok"

        await until(hang_is_seen, timeout_s=20)
        assert sorted(took)[len(took) // 2] < 0.5
        postgres.thaw()
        redis.thaw()
        await until(lambda: _is_ready(door), timeout_s=40)


async def _is_ready(door: Door) -> bool:
    return (await door.call("GET", "/health/ready")).status == 200


async def test_metrics_are_there_with_and_without_postgres(serve: Serve) -> None:
    async with serve() as door:
        with_it = await door.call("GET", "/metrics")
        await door.app.database.close()
        door.api.state.scrapes = Scrapes(door.app)  # what was made a moment ago would be shown again
        without = await door.call("GET", "/metrics")
    for answer in (with_it, without):
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b'replyline_jobs{queue="incoming-messages",state="waiting"}' in answer.body


async def test_metrics_are_read_from_the_stores_once_however_many_ask(serve: Serve) -> None:
    """Failed before: every call read all queues, and 300 of them made every other request wait."""

    async def commands(door: Door) -> int:
        info = await door.app.broker.command("INFO", "commandstats")
        assert isinstance(info, bytes)
        return sum(int(found) for found in re.findall(rb"cmdstat_(?:zcard|llen):calls=(\d+)", info))

    async with serve() as door:
        before = await commands(door)
        answers = await asyncio.gather(*(door.call("GET", "/metrics") for _ in range(50)))
        one = await commands(door) - before
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert 0 < one < 200, "a look at seven queues, and not fifty"
        door.api.state.scrapes = Scrapes(door.app, fresh_s=0)
        await door.call("GET", "/metrics")
        assert await commands(door) >= before + 2 * one, "five seconds later they are read again"


async def test_the_reference_shows_every_route_and_loads_nothing(door: Door) -> None:
    page, description = await asyncio.gather(door.call("GET", "/docs"), door.call("GET", "/openapi.json"))
    assert (page.status, description.status) == (200, 200)
    text = page.body.decode()
    paths = description.json["paths"]
    assert isinstance(paths, dict)
    assert "/v1/messages/{message_id}/timeline" in paths
    assert all(path in text for path in paths)
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text


async def test_the_guide_shows_every_route(door: Door) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")
    shown = re.sub(r"\$[A-Z_]+", "$", guide)
    paths = (await door.call("GET", "/openapi.json")).json["paths"]
    assert isinstance(paths, dict)
    missing = [
        path
        for path in paths
        if re.sub(r"\{[a-z_]+\}", "$", path).replace("/queues/$", "/queues/ai-processing") not in shown
    ]
    assert missing == []

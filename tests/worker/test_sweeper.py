"""The sweeper: what BullMQ does not hold is published again, what it holds is left alone."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replyline.app import App, open_app
from replyline.broker import BrokerUnavailable, CommandRefused
from replyline.embedded import EmbeddedValkey
from replyline.ids import new_id
from replyline.jobs import IncomingMessageJob
from replyline.store.database import Database
from replyline.store.outbox import Enqueue, Outbox, insert_jobs
from replyline.worker.sweeper import Sweeper
from tests.make import make_channel, make_chatbot, make_customer
from tests.running import settings_for
from tests.waiting import until


@asynccontextmanager
async def _own_valkey(folder: Path) -> AsyncIterator[EmbeddedValkey]:
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    try:
        yield valkey
    finally:
        await valkey.stop()


def _message(chatbot_id: uuid.UUID, number: int = 0) -> IncomingMessageJob:
    return IncomingMessageJob(chatbot_id=chatbot_id, external_user_id=f"u{number}", content="x", channel="WIDGET")


async def _accept(app: App, database: Database, count: int) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_channel(database, chatbot)
    for number in range(count):
        await app.accept(_message(chatbot.id, number))


async def _accepted(app: App, database: Database, count: int) -> None:
    await _accept(app, database, count)

    async def published() -> bool:
        return await _waiting(app) == count

    await until(published)


async def _waiting(app: App) -> int:
    return (await app.broker.counts("incoming-messages")).prioritized


async def test_jobs_that_a_wiped_redis_lost_are_published_again_at_once(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with open_app(settings_for(valkey_url, database_url)) as app:
        sweeper = Sweeper(app)
        assert await sweeper.sweep() == 0
        await _accepted(app, database, 1200)
        async with database.connection() as connection:
            await connection.execute("UPDATE jobs SET run_at = now() - interval '2 s'")
        await app.broker.command("FLUSHDB")
        assert await sweeper.sweep() == 1200

        async def back() -> bool:
            return await _waiting(app) == 1200

        await until(back)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM all_jobs WHERE generation = 1") == 1200


async def test_jobs_that_wait_in_redis_are_left_alone(database: Database, database_url: str, valkey_url: str) -> None:
    async with open_app(settings_for(valkey_url, database_url, sweep_grace_s=0)) as app:
        sweeper = Sweeper(app)
        await sweeper.sweep()
        await _accepted(app, database, 20)
        assert await sweeper.sweep() == 0
        assert await _waiting(app) == 20


async def test_a_single_job_that_was_never_published_is_found_after_its_grace(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with open_app(settings_for(valkey_url, database_url, sweep_grace_s=5)) as app:
        sweeper = Sweeper(app)
        await sweeper.sweep()
        await _accepted(app, database, 5)
        async with database.connection() as connection:
            lost = await connection.fetchval("SELECT id FROM all_jobs ORDER BY id OFFSET 2 LIMIT 1")
        await app.broker.remove("incoming-messages", f"{lost}-0")
        assert await sweeper.sweep() == 0, "its publisher has the grace to do it"
        async with database.connection() as connection:
            await connection.execute("UPDATE jobs SET run_at = now() - interval '6 s'")
        assert await sweeper.sweep() == 1
        await until(lambda: not app.publisher.unpublished)
        assert await app.broker.states("incoming-messages", [f"{lost}-1"]) == ["prioritized"]


async def _make_due(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("UPDATE jobs SET run_at = now() - interval '1 minute'")


async def _generations(database: Database) -> list[int]:
    async with database.connection() as connection:
        return [row["generation"] for row in await connection.fetch("SELECT generation FROM all_jobs ORDER BY id")]


async def test_jobs_that_our_own_publisher_still_holds_are_not_lost(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    async with _own_valkey(tmp_path) as valkey, open_app(settings_for(valkey.url, database_url)) as app:
        sweeper = Sweeper(app)
        await sweeper.sweep()
        await app.broker.command("SET", "bull:incoming-messages:prioritized", "not a sorted set")
        await _accept(app, database, 5)
        await until(lambda: app.publisher.trouble(after_s=0.1))
        await _make_due(database)
        assert await sweeper.sweep() == 0
        assert await _generations(database) == [0] * 5
        await app.broker.command("DEL", "bull:incoming-messages:prioritized")


async def test_nothing_is_taken_for_lost_while_redis_takes_no_writes_and_just_after(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    async with _own_valkey(tmp_path) as valkey:
        async with open_app(settings_for(valkey.url, database_url)) as app, open_app(app.settings) as other:
            sweeper = Sweeper(other)  # of another process than the one whose publisher holds the jobs
            await sweeper.sweep()
            await app.broker.command("CONFIG", "SET", "maxmemory", "1")
            await _accept(app, database, 5)
            await _make_due(database)
            for _ in range(3):
                with pytest.raises(BrokerUnavailable, match="OOM"):
                    await sweeper.sweep()
            await app.broker.command("CONFIG", "SET", "maxmemory", "0")
            assert await sweeper.sweep() == 0, "the publisher has a moment to bring them"
            await until(lambda: not app.publisher.unpublished)
            assert await sweeper.sweep() == 0
        assert await _generations(database) == [0] * 5


async def test_nothing_is_taken_for_lost_that_redis_does_not_let_us_look_at(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    async with _own_valkey(tmp_path) as valkey, open_app(settings_for(valkey.url, database_url)) as app:
        sweeper = Sweeper(app)
        await sweeper.sweep()
        await _accepted(app, database, 3)
        await _make_due(database)
        await app.broker.command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        assert await sweeper.sweep() == 0
        await app.broker.command("ACL", "SETUSER", "default", "-set")
        with pytest.raises(CommandRefused, match="NOPERM"):
            await sweeper.sweep()
        assert await _generations(database) == [0] * 3


async def test_generations_do_not_pile_up_while_a_job_does_not_arrive(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with open_app(settings_for(valkey_url, database_url)) as app:
        sweeper = Sweeper(app)
        await sweeper.sweep()
        await _accepted(app, database, 1)
        async with database.connection() as connection:
            lost = await connection.fetchval("SELECT id FROM all_jobs")
        await app.broker.remove("incoming-messages", f"{lost}-0")
        for _ in range(3):
            await _make_due(database)
            assert await sweeper.sweep() == 1
            await until(lambda: not app.publisher.unpublished)
            assert await app.broker.states("incoming-messages", [f"{lost}-1"]) == ["prioritized"]
            await app.broker.remove("incoming-messages", f"{lost}-1")
        assert await _generations(database) == [1]


async def test_a_job_that_is_due_but_delayed_in_redis_is_let_run(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with open_app(settings_for(valkey_url, database_url)) as app:
        sweeper = Sweeper(app)
        await sweeper.sweep()
        chatbot = await make_chatbot(database, (await make_customer(database)).id)
        await make_channel(database, chatbot)
        enqueued = [Enqueue(_message(chatbot.id), 3, new_id(), delay_s=delay_s) for delay_s in (3600, 3600, 3.0)]
        outbox = Outbox()
        async with database.transaction() as connection:
            await insert_jobs(connection, enqueued, outbox)
        app.publisher.publish(outbox)
        late, not_due, soon = (f"{row.id}-0" for row in enqueued)
        await until(lambda: not app.publisher.unpublished)
        async with database.connection() as connection:
            await connection.execute(
                "UPDATE jobs SET run_at = now() - interval '1 minute' WHERE id <> $1", enqueued[1].id
            )
        assert await sweeper.sweep() == 0
        states = await app.broker.states("incoming-messages", [late, not_due, soon])
        assert states == ["prioritized", "delayed", "delayed"]
        assert await _generations(database) == [0, 0, 0]

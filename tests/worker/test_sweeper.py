"""The sweeper: what BullMQ does not hold is published again, what it holds is left alone."""

from replyline.app import App, open_app
from replyline.jobs import IncomingMessageJob
from replyline.store.database import Database
from replyline.worker.sweeper import Sweeper
from tests.make import make_channel, make_chatbot, make_customer
from tests.running import settings_for
from tests.waiting import until


async def _accepted(app: App, database: Database, count: int) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_channel(database, chatbot)
    for number in range(count):
        await app.accept(
            IncomingMessageJob(chatbot_id=chatbot.id, external_user_id=f"u{number}", content="x", channel="WIDGET")
        )

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
            assert await connection.fetchval("SELECT count(*) FROM jobs WHERE generation = 1") == 1200


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
            lost = await connection.fetchval("SELECT id FROM jobs ORDER BY id OFFSET 2 LIMIT 1")
        await app.broker.remove("incoming-messages", f"{lost}-0")
        assert await sweeper.sweep() == 0, "its publisher has the grace to do it"
        async with database.connection() as connection:
            await connection.execute("UPDATE jobs SET run_at = now() - interval '6 s'")
        assert await sweeper.sweep() == 1
        assert await app.broker.states("incoming-messages", [f"{lost}-1"]) == ["prioritized"]


async def test_what_was_kept_long_enough_is_cleared_away(
    database: Database, database_url: str, valkey_url: str
) -> None:
    from replyline.store.sweep import purge  # noqa: PLC0415  only this test needs it

    async with open_app(settings_for(valkey_url, database_url)) as app:
        await _accepted(app, database, 4)
        async with database.transaction() as connection:
            await connection.execute(
                "UPDATE jobs SET state = 'DONE', finished_at = now() - interval '8 days' "
                "WHERE id IN (SELECT id FROM jobs ORDER BY id LIMIT 2)"
            )
            gone = await purge(connection, keep_jobs_s=7 * 86400, keep_dead_letters_s=30 * 86400)
            assert gone == 2
            assert await connection.fetchval("SELECT count(*) FROM jobs") == 2

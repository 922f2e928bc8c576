"""Retry of BullMQ's tools on a job that was given up replays it; a run of it that nobody asked for does not."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from replyline.app import App, open_app
from replyline.jobs import AI_PROCESSING, IncomingMessageJob
from replyline.settings import Settings
from replyline.store.database import Database
from tests.make import make_channel, make_chatbot, make_customer
from tests.retried import retry
from tests.running import quick_retries, settings_for, working
from tests.waiting import until


def _settings(valkey_url: str, database_url: str) -> Settings:
    return settings_for(valkey_url, database_url, queues=quick_retries(waits_s=()))


@asynccontextmanager
async def _given_up(database: Database, settings: Settings) -> AsyncIterator[tuple[App, asyncpg.Record]]:
    """An answer that was given up, because its model could not be reached, with workers at work."""
    customer = await make_customer(database)
    chatbot = await make_chatbot(
        database,
        customer.id,
        settings={"provider": "openai_compatible", "model": "m", "provider_base_url": "http://127.0.0.1:9"},
    )
    await make_channel(database, chatbot)
    async with working(settings) as app:
        await app.accept(
            IncomingMessageJob(chatbot_id=chatbot.id, external_user_id="ana", content="hello", channel="WIDGET")
        )
        row = await until(lambda: _row(database, "DEAD"))
        assert row is not None
        await until(lambda: _is(app, f"{row['id']}-0", "failed"))
        yield app, row


async def _row(database: Database, state: str, generation: int = 0) -> asyncpg.Record | None:
    async with database.connection() as connection:
        return await connection.fetchrow(
            "SELECT id, message_id, conversation_id FROM all_jobs WHERE queue = $1 AND state = $2 AND generation = $3",
            AI_PROCESSING,
            state,
            generation,
        )


async def _is(app: App, job_id: str, state: str) -> bool:
    return await app.broker.states(AI_PROCESSING, [job_id]) == [state]


async def _mend(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("UPDATE chatbots SET provider = 'knowledge_only'")


async def test_retry_of_a_given_up_job_replays_it_once(database: Database, database_url: str, valkey_url: str) -> None:
    async with _given_up(database, _settings(valkey_url, database_url)) as (app, dead):
        (apology,) = await until(lambda: _answers(database))
        await _mend(database)
        await retry(valkey_url, AI_PROCESSING, f"{dead['id']}-0")

        again = await until(lambda: _row(database, "DONE", 1))
        assert again is not None
        assert again["id"] == dead["id"]
        await until(lambda: _is(app, f"{dead['id']}-0", "completed"))
        (found,) = await app.broker.watch.finished(AI_PROCESSING, [f"{dead['id']}-0"])
        assert json.loads(found.returned) == {"replayed": f"{dead['id']}-1"}
        answers = await until(lambda: _answers(database, 2))
    assert [answer["id"] for answer in answers][:1] == [apology["id"]]


async def _answers(database: Database, count: int = 1) -> list[asyncpg.Record]:
    async with database.connection() as connection:
        found = await connection.fetch(
            "SELECT id FROM messages WHERE direction = 'OUTBOUND' AND status = 'SENT' ORDER BY seq"
        )
    return found if len(found) == count else []


async def test_a_retried_job_that_fails_again_can_be_retried_again_as_its_newest_run(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with _given_up(database, _settings(valkey_url, database_url)) as (app, dead):
        await retry(valkey_url, AI_PROCESSING, f"{dead['id']}-0")
        await until(lambda: _row(database, "DEAD", 1))
        await until(lambda: _is(app, f"{dead['id']}-1", "failed"))
        await retry(valkey_url, AI_PROCESSING, f"{dead['id']}-1")
        assert await until(lambda: _row(database, "DEAD", 2))


async def test_a_run_of_a_given_up_job_that_nobody_asked_for_does_not_replay_it(
    database: Database, database_url: str, valkey_url: str
) -> None:
    settings = _settings(valkey_url, database_url)
    async with _given_up(database, settings) as (_, dead):
        pass
    name = f"{dead['id']}-0"
    async with open_app(settings) as app:
        # As if its worker had died between Postgres and BullMQ: there it has not ended, and is taken once more.
        key = f"bull:{AI_PROCESSING}:{name}"
        await app.broker.command("HDEL", key, "finishedOn", "failedReason", "stacktrace", "atm")
        await app.broker.command("ZREM", f"bull:{AI_PROCESSING}:failed", name)
        await app.broker.command("ZADD", f"bull:{AI_PROCESSING}:prioritized", "1", name)
    async with working(settings) as app:
        await until(lambda: _is(app, name, "failed"))
        (found,) = await app.broker.watch.finished(AI_PROCESSING, [name])
        assert found.failed_reason == f"given up: replay it with `replyline dead-letters replay {dead['id']}`"
        assert await _row(database, "DEAD") is not None

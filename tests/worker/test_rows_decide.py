"""The row decides what a run does: Redis may hold an edited, damaged, vanished or old job, or one that only looks like ours."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import msgspec
import pytest
import redis

from replyline.app import App, open_app
from replyline.broker import Publication
from replyline.ids import new_id
from replyline.jobs import QUEUE_NAMES, IncomingMessageJob
from replyline.settings import Settings
from replyline.store.channels import Channel
from replyline.store.chatbots import Chatbot
from replyline.store.database import Database
from replyline.worker.run import work
from tests.make import make_channel, make_chatbot, make_customer
from tests.running import quick_retries, settings_for
from tests.waiting import until


@asynccontextmanager
async def _worked(app: App) -> AsyncIterator[None]:
    stop = asyncio.Event()
    worker = asyncio.create_task(work(app, queues=QUEUE_NAMES, concurrency={}, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await worker


def _settings(valkey_url: str, database_url: str) -> Settings:
    return settings_for(valkey_url, database_url, queues=quick_retries(), sweep_every_s=0.1, sweep_grace_s=0.5)


async def _chatbot(database: Database) -> tuple[Chatbot, Channel]:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    return chatbot, await make_channel(database, chatbot)


def _wrote(chatbot: Chatbot, text: str = "hello") -> IncomingMessageJob:
    return IncomingMessageJob(chatbot_id=chatbot.id, external_user_id="ana", content=text, channel="WIDGET")


async def _rows(database: Database, query: str, *values: object) -> Sequence[asyncpg.Record]:
    async with database.connection() as connection:
        return await connection.fetch(query, *values)


async def _said(database: Database, direction: str = "INBOUND") -> list[str]:
    rows = await _rows(database, "SELECT content FROM messages WHERE direction = $1 ORDER BY seq", direction)
    return [row["content"] for row in rows]


async def _until_published(app: App, job_id: uuid.UUID) -> str:
    name = f"{job_id}-0"
    await until(lambda: _is_known(app, name))
    return name


async def _is_known(app: App, name: str) -> bool:
    return await app.broker.states("incoming-messages", [name]) == ["prioritized"]


async def test_edited_data_is_not_executed(database: Database, database_url: str, valkey_url: str) -> None:
    chatbot, _ = await _chatbot(database)
    async with open_app(_settings(valkey_url, database_url)) as app:
        accepted = await app.accept(_wrote(chatbot, "what was written"))
        name = await _until_published(app, accepted.job_id)
        with redis.Redis.from_url(valkey_url) as client:
            data = msgspec.json.encode({"chatbotId": str(chatbot.id), "content": "edited"})
            client.hset(f"bull:incoming-messages:{name}", "data", data)
        async with _worked(app):
            assert await until(lambda: _said(database)) == ["what was written"]


@pytest.mark.parametrize("damage", ["hash deleted", "data emptied"])
async def test_a_job_that_redis_lost_or_damaged_is_run_all_the_same(
    database: Database, database_url: str, valkey_url: str, damage: str
) -> None:
    chatbot, _ = await _chatbot(database)
    async with open_app(_settings(valkey_url, database_url)) as app:
        accepted = await app.accept(_wrote(chatbot))
        key = f"bull:incoming-messages:{await _until_published(app, accepted.job_id)}"
        with redis.Redis.from_url(valkey_url) as client:
            client.delete(key) if damage == "hash deleted" else client.hset(key, "data", "")
        async with _worked(app):
            await until(lambda: _said(database, "OUTBOUND"))
    assert await _rows(database, "SELECT 1 FROM all_jobs WHERE state = 'DEAD'") == []


async def test_a_run_of_an_older_generation_does_nothing(
    database: Database, database_url: str, valkey_url: str
) -> None:
    chatbot, _ = await _chatbot(database)
    async with open_app(settings_for(valkey_url, database_url, sweep_every_s=60)) as app:
        accepted = await app.accept(_wrote(chatbot))
        name = await _until_published(app, accepted.job_id)
        await _rows(database, "UPDATE jobs SET generation = 1 WHERE id = $1", accepted.job_id)
        async with _worked(app):
            await until(lambda: _is_in(app, name, "completed"))
    assert await _said(database) == []
    assert [row["state"] for row in await _rows(database, "SELECT state FROM all_jobs")] == ["WAITING"]


async def _is_in(app: App, name: str, state: str, queue: str = "incoming-messages") -> bool:
    return await app.broker.states(queue, [name]) == [state]


async def test_a_producers_ids_that_look_like_ours_are_not_taken_for_ours(
    database: Database, database_url: str, valkey_url: str
) -> None:
    chatbot, _ = await _chatbot(database)
    ids = [f"{new_id()}-1", f"{uuid.uuid4().hex}-7", f"{new_id()}-attempt2", f"{{{new_id()}}}-0", f"{new_id()}-0"]
    async with open_app(_settings(valkey_url, database_url)) as app, _worked(app):
        for number, id_ in enumerate(ids):
            data = {"chatbotId": str(chatbot.id), "externalUserId": f"u{number}", "content": id_, "channel": "WIDGET"}
            job = Publication("incoming-messages", id_, "process-message", msgspec.json.encode(data), 1)
            await app.broker.publish([job])

        async def all_said() -> bool:
            return sorted(await _said(database)) == sorted(ids)

        await until(all_said)


async def test_a_producers_job_with_the_id_of_a_row_of_another_queue_is_its_own(
    database: Database, database_url: str, valkey_url: str
) -> None:
    chatbot, _ = await _chatbot(database)
    async with open_app(_settings(valkey_url, database_url)) as app, _worked(app):
        accepted = await app.accept(_wrote(chatbot))
        await until(lambda: _said(database, "OUTBOUND"))
        name = f"{accepted.job_id}-0"
        await app.broker.publish([Publication("outgoing-messages", name, "route-message", b'{"channel": "WIDGET"}', 1)])
        await until(lambda: _is_in(app, name, "failed", "outgoing-messages"))
        (dead,) = await _rows(database, "SELECT queue, reason, dedupe_key FROM all_jobs WHERE state = 'DEAD'")
        assert tuple(dead) == ("outgoing-messages", "foreign_job", f"bullmq:outgoing-messages:{name}")


async def test_a_producers_nul_is_a_dead_letter_at_once_and_half_an_emoji_is_replaced(
    database: Database, database_url: str, valkey_url: str
) -> None:
    chatbot, _ = await _chatbot(database)
    start = b'{"chatbotId": "%s", "externalUserId": "u", "channel": "WIDGET", "content": ' % str(chatbot.id).encode()
    jobs = {
        "nul": rb'"a\u0000b \\u0000"}',
        "half": rb'"cut \ud83d"}',
        "bytes": b'"caf\xe9"}',
        "whole": rb'"\ud83d\ude00"}',
    }
    async with open_app(_settings(valkey_url, database_url)) as app, _worked(app):
        await app.broker.publish(
            [Publication("incoming-messages", f"x-{name}", "n", start + end, 1) for name, end in jobs.items()]
        )
        await until(lambda: _is_in(app, "x-nul", "failed"))
        await until(lambda: _counted(database, 3))
    assert sorted(await _said(database)) == sorted(["cut \ufffd", "caf\ufffd", "\U0001f600"])
    (dead,) = await _rows(
        database, "SELECT reason, attempts, payload ->> 'content' AS kept FROM all_jobs WHERE state = 'DEAD'"
    )
    assert tuple(dead) == ("unreadable_payload", 1, r"a" "\ufffd" r"b \u0000")


async def _counted(database: Database, count: int) -> bool:
    return len(await _said(database)) == count


async def test_what_is_left_of_a_deleted_customer_is_not_kept(
    database: Database, database_url: str, valkey_url: str
) -> None:
    chatbot, _ = await _chatbot(database)
    async with open_app(_settings(valkey_url, database_url)) as app:
        name = await _until_published(app, (await app.accept(_wrote(chatbot))).job_id)
        await _rows(database, "DELETE FROM customers WHERE id = $1", chatbot.customer_id)
        async with _worked(app):
            await until(lambda: _is_in(app, name, "completed"))
    assert await _rows(database, "SELECT 1 FROM all_jobs") == []


@pytest.mark.parametrize("queue", ["ai-processing", "outgoing-messages"])
async def test_a_row_whose_payload_cannot_be_read_is_given_up_with_the_same_consequence(
    database: Database, database_url: str, valkey_url: str, queue: str
) -> None:
    chatbot, _ = await _chatbot(database)
    damage = f"""
        CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.queue = '{queue}' AND NOT EXISTS (SELECT 1 FROM all_jobs WHERE queue = NEW.queue) THEN
                NEW.payload = '{{"channel": 7, "afterSeq": "x"}}';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER damage BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION damage();
    """  # noqa: S608  the queue is this test's own
    async with database.connection() as connection:
        await connection.execute(damage)
    try:
        async with open_app(_settings(valkey_url, database_url)) as app, _worked(app):
            await app.accept(_wrote(chatbot, "first"))
            await until(lambda: _dead(database))
            await app.accept(_wrote(chatbot, "second"))
            first = "FAILED" if queue == "outgoing-messages" else "SENT"  # that is the fallback text

            async def both_ended() -> bool:
                found = await _rows(database, "SELECT status FROM messages WHERE direction = 'OUTBOUND' ORDER BY seq")
                return [row["status"] for row in found] == [first, "SENT"]

            await until(both_ended)
    finally:
        async with database.connection() as connection:
            await connection.execute("DROP TRIGGER damage ON jobs; DROP FUNCTION damage")
    assert [row["reason"] for row in await _dead(database)] == ["unreadable_payload"]


async def _dead(database: Database) -> Sequence[asyncpg.Record]:
    return await _rows(database, "SELECT reason FROM all_jobs WHERE state = 'DEAD'")


async def test_what_cannot_be_adopted_for_a_reason_nobody_foresaw_is_a_dead_letter_in_the_end(
    database: Database, database_url: str, valkey_url: str
) -> None:
    chatbot, _ = await _chatbot(database)
    async with database.connection() as connection:
        await connection.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON jobs FOR EACH ROW WHEN (NEW.state = 'WAITING') EXECUTE FUNCTION refuse();
        """)
    try:
        async with open_app(_settings(valkey_url, database_url)) as app, _worked(app):
            data = {"chatbotId": str(chatbot.id), "externalUserId": "u", "content": "c", "channel": "WIDGET"}
            job = Publication("incoming-messages", "nest-1x", "n", msgspec.json.encode(data), 1)
            await app.broker.publish([job])
            (dead,) = await until(lambda: _dead(database), timeout_s=30)
            await until(lambda: _is_in(app, "nest-1x", "failed"))
    finally:
        async with database.connection() as connection:
            await connection.execute("DROP TRIGGER refuse ON jobs; DROP FUNCTION refuse")
    assert dead["reason"] == "not_adopted"

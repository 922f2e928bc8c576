"""Jobs that a BullMQ producer of somebody else's adds, with names of its own for chatbot and conversation."""

import re
from collections.abc import Mapping, Sequence

import asyncpg
import msgspec
import pytest

from replyline.app import App
from replyline.broker import Publication
from replyline.store.chatbots import Chatbot
from replyline.store.database import Database
from replyline.store.moves.dead_letters import NotReplayable
from tests.make import make_channel, make_chatbot, make_customer
from tests.retried import retry
from tests.running import settings_for, working
from tests.waiting import until

_BRIEF = {
    "conversationId": "test-conv-id",
    "chatbotId": "test-bot-id",
    "externalUserId": "user-123",
    "content": "Hello",
    "channel": "WIDGET",
}


async def _bot(database: Database, reference: str | None = "test-bot-id") -> Chatbot:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id, settings={"external_reference": reference})
    await make_channel(database, chatbot)
    return chatbot


async def _produce(app: App, job_id: str, **changes: object) -> None:
    data = msgspec.json.encode(_BRIEF | changes)
    await app.broker.publish([Publication("incoming-messages", job_id, "process-message", data, 1)])


async def _rows(database: Database, query: str, *values: object) -> Sequence[asyncpg.Record]:
    async with database.connection() as connection:
        return await connection.fetch(query, *values)


async def _received(database: Database, count: int) -> Sequence[asyncpg.Record]:
    rows = await _rows(
        database,
        "SELECT m.content, m.external_id, m.conversation_id, v.external_reference, v.chatbot_id FROM messages m "
        "JOIN conversations v ON v.id = m.conversation_id WHERE m.direction = 'INBOUND' ORDER BY m.id",
    )
    return rows if len(rows) == count else []


async def _dead(database: Database) -> Mapping[str, str]:
    rows = await _rows(database, "SELECT dedupe_key, reason, errors::text AS errors FROM all_jobs WHERE state = 'DEAD'")
    return {row["dedupe_key"]: f"{row['reason']}: {row['errors']}" for row in rows}


async def test_the_example_job_of_the_brief_is_answered(database: Database, database_url: str, valkey_url: str) -> None:
    chatbot = await _bot(database)
    async with working(settings_for(valkey_url, database_url)) as app:
        await _produce(app, "job-1x")

        async def answered() -> Sequence[asyncpg.Record]:
            return await _rows(
                database,
                "SELECT v.external_reference, v.chatbot_id FROM messages m JOIN conversations v ON v.id = m.conversation_id "
                "WHERE m.direction = 'OUTBOUND' AND m.status = 'SENT'",
            )

        (answer,) = await until(answered)

        async def returned() -> str:
            (found,) = await app.broker.watch.finished("incoming-messages", ["job-1x"])
            return found.returned.decode()

        (saved,) = await _rows(database, "SELECT id FROM messages WHERE direction = 'INBOUND'")
        assert await until(returned) == f'{{"messageId":"{saved["id"]}"}}'
    assert (answer["external_reference"], answer["chatbot_id"]) == ("test-conv-id", chatbot.id)


async def test_a_conversation_reference_that_is_new_begins_a_conversation_and_one_that_is_known_continues_it(
    database: Database, database_url: str, valkey_url: str
) -> None:
    await _bot(database)
    async with working(settings_for(valkey_url, database_url)) as app:
        await _produce(app, "first-x", content="1")
        await until(lambda: _received(database, 1))
        await _produce(app, "other-x", conversationId="clx1y2z3-cuid", content="2")
        await until(lambda: _received(database, 2))
        await _produce(app, "known-x", content="3")
        await until(lambda: _received(database, 3))
        await _produce(app, "empty-x", conversationId="", content="4")
        received = await until(lambda: _received(database, 4))
    assert [row["external_reference"] for row in received] == ["test-conv-id", "clx1y2z3-cuid", "test-conv-id", None]
    assert len({row["conversation_id"] for row in received}) == 3


async def test_many_first_messages_that_name_one_new_conversation_begin_it_once(
    database: Database, database_url: str, valkey_url: str
) -> None:
    await _bot(database)
    async with working(settings_for(valkey_url, database_url)) as app:
        for number in range(20):
            await _produce(app, f"job-{number}x", content=str(number), externalUserId=f"user-{number % 4}")
        received = await until(lambda: _received(database, 20))
    assert len({row["conversation_id"] for row in received}) == 1


async def test_an_id_of_ours_names_our_conversation_and_a_uuid_of_theirs_is_a_reference(
    database: Database, database_url: str, valkey_url: str
) -> None:
    chatbot = await _bot(database, None)
    theirs = "3f0d6a3e-5a0e-4f8e-9a57-0d1c0b7e8a11"
    async with working(settings_for(valkey_url, database_url)) as app:
        await _produce(app, "first-x", chatbotId=str(chatbot.id), conversationId=None)
        (first,) = await until(lambda: _received(database, 1))
        await _produce(app, "ours-x", chatbotId=str(chatbot.id), conversationId=str(first["conversation_id"]))
        await until(lambda: _received(database, 2))
        await _produce(app, "theirs-x", chatbotId=str(chatbot.id), conversationId=theirs)
        received = await until(lambda: _received(database, 3))
    assert received[1]["conversation_id"] == first["conversation_id"]
    assert received[2]["external_reference"] == theirs


async def test_a_producers_own_message_id_is_accepted_once_and_takes_no_other_messages_place(
    database: Database, database_url: str, valkey_url: str
) -> None:
    await _bot(database)
    async with working(settings_for(valkey_url, database_url)) as app:
        await _produce(app, "first-x", messageId="msg-1", customerId="cus_9", traceId="t-1", content="1")
        await until(lambda: _received(database, 1))
        await _produce(app, "again-x", messageId="msg-1", content="1")
        await _produce(app, "other-x", messageId="msg-2", content="2")
        received = await until(lambda: _received(database, 2))
    assert [(row["content"], row["external_id"]) for row in received] == [("1", "msg-1"), ("2", "msg-2")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chatbotId": "nobody"}, "unknown_channel: .*chatbot nobody has no WIDGET channel"),
        ({"chatbotId": ""}, "unreadable_payload: .*chatbotId"),
        ({"chatbotId": "x" * 256}, "unreadable_payload: .*chatbotId"),
        ({"chatbotId": 7}, "unreadable_payload: .*chatbotId"),
        ({"conversationId": "a\u0007b"}, "unreadable_payload: .*conversationId must not contain control characters"),
        ({"conversationId": "a\u0000b"}, "unreadable_payload: .*conversationId must not contain control characters"),
    ],
)
async def test_a_name_that_leads_nowhere_is_a_dead_letter_that_says_so(
    database: Database, database_url: str, valkey_url: str, changes: Mapping[str, object], reason: str
) -> None:
    await _bot(database)
    async with working(settings_for(valkey_url, database_url)) as app:
        await _produce(app, "bad-x", **changes)
        dead = await until(lambda: _dead(database))
    assert list(dead) == ["bullmq:incoming-messages:bad-x"]
    assert re.match(reason, dead["bullmq:incoming-messages:bad-x"])


async def test_retry_of_a_producers_job_that_could_not_be_accepted_accepts_it_when_the_cause_is_gone(
    database: Database, database_url: str, valkey_url: str
) -> None:
    chatbot = await _bot(database, None)
    async with working(settings_for(valkey_url, database_url)) as app:

        async def failed(starts: bytes) -> bool:
            state = await app.broker.states("incoming-messages", ["bad-x"])
            return state == ["failed"] and await app.broker.command(*_STARTS) == starts

        await _produce(app, "bad-x")
        await until(lambda: failed(b"1"))
        await retry(valkey_url, "incoming-messages", "bad-x")
        await until(lambda: failed(b"2"))
        assert list(await _dead(database)) == ["bullmq:incoming-messages:bad-x"]

        async with database.connection() as connection:
            await connection.execute("UPDATE chatbots SET external_reference = 'test-bot-id' WHERE id = $1", chatbot.id)
        await retry(valkey_url, "incoming-messages", "bad-x")
        await until(lambda: _received(database, 1))
        assert not await _dead(database)


_STARTS = ("HGET", "bull:incoming-messages:bad-x", "ats")


async def test_a_replay_of_a_job_that_was_never_accepted_is_refused_with_what_to_do(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with working(settings_for(valkey_url, database_url)) as app:
        await _produce(app, "no-bot-x")
        (dead,) = await until(lambda: _rows(database, "SELECT id FROM all_jobs WHERE state = 'DEAD'"))
        with pytest.raises(NotReplayable, match=r"never accepted.*Retry it in BullMQ"):
            await app.replay(dead["id"], customer_id=None)
        assert len(await _dead(database)) == 1
        await _bot(database)
        await retry(valkey_url, "incoming-messages", "no-bot-x")
        assert await until(lambda: _received(database, 1))

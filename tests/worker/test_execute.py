"""One job's life in a real worker: every way it can end, as it stands in Postgres and in BullMQ."""

from collections.abc import Sequence

import asyncpg
import msgspec

from replyline.app import App
from replyline.broker import Publication
from replyline.ids import new_id
from replyline.jobs import Identity, IncomingMessageJob, MediaRef, WhatsAppCloudSendJob
from replyline.standins import Standins
from replyline.store.database import Database
from replyline.worker.execute import logged_of
from tests.make import make_channel, make_chatbot, make_customer, make_webhook_endpoint
from tests.running import quick_retries, settings_for, working
from tests.waiting import until


async def _job(database: Database, queue: str, state: str) -> Sequence[asyncpg.Record]:
    async with database.connection() as connection:
        return await connection.fetch(
            "SELECT *, payload::text AS raw, errors::text AS kept FROM all_jobs WHERE queue = $1 AND state = $2",
            queue,
            state,
        )


async def _hear(app: App, chatbot_id: object, text: str = "hello") -> None:
    await app.accept(
        IncomingMessageJob(chatbot_id=chatbot_id, external_user_id="ana", content=text, channel="WIDGET")  # type: ignore[arg-type]
    )


async def test_a_job_that_keeps_failing_is_tried_four_times_then_dead_with_every_error(
    database: Database, database_url: str, valkey_url: str
) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(
        database,
        customer.id,
        settings={
            "provider": "openai_compatible",
            "model": "m",
            "provider_base_url": "http://127.0.0.1:9",
            "provider_key": "sk-secret-secret-secret",
        },
    )
    await make_channel(database, chatbot)
    async with working(settings_for(valkey_url, database_url, queues=quick_retries())) as app:
        await _hear(app, chatbot.id)
        (dead,) = await until(lambda: _job(database, "ai-processing", "DEAD"))
        errors = msgspec.json.decode(dead["kept"], type=list[dict[str, object]])
        assert [error["attempt"] for error in errors] == [1, 2, 3, 4]
        assert all(error["stack"] and error["worker"] and error["at"] for error in errors)
        assert "sk-secret" not in dead["kept"]
        assert (dead["reason"], dead["attempts"]) == ("attempts_exhausted", 4)
        said = await until(lambda: _contents(database))
        assert said == [chatbot.fallback_text]
        counts = await until(lambda: _counted(app, "dead-letter"))
        assert counts == 1
        assert (await app.broker.states("ai-processing", [f"{dead['id']}-0"])) == ["failed"]


def test_a_line_of_the_log_shows_of_a_payload_our_own_ids_only() -> None:
    """Failed before: wamids, which hold a telephone number in base64, and what an external worker is told were in the log."""
    number = "wamid.HBgNNDkxNTExMjM0NTY3OBUCABIYIA=="
    heard = IncomingMessageJob(
        message_id=new_id(),
        chatbot_id=new_id(),
        external_user_id="4915112345678",
        content="private",
        channel="WHATSAPP_CLOUD",
        external_message_id=number,
        target_id=number,
        also_known_as=(Identity("phone", "4915112345678"),),
        media=MediaRef(kind="document", provider_id="4915112345678", filename="private.pdf"),
    )
    assert logged_of(heard) == {
        "message_id": str(heard.message_id),
        "chatbot_id": str(heard.chatbot_id),
        "channel": "WHATSAPP_CLOUD",
        "kind": "message",
    }
    sent = WhatsAppCloudSendJob(to="4915112345678", content="private", quotes=number, channel_external_id="1065402")
    assert logged_of(sent) == {}


async def _contents(database: Database) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT content FROM messages WHERE direction = 'OUTBOUND' AND status = 'SENT'")
    return [row["content"] for row in rows]


async def _counted(app: App, queue: str) -> int:
    counts = await app.broker.counts(queue)
    return counts.waiting + counts.prioritized


async def test_a_processor_that_runs_past_its_timeout_is_cancelled_and_tried_again(
    database: Database, database_url: str, valkey_url: str
) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_channel(database, chatbot)
    queues = quick_retries(waits_s=())
    queues["webhook-delivery"] = {"waits_s": [0.05], "timeout_s": 0.2}
    async with Standins() as standins, working(settings_for(valkey_url, database_url, queues=queues)) as app:
        url = standins.urls["customer"]
        async with app.http.post(f"{url}/_faults", json={"kind": "slow", "seconds": 5}) as response:
            assert response.status == 200
        await make_webhook_endpoint(database, customer.id, url=f"{url}/slow", events=["message.received"])
        await _hear(app, chatbot.id)
        (dead,) = await until(lambda: _job(database, "webhook-delivery", "DEAD"))
        errors = msgspec.json.decode(dead["kept"], type=list[dict[str, object]])
        assert [error["reason"] for error in errors] == ["timeout", "timeout"]
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT status FROM webhook_events") == "FAILED"
            assert await connection.fetchval("SELECT status FROM messages WHERE direction = 'INBOUND'") == "RECEIVED"


async def test_a_job_that_a_foreign_producer_added_is_adopted_and_answered(
    database: Database, database_url: str, valkey_url: str
) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_channel(database, chatbot)
    data = {"chatbotId": str(chatbot.id), "externalUserId": "user-123", "content": "Hello", "channel": "WIDGET"}
    async with working(settings_for(valkey_url, database_url)) as app:
        await app.broker.publish(
            [Publication("incoming-messages", "nest-17x", "process-message", msgspec.json.encode(data), 1)]
        )
        assert await until(lambda: _contents(database))
        (job,) = await _job(database, "incoming-messages", "DONE")
        assert job["customer_id"] == customer.id


async def test_a_foreign_job_that_cannot_be_read_is_a_dead_letter_not_lost(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with working(settings_for(valkey_url, database_url)) as app:
        await app.broker.publish(
            [
                Publication("incoming-messages", "bad-1x", "process-message", b'{"chatbotId": 7}', 1),
                Publication("incoming-messages", "bad-2x", "process-message", b"not json at all", 1),
                Publication(
                    "incoming-messages",
                    "bad-3x",
                    "process-message",
                    msgspec.json.encode(
                        {"chatbotId": str(new_id()), "externalUserId": "u", "content": "c", "channel": "WIDGET"}
                    ),
                    1,
                ),
            ]
        )

        async def buried() -> list[str]:
            rows = await _job(database, "incoming-messages", "DEAD")
            return sorted(row["reason"] for row in rows) if len(rows) == 3 else []

        assert await until(buried) == ["unknown_channel", "unreadable_payload", "unreadable_payload"]


async def test_a_replayed_turn_is_answered_when_its_provider_is_back(
    database: Database, database_url: str, valkey_url: str
) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(
        database,
        customer.id,
        settings={"provider": "openai_compatible", "model": "m", "provider_base_url": "http://127.0.0.1:9"},
    )
    await make_channel(database, chatbot)
    async with working(settings_for(valkey_url, database_url, queues=quick_retries(waits_s=()))) as app:
        await _hear(app, chatbot.id)
        (dead,) = await until(lambda: _job(database, "ai-processing", "DEAD"))
        async with database.connection() as connection:
            await connection.execute("UPDATE chatbots SET provider = 'knowledge_only'")
        await app.replay(dead["id"], customer_id=customer.id)
        said = await until(lambda: _two(database))
        assert said[0] == chatbot.fallback_text
        assert said[1] != chatbot.fallback_text
        assert await _counted(app, "dead-letter") == 0


async def _two(database: Database) -> list[str]:
    said = await _contents(database)
    return said if len(said) == 2 else []

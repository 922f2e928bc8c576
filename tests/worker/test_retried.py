"""Retry of BullMQ's tools on a job that was given up."""

from replyline.jobs import IncomingMessageJob
from replyline.store.database import Database
from tests.make import make_channel, make_chatbot, make_customer
from tests.retried import retry
from tests.running import quick_retries, settings_for, working
from tests.waiting import until


async def test_retry_of_a_given_up_job_stays_failed_and_says_what_replays_it(
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
        await app.accept(
            IncomingMessageJob(chatbot_id=chatbot.id, external_user_id="ana", content="hello", channel="WIDGET")
        )

        async def failed() -> str | None:
            async with database.connection() as connection:
                row_id = await connection.fetchval(
                    "SELECT id FROM jobs WHERE queue = 'ai-processing' AND state = 'DEAD'"
                )
            name = f"{row_id}-0"
            return name if await app.broker.states("ai-processing", [name]) == ["failed"] else None

        name = str(await until(failed))
        await retry(valkey_url, "ai-processing", name)

        async def refused() -> bool:
            (found,) = await app.broker.watch.finished("ai-processing", [name])
            return "dead-letters replay" in found.failed_reason

        await until(refused)
        assert await app.broker.states("ai-processing", [name]) == ["failed"]

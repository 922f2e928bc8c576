"""Jobs that BullMQ numbers itself, because their producer gives no ids."""

from collections.abc import Sequence

import asyncpg

from replyline.store.database import Database
from tests.interop.parts import need_application, run
from tests.make import make_channel, make_chatbot, make_customer
from tests.running import settings_for, working
from tests.waiting import until


async def test_a_number_that_comes_again_after_redis_was_emptied_is_another_message(
    database: Database, database_url: str, valkey_url: str
) -> None:
    need_application()
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id, settings={"external_reference": "test-bot-id"})
    await make_channel(database, chatbot)
    async with working(settings_for(valkey_url, database_url)) as app:
        await run("produce", valkey_url)
        await until(lambda: _received(database, 1))
        await app.broker.command("FLUSHDB")
        await run("produce", valkey_url)
        await until(lambda: _received(database, 2))


async def _received(database: Database, count: int) -> Sequence[asyncpg.Record]:
    async with database.connection() as connection:
        found = await connection.fetch("SELECT id FROM messages WHERE direction = 'INBOUND'")
    return found if len(found) == count else []

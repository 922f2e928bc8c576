"""A Postgres that cannot do its work now: jobs wait without using attempts, the door says when to come again."""

import asyncpg

from replyline.jobs import IncomingMessageJob
from replyline.store.database import Database
from tests.make import make_api_key, make_channel, make_chatbot, make_customer
from tests.running import quick_retries, settings_for, working
from tests.waiting import until
from tests.web.conftest import Serve, serve

__all__ = ["serve"]


async def test_a_locked_conversation_uses_up_no_attempt(database: Database, database_url: str, valkey_url: str) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_channel(database, chatbot)
    # Without retries, a lock that counted as a failure would be a dead letter.
    async with working(settings_for(valkey_url, database_url, queues=quick_retries(waits_s=()))) as app:
        message = IncomingMessageJob(chatbot_id=chatbot.id, external_user_id="ana", content="one", channel="WIDGET")
        await app.accept(message)
        await until(lambda: _count(database, "messages", "direction = 'OUTBOUND' AND status = 'SENT'", 1))
        locking = await asyncpg.connect(database_url)
        transaction = locking.transaction()
        await transaction.start()
        await locking.execute("SELECT 1 FROM conversations FOR UPDATE")
        await app.accept(message)
        waiting = "query LIKE '%FOR UPDATE OF v%' AND wait_event_type = 'Lock' AND datname = current_database()"
        for _ in range(2):  # a second time: the first ended with the lock's timeout, and the job was put off
            await until(lambda: _count(database, "pg_stat_activity", waiting, 1))
            await until(lambda: _count(database, "pg_stat_activity", waiting, 0))
        await transaction.rollback()
        await locking.close()
        await until(lambda: _count(database, "messages", "direction = 'OUTBOUND' AND status = 'SENT'", 2), timeout_s=20)
    assert await _count(database, "jobs", "attempts > 0 OR state = 'DEAD'", 0)


async def _count(database: Database, table: str, where: str, expected: int) -> bool:
    async with database.connection() as connection:
        found = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {where}")  # noqa: S608  of this test
    return bool(found == expected)


async def test_a_door_whose_postgres_is_read_only_says_when_to_come_again(
    serve: Serve, database: Database, database_url: str
) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_channel(database, chatbot)
    key = await make_api_key(database, customer.id)
    separator = "&" if "?" in database_url else "?"
    async with serve(database_url=f"{database_url}{separator}default_transaction_read_only=on") as door:
        body = {"chatbotId": str(chatbot.id), "externalUserId": "u", "content": "c", "channel": "WIDGET"}
        answer = await door.call("POST", "/v1/messages", key=key, json=body)
    assert answer.problem == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "1"

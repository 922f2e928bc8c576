"""A Postgres that cannot do its work now: jobs wait without using attempts, the door says when to come again."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import msgspec

from replyline.app import App
from replyline.jobs import IncomingMessageJob
from replyline.store.database import Database
from replyline.store.moves.setbacks import STORE_BUSY, Setback
from replyline.store.timeline import trace
from tests.make import make_api_key, make_channel, make_chatbot, make_customer
from tests.running import quick_retries, settings_for, working
from tests.store.scene import failure, make_scene
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
    assert await _count(database, "all_jobs", "attempts > 0 OR state = 'DEAD'", 0)


async def test_a_job_that_meets_a_lock_for_long_while_others_get_through_becomes_a_dead_letter(
    database: Database, database_url: str, valkey_url: str
) -> None:
    settings = settings_for(valkey_url, database_url, store_busy_s=1, queues=quick_retries(waits_s=()))
    async with working(settings) as app, _locked_out(database, database_url, app) as stuck:
        busy = "state = 'WAITING' AND wait_reason = 'store_busy'"
        await until(lambda: _count(database, "all_jobs", busy, 1), timeout_s=20)
        found = await trace(database, stuck.message_id, customer_id=stuck.customer_id)
        assert found is not None
        assert [(job.wait_reason, job.attempts) for job in found.jobs] == [("store_busy", 0)]
        other = IncomingMessageJob(
            chatbot_id=stuck.chatbot_id, external_user_id="bob", content="other", channel="WIDGET"
        )
        await app.accept(other)
        await until(lambda: _count(database, "all_jobs", "state = 'DEAD' AND reason = 'store_busy'", 1), timeout_s=30)
    async with working(settings) as app:
        await app.replay(stuck.job_id, customer_id=None)
        await until(lambda: _count(database, "messages", "content = 'stuck'", 1), timeout_s=20)


async def test_how_often_in_a_row_a_job_met_a_lock_is_counted_and_uses_neither_attempts_nor_patience(
    database: Database,
) -> None:
    scene = await make_scene(database)
    job = await scene.accept("stuck")
    for times in range(3):
        standing = await scene.reads.standing(job.job_id)
        assert standing is not None
        assert (standing.busy_times, standing.attempts, standing.postponed_s) == (times, 0, 0)
        assert (standing.busy_s > 0) == (times > 0)
        assert await scene.moves.put_off(Setback(job.job_id, 0, STORE_BUSY, None))
    await scene.moves.put_off(Setback(job.job_id, 0, "retry", failure()))
    standing = await scene.reads.standing(job.job_id)
    assert standing is not None
    assert (standing.busy_times, standing.busy_s) == (0, 0)


@dataclass(frozen=True)
class _Stuck:
    job_id: uuid.UUID
    message_id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID


@asynccontextmanager
async def _locked_out(database: Database, database_url: str, app: App) -> AsyncIterator[_Stuck]:
    """A message of a conversation that another session has locked."""
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_channel(database, chatbot)
    message = IncomingMessageJob(chatbot_id=chatbot.id, external_user_id="ana", content="one", channel="WIDGET")
    await app.accept(message)
    await until(lambda: _count(database, "messages", "direction = 'OUTBOUND' AND status = 'SENT'", 1), timeout_s=20)
    locking = await asyncpg.connect(database_url)
    await locking.execute("BEGIN; SELECT 1 FROM conversations FOR UPDATE")
    accepted = await app.accept(msgspec.structs.replace(message, content="stuck"))
    try:
        yield _Stuck(accepted.job_id, accepted.message_id, customer.id, chatbot.id)
    finally:
        await locking.execute("ROLLBACK")
        await locking.close()


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

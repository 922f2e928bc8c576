"""Deleting a customer: gone at once for who asks, row by row in batches, and whole in the end, whatever comes in between."""

import asyncio
import subprocess
import sys
import uuid

import asyncpg

from replyline.jobs import IncomingMessageJob
from replyline.store import api_keys, customer_deletions, customers
from replyline.store.customer_deletions import BATCH
from replyline.store.database import Database
from replyline.store.moves.accept import find_places, wanted_by
from tests.make import make_api_key, make_channel, make_chatbot, make_customer, make_document, make_webhook_endpoint
from tests.running import settings_for, working
from tests.store.scene import Scene, make_scene
from tests.waiting import until

_TABLES = (
    *("api_keys", "chatbots", "channels", "contacts", "contact_identities", "conversations", "messages", "usage_logs"),
    *("knowledge_documents", "knowledge_chunks", "webhook_endpoints", "webhook_events", "jobs", "media"),
)
# A conversation with so many more messages, each with a fact of usage and a finished job.
_MANY = """
WITH written AS (
    INSERT INTO messages (id, customer_id, conversation_id, channel_id, seq, direction, role, status, content, trace_id)
    SELECT gen_random_uuid(), customer_id, id, channel_id, 1000 + n, 'INBOUND', 'user', 'RECEIVED', 'x', gen_random_uuid()
    FROM conversations, generate_series(1, $2) n WHERE customer_id = $1 RETURNING id, customer_id, trace_id
), metered AS (
    INSERT INTO usage_logs (id, fact_key, customer_id, kind) SELECT id, id::text, customer_id, 'message_received' FROM written
)
INSERT INTO jobs (id, queue, name, payload, state, customer_id, trace_id, priority, finished_at)
SELECT id, 'incoming-messages', 'x', '{}', 'DONE', customer_id, trace_id, 5, now() FROM written
"""
_KILLED = """
import asyncio, sys
from replyline.store import customer_deletions
from replyline.store.database import Database
async def main():
    database = Database(sys.argv[1])
    await database.open()
    await customer_deletions.go_on(database, for_s=600)
asyncio.run(main())
"""


async def _settled(database: Database, *, messages: int) -> Scene:
    """A customer with something in most tables."""
    scene = await make_scene(database)
    await make_webhook_endpoint(database, scene.customer.id)
    await make_document(database, scene.chatbot)
    await make_api_key(database, scene.customer.id)
    await scene.say("question", "answer")
    await scene.fetch(_MANY, scene.customer.id, messages)
    await scene.fetch(
        "INSERT INTO media (id, customer_id, channel_id, message_id, kind, provider_id, path)"
        " SELECT gen_random_uuid(), customer_id, channel_id, id, 'image', 'x', id::text FROM messages"
        " WHERE customer_id = $1 LIMIT 3",
        scene.customer.id,
    )
    return scene


async def _counts(database: Database, customer_id: uuid.UUID) -> dict[str, int]:
    async with database.connection() as connection:
        return {
            table: await connection.fetchval(f"SELECT count(*) FROM {table} WHERE customer_id = $1", customer_id)  # noqa: S608
            for table in _TABLES
        }


async def _deletion(database: Database) -> customer_deletions.CustomerDeletion:
    (deletion,) = await customer_deletions.list_newest(database)
    return deletion


async def test_a_deletion_that_was_killed_in_the_middle_is_finished_by_another_and_touches_nobody_else(
    database: Database, database_url: str
) -> None:
    gone, stays = await _settled(database, messages=6 * BATCH), await _settled(database, messages=50)
    before = await _counts(database, stays.customer.id)
    assert all(before.values()), before
    assert await customer_deletions.begin(database, gone.customer.id)
    process = subprocess.Popen([sys.executable, "-c", _KILLED, database_url])  # noqa: ASYNC220  it is killed

    async def begun() -> bool:
        return (await _deletion(database)).deleted_rows >= 2 * BATCH

    await until(begun, timeout_s=60, what="the first batches")
    process.kill()
    process.wait()
    half = await _deletion(database)
    assert half.finished_at is None
    assert 0 < half.deleted_rows < 18 * BATCH

    assert await customer_deletions.go_on(database, for_s=120) == [gone.customer.id]
    done = await _deletion(database)
    assert done.finished_at is not None
    assert done.deleted_rows > 18 * BATCH
    assert set((await _counts(database, gone.customer.id)).values()) == {0}
    assert await gone.value("SELECT count(*) FROM customers WHERE id = $1", gone.customer.id) == 0
    assert await gone.value("SELECT count(*) FROM files_to_delete") == 3
    assert await _counts(database, stays.customer.id) == before
    assert await customer_deletions.go_on(database, for_s=1) is None


async def test_no_statement_of_a_deletion_deletes_more_rows_than_a_batch(database: Database) -> None:
    scene = await _settled(database, messages=3 * BATCH + 10)
    await customer_deletions.begin(database, scene.customer.id)
    left = await _counts(database, scene.customer.id)
    while (await _deletion(database)).finished_at is None:
        assert await customer_deletions.go_on(database, for_s=0.000_001) is not None
        now = await _counts(database, scene.customer.id)
        hanging = ("media", "knowledge_chunks", "contact_identities", "chatbots", "channels", "webhook_endpoints")
        fewer = {table: left[table] - now[table] for table in _TABLES if table not in hanging}
        assert sum(fewer.values()) <= BATCH, fewer
        left = now


async def test_every_foreign_key_to_a_row_that_can_be_deleted_has_an_index(database: Database) -> None:
    """Failed before: for each contact that went, all conversations were read, and for a channel, all messages."""
    async with database.connection() as connection:
        without = await connection.fetch("""
            SELECT k.conname FROM pg_constraint k
            WHERE k.contype = 'f' AND NOT EXISTS (
                SELECT 1 FROM pg_index i
                WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = ANY(k.conkey)
            )
        """)
    assert [record["conname"] for record in without] == []


async def test_a_customer_who_is_being_deleted_is_gone_for_whoever_asks(database: Database) -> None:
    scene = await _settled(database, messages=1)
    key = await make_api_key(database, scene.customer.id, name="another")
    assert await customer_deletions.begin(database, scene.customer.id)
    assert await customers.get(database, customer_id=scene.customer.id) is None
    assert await customers.list_page(database) == []
    assert await customers.update(database, customer_id=scene.customer.id, changes={"name": "back"}) is None
    assert await api_keys.find(database, key) is None
    assert await api_keys.create(database, customer_id=scene.customer.id, name="new") is None
    assert not await customers.delete(database, customer_id=scene.customer.id)
    job = IncomingMessageJob(
        chatbot_id=scene.chatbot.id, external_user_id="ana", content="more", channel=scene.channel.kind
    )
    async with database.connection() as connection:
        assert await find_places(connection, wanted_by(job, customer_id=None)) == ()


async def test_rows_that_others_have_locked_are_left_until_they_are_free(database: Database, database_url: str) -> None:
    scene = await _settled(database, messages=5)
    await customer_deletions.begin(database, scene.customer.id)
    locking = await asyncpg.connect(database_url)
    await locking.execute("BEGIN; SELECT 1 FROM usage_logs FOR UPDATE")
    assert await asyncio.wait_for(customer_deletions.go_on(database, for_s=60), 50) == []
    assert (await _deletion(database)).finished_at is None
    await locking.execute("ROLLBACK")
    await locking.close()
    assert await customer_deletions.go_on(database, for_s=60) == [scene.customer.id]


async def test_what_is_in_the_queues_of_a_deleted_customer_ends_without_a_dead_letter(
    database: Database, database_url: str, valkey_url: str
) -> None:
    async with working(settings_for(valkey_url, database_url)) as app:
        customer = await make_customer(database)
        chatbot = await make_chatbot(database, customer.id)
        await make_channel(database, chatbot)
        message = IncomingMessageJob(chatbot_id=chatbot.id, external_user_id="ana", content="hello", channel="WIDGET")
        await asyncio.gather(*(app.accept(message) for _ in range(40)))
        assert await customers.delete(database, customer_id=customer.id)

        async def at_rest() -> bool:
            deletion = await _deletion(database)
            counts = [
                await app.broker.counts(queue) for queue in ("incoming-messages", "ai-processing", "outgoing-messages")
            ]
            waiting = sum(one.waiting + one.prioritized + one.delayed + one.active for one in counts)
            return deletion.finished_at is not None and waiting == 0

        await until(at_rest, timeout_s=30)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM jobs") == 0
            assert await connection.fetchval("SELECT count(*) FROM customers") == 0

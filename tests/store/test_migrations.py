"""Migrations of a database that is at work: writers go on, and a run that was interrupted is continued."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.exc import SQLAlchemyError

from replyline.store.migrate import migrate
from tests.waiting import until

_BUILDING = """
SELECT pid FROM pg_stat_activity
WHERE query LIKE 'CREATE UNIQUE INDEX CONCURRENTLY ' || $1 || '%' AND wait_event_type = 'Lock' AND datname = current_database()
"""
_VALID = """
SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indisvalid AND i.indisunique
  AND c.relname IN ('chatbots_external_reference', 'conversations_contact', 'conversations_external_reference')
"""
_OLD_CONSTRAINT = (
    "SELECT count(*) FROM pg_constraint WHERE conname = 'conversations_channel_id_contact_id_chatbot_id_key'"
)


@pytest.fixture
async def old_url(database_url: str) -> AsyncIterator[str]:
    """A database at migration 0003."""
    server, _, name = database_url.partition("?")[0].rpartition("/")
    old = f"{name}_old"
    admin = await asyncpg.connect(database_url)
    await admin.execute(f"DROP DATABASE IF EXISTS {old} WITH (FORCE)")
    await admin.execute(f"CREATE DATABASE {old}")
    url = database_url.replace(f"{server}/{name}", f"{server}/{old}")
    await asyncio.to_thread(migrate, url, to="0003")
    yield url
    await admin.execute(f"DROP DATABASE {old} WITH (FORCE)")
    await admin.close()


async def _converse(connection: asyncpg.Connection) -> uuid.UUID:
    """Write a customer with all that a conversation needs, and the conversation."""
    customer, chatbot, channel, contact, conversation = (uuid.uuid4() for _ in range(5))
    await connection.execute("INSERT INTO customers (id, name) VALUES ($1, 'x')", customer)
    await connection.execute("INSERT INTO chatbots (id, customer_id, name) VALUES ($1, $2, 'x')", chatbot, customer)
    await connection.execute(
        "INSERT INTO channels (id, customer_id, chatbot_id, kind, name, channel_key, external_id)"
        " VALUES ($1, $2, $3, 'WIDGET', 'x', $4, $4)",
        channel,
        customer,
        chatbot,
        str(channel),
    )
    await connection.execute(
        "INSERT INTO contacts (id, customer_id, channel_id) VALUES ($1, $2, $3)", contact, customer, channel
    )
    await connection.execute(
        "INSERT INTO conversations (id, customer_id, chatbot_id, channel_id, contact_id, reply_to)"
        " VALUES ($1, $2, $3, $4, $5, 'x')",
        conversation,
        customer,
        chatbot,
        channel,
        contact,
    )
    return conversation


async def test_the_indexes_of_references_are_made_while_conversations_are_written_and_again_after_an_interruption(
    old_url: str,
) -> None:
    looking, reading, writing, other = [await asyncpg.connect(old_url) for _ in range(4)]
    await _converse(other)
    await reading.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    migrating = asyncio.create_task(asyncio.to_thread(migrate, old_url, to="0004"))
    await until(lambda: looking.fetchval(_BUILDING, "chatbots_external_reference"), timeout_s=60)
    await writing.execute("BEGIN; UPDATE conversations SET updated_at = now()")
    await reading.execute("COMMIT")
    builder = await until(lambda: looking.fetchval(_BUILDING, "conversations_contact"), timeout_s=60)
    await other.execute("SET lock_timeout = '2s'")
    await _converse(other)  # a lock that the index asked for would be in front of it

    await looking.execute("SELECT pg_terminate_backend($1)", builder)
    with pytest.raises(SQLAlchemyError):
        await migrating
    await writing.execute("COMMIT")
    assert await looking.fetchval(_OLD_CONSTRAINT) == 1
    await asyncio.to_thread(migrate, old_url, to="0004")
    assert await looking.fetchval(_VALID) == 3
    assert await looking.fetchval(_OLD_CONSTRAINT) == 0
    await asyncio.to_thread(migrate, old_url)
    for connection in (looking, reading, writing, other):
        await connection.close()

"""What a search of a knowledge base costs: pages by index, however much this chatbot and all others keep."""

import asyncio
import uuid

import pytest

from replyline.store import knowledge
from replyline.store.chatbots import Chatbot
from replyline.store.database import Connection, Database
from replyline.store.knowledge import MAX_DOCUMENTS, DocumentRefused
from tests.explained import explained
from tests.make import make_chatbot, make_customer, make_document

_PIECES = 10_000
"""Of the chatbot, and as many of another one."""
_MOST_BUFFERS = 150
"""Each of them has about 300 pages here, of the shortest pieces."""


async def _fill(connection: Connection, chatbot: Chatbot, documents: int, pieces: int, words: str) -> None:
    """Documents of which each has `pieces`: all are called and hold `words`, and a number."""
    await connection.execute(
        "WITH made AS (INSERT INTO knowledge_documents (id, customer_id, chatbot_id, title, content) "
        "  SELECT gen_random_uuid(), $1, $2, $5 || ' ' || n, 'x' FROM generate_series(1, $3::int) AS n RETURNING id) "
        "INSERT INTO knowledge_chunks (id, customer_id, chatbot_id, document_id, position, content) "
        "SELECT gen_random_uuid(), $1, $2, id, n, $5 || ' ' || n FROM made, generate_series(1, $4::int) AS n",
        chatbot.customer_id,
        chatbot.id,
        documents,
        pieces,
        words,
    )


@pytest.fixture
async def chatbot(database: Database) -> Chatbot:
    """One with 100 documents about cakes and one about bread, beside 200 documents about bread of somebody else's."""
    made = await make_chatbot(database, (await make_customer(database)).id)
    other = await make_chatbot(database, (await make_customer(database)).id)
    async with database.connection() as connection:
        await _fill(connection, other, 200, _PIECES // 200, "bread and rolls for everybody")
        await _fill(connection, made, 100, _PIECES // 100, "cakes with cream")
        await make_document(database, made, title="Our bread", content="Sourdough from Tuesday on.")
        await connection.execute("VACUUM ANALYZE knowledge_documents, knowledge_chunks")
    return made


async def _search(database: Database, chatbot_id: uuid.UUID, query: str) -> tuple[list[str], int]:
    """What is found, and how many pages were read for it."""
    async with database.connection() as connection, explained(connection) as seen:
        found = await knowledge.search(connection, chatbot_id=chatbot_id, query=query, limit=3)
    ((_, pages),) = [(text, pages) for text, pages in seen if "knowledge_chunks" in text]
    return [title for title, _ in found], pages


async def test_a_search_reads_by_index_what_fits_of_its_chatbot(database: Database, chatbot: Chatbot) -> None:
    for query in ("Do you have bread?", "sourdough", "bread rolls everybody tuesday"):
        found, pages = await _search(database, chatbot.id, query)
        assert found == ["Our bread"]
        assert pages < _MOST_BUFFERS
    found, pages = await _search(database, chatbot.id, "nothing of it")
    assert found == []
    assert pages < _MOST_BUFFERS


async def test_titles_that_all_fit_do_not_make_it_read_all_pieces(database: Database, chatbot: Chatbot) -> None:
    async with database.connection() as connection:
        await _fill(connection, chatbot, 100, 50, "1")
        await connection.execute(
            "UPDATE knowledge_documents SET title = 'Pastry ' || title WHERE chatbot_id = $1", chatbot.id
        )
        await connection.execute("VACUUM ANALYZE knowledge_documents, knowledge_chunks")
    found, pages = await _search(database, chatbot.id, "pastry")
    assert len(found) == 3
    assert all(title.startswith("Pastry") for title in found)
    assert pages < _MOST_BUFFERS


async def test_the_bound_on_documents_holds_for_many_at_once(database: Database) -> None:
    chatbot = await make_chatbot(database, (await make_customer(database)).id)
    async with database.connection() as connection:
        await _fill(connection, chatbot, MAX_DOCUMENTS - 2, 0, "document")
    added = await asyncio.gather(
        *(make_document(database, chatbot, title=f"new {number}") for number in range(6)), return_exceptions=True
    )
    assert sum(isinstance(one, DocumentRefused) for one in added) == 4
    assert len([one for one in added if not isinstance(one, BaseException)]) == 2

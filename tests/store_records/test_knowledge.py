"""The knowledge base: what a question finds, in which order, and how texts are cut."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replyline.store import knowledge
from replyline.store.chatbots import Chatbot
from replyline.store.database import Database, StoreBusy
from replyline.store.knowledge import CHUNK_CHARS, MAX_CHUNKS, MAX_DOCUMENTS, DocumentRefused, DocumentTaken, split
from tests.make import make_chatbot, make_customer, make_document


@pytest.fixture
async def chatbot(database: Database) -> Chatbot:
    made = await make_chatbot(database, (await make_customer(database)).id)
    await make_document(database, made)
    await make_document(
        database, made, title="Delivery", content="We bring bread and cakes within 10 km for 5 dollars."
    )
    await make_document(database, made, title="Öffnungszeiten", content="Wir öffnen um sieben Uhr morgens.")
    return made


async def _titles(database: Database, chatbot_id: uuid.UUID, query: str, limit: int = 3) -> list[str]:
    found = await knowledge.passages(database, chatbot_id=chatbot_id, query=query, limit=limit)
    return [title for title, _ in found]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("Are you closed on Mondays?", "Opening hours"),
        ("How much does it cost to have a cake brought?", "Delivery"),
        ("what are your opening hours", "Opening hours"),
        ("delivery?", "Delivery"),
        ("Wann öffnen Sie morgens?", "Öffnungszeiten"),
    ],
)
async def test_a_question_finds_the_passage_that_fits_best(
    database: Database, chatbot: Chatbot, query: str, title: str
) -> None:
    assert (await _titles(database, chatbot.id, query))[0] == title


@pytest.mark.parametrize("query", ["What is the meaning of life?", "", "   ", "?!", "the of and is", "\0"])
async def test_a_question_about_something_else_finds_nothing(database: Database, chatbot: Chatbot, query: str) -> None:
    assert await _titles(database, chatbot.id, query) == []


@pytest.mark.parametrize(
    "query", ["' OR 1=1 --", "a & | ! ( : *", "\\", "C:\\bread 'cakes'", '"', "bread" * 3000, "-bread"]
)
async def test_a_question_of_any_shape_is_only_a_question(database: Database, chatbot: Chatbot, query: str) -> None:
    assert len(await _titles(database, chatbot.id, query)) <= 3


async def test_no_more_passages_than_asked_for_and_only_of_the_chatbot(database: Database, chatbot: Chatbot) -> None:
    other = await make_chatbot(database, chatbot.customer_id)
    await make_document(database, other, title="Other bread", content="bread bread bread")
    assert await _titles(database, chatbot.id, "bread hours", limit=1) != []
    assert len(await _titles(database, chatbot.id, "bread open", limit=1)) == 1
    assert await _titles(database, other.id, "bread") == ["Other bread"]
    assert await _titles(database, other.id, "Mondays") == []


async def test_the_best_pieces_are_those_of_words_and_title_together(database: Database, chatbot: Chatbot) -> None:
    made = await make_chatbot(database, chatbot.customer_id)
    await make_document(database, made, title="Delivery", content="We are on the road each day.")
    await make_document(database, made, title="Delivery of wine", content="Wine comes within a day.")
    await make_document(database, made, title="Wine", content="Ask for the list.")
    assert await _titles(database, made.id, "delivery of wine") == ["Delivery of wine", "Delivery", "Wine"]


async def test_a_deleted_document_is_no_longer_found(database: Database, chatbot: Chatbot) -> None:
    (document, *_) = await knowledge.list_page(database, customer_id=chatbot.customer_id)
    assert await knowledge.delete(database, document.id, customer_id=chatbot.customer_id)
    assert await _titles(database, chatbot.id, "closed on Mondays") == []


async def test_a_document_that_cannot_be_is_refused(database: Database, chatbot: Chatbot) -> None:
    with pytest.raises(DocumentTaken):
        await make_document(database, chatbot)
    for content in ("", " \n\n ", "x" * (knowledge.MAX_DOCUMENT_CHARS + 1)):
        with pytest.raises(DocumentRefused):
            await make_document(database, chatbot, title="new", content=content)
    stranger = await make_customer(database)
    with pytest.raises(DocumentRefused):
        await knowledge.add(database, customer_id=stranger.id, chatbot_id=chatbot.id, title="x", content="x")


@given(st.text(alphabet="ab .\n", max_size=4000))
def test_cutting_loses_no_word_and_keeps_to_the_size(text: str) -> None:
    pieces = split(text)
    assert all(0 < len(piece) <= CHUNK_CHARS for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_paragraphs_are_kept_together() -> None:
    paragraphs = [f"Paragraph {n}. " + "word " * 60 for n in range(4)]
    pieces = split("\n\n".join(paragraphs))
    assert [piece.count("Paragraph") for piece in pieces] == [2, 2]


async def test_a_search_that_takes_too_long_is_ended(database: Database, chatbot: Chatbot) -> None:
    await make_document(database, chatbot, title="Everything", content="bread and cakes.\n\n" * 10_000)
    with pytest.raises(StoreBusy):
        await knowledge.passages(database, chatbot_id=chatbot.id, query="bread cakes", limit=3, within_s=0.001)
    assert await knowledge.passages(database, chatbot_id=chatbot.id, query="bread cakes", limit=3, within_s=60)


async def test_a_customer_keeps_a_bounded_number_of_documents(database: Database, chatbot: Chatbot) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO knowledge_documents (id, customer_id, chatbot_id, title, content) "
            "SELECT gen_random_uuid(), $1, $2, 'document ' || n, 'x' FROM generate_series(4, $3::int) AS n",
            chatbot.customer_id,
            chatbot.id,
            MAX_DOCUMENTS,
        )
    with pytest.raises(DocumentRefused, match="at most 1000 documents"):
        await make_document(database, chatbot, title="One too many")


async def test_a_chatbot_keeps_a_bounded_number_of_pieces(database: Database, chatbot: Chatbot) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO knowledge_chunks (id, customer_id, chatbot_id, document_id, position, content) "
            "SELECT gen_random_uuid(), customer_id, chatbot_id, id, n, 'x' "
            "FROM generate_series(10, 10 + $2::int) AS n, (SELECT * FROM knowledge_documents WHERE chatbot_id = $1 LIMIT 1) d",
            chatbot.id,
            MAX_CHUNKS - 4,
        )
    with pytest.raises(DocumentRefused, match="at most 20000 pieces"):
        await make_document(database, chatbot, title="One too many")

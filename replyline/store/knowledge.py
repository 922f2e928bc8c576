"""The knowledge base: documents in pieces, found by Postgres full text."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from replyline.ids import new_id
from replyline.store.database import Connection, Database

CHUNK_CHARS = 800
MAX_DOCUMENT_CHARS = 2_000_000
MAX_DOCUMENTS = 1_000
"""Of one customer."""
MAX_CHUNKS = 20_000
"""Of one chatbot: about 16 million characters."""
_MAX_QUERY_WORDS = 64
_SEARCH_S = 2.0


@dataclass(frozen=True, slots=True)
class Document:
    """One document; `chunks` is how many pieces it was cut into."""

    id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    title: str
    chars: int
    chunks: int
    created_at: datetime


class DocumentRefused(Exception):
    """The document cannot be kept; the message says why."""


class DocumentTaken(DocumentRefused):
    """The chatbot already has a document with this title."""


_INSERT = """
INSERT INTO knowledge_documents (id, customer_id, chatbot_id, title, content) VALUES ($1, $2, $3, $4, $5)
"""
_CHUNKS = """
INSERT INTO knowledge_chunks (id, customer_id, chatbot_id, document_id, position, content)
SELECT id, $2, $3, $4, position, content FROM unnest($1::uuid[], $5::int[], $6::text[]) AS new (id, position, content)
"""
# What is counted must still be so when the document is kept. Messages do not wait for it: they hold their customer's key only.
_ONE_AT_A_TIME = "SELECT FROM customers WHERE id = $1 FOR NO KEY UPDATE"
_STORED = """
SELECT (SELECT count(*) FROM knowledge_documents WHERE customer_id = $1) AS documents,
       (SELECT count(*) FROM knowledge_chunks WHERE chatbot_id = $2) AS chunks
"""
_COLUMNS = """
d.id, d.customer_id, d.chatbot_id, d.title, length(d.content) AS chars,
(SELECT count(*)::int FROM knowledge_chunks k WHERE k.document_id = d.id) AS chunks, d.created_at
"""
_LIST = f"""
SELECT {_COLUMNS} FROM knowledge_documents d
WHERE d.customer_id = $1 AND ($2::uuid IS NULL OR d.chatbot_id = $2) AND ($3::uuid IS NULL OR d.id > $3) ORDER BY d.id LIMIT $4
"""  # noqa: S608  the columns are the constant above
_GET = f"SELECT {_COLUMNS}, d.content FROM knowledge_documents d WHERE d.id = $1 AND d.customer_id = $2"  # noqa: S608  as above
_DELETE = "DELETE FROM knowledge_documents WHERE id = $1 AND customer_id = $2 RETURNING id"

# Any word of the question may match, but not those that English leaves out ("what", "the"): every text would fit. What a document
# is called says what its pieces are about. websearch_to_tsquery takes whatever it is given, without a syntax error.
#
# Two reads by index: the documents whose title fits, and the pieces that fit. A piece that fits only by its title ranks as its
# title does, so of these none but the first few of the best documents can be among the best. The chatbot's id is a word of what
# is indexed (migration 0011).
_PASSAGES = """
WITH words AS (
    SELECT lexeme FROM unnest(to_tsvector('english', $2) || to_tsvector('simple', $2))
    WHERE to_tsvector('english', lexeme) <> ''::tsvector
), question AS MATERIALIZED (
    SELECT terms, terms && quote_literal($1::uuid::text)::tsquery AS of_chatbot
    FROM (
        SELECT websearch_to_tsquery('simple', string_agg('"' || replace(lexeme, '"', ' ') || '"', ' or ')) AS terms FROM words
    ) asked
), titled AS MATERIALIZED (
    SELECT d.id, ts_rank(d.title_words, (SELECT terms FROM question)) AS rank FROM knowledge_documents d
    WHERE d.chatbot_id = $1
      AND d.title_words || array_to_tsvector(ARRAY[d.chatbot_id::text]) @@ (SELECT of_chatbot FROM question)
), by_title AS (
    SELECT k.id, k.document_id, k.position, ts_rank(k.words, (SELECT terms FROM question)) + best.rank AS rank
    FROM (SELECT id, rank FROM titled ORDER BY rank DESC, id LIMIT $3) best CROSS JOIN LATERAL (
        SELECT c.id, c.document_id, c.position, c.words FROM knowledge_chunks c
        WHERE c.document_id = best.id ORDER BY c.position LIMIT $3
    ) k
), by_words AS (
    SELECT k.id, k.document_id, k.position,
           ts_rank(k.words, (SELECT terms FROM question)) + coalesce(titled.rank, 0::real) AS rank
    FROM knowledge_chunks k LEFT JOIN titled ON titled.id = k.document_id
    WHERE k.chatbot_id = $1
      AND k.words || array_to_tsvector(ARRAY[k.chatbot_id::text]) @@ (SELECT of_chatbot FROM question)
    ORDER BY 4 DESC, 2, 3 LIMIT $3
), best AS (
    SELECT id, document_id, position, rank FROM by_title UNION SELECT id, document_id, position, rank FROM by_words
    ORDER BY rank DESC, document_id, position LIMIT $3
)
SELECT d.title, k.content
FROM best JOIN knowledge_chunks k ON k.id = best.id JOIN knowledge_documents d ON d.id = best.document_id
ORDER BY best.rank DESC, best.document_id, best.position
"""


async def add(db: Database, *, customer_id: uuid.UUID, chatbot_id: uuid.UUID, title: str, content: str) -> Document:
    """Keep a document and cut it into pieces.

    Raises:
        DocumentRefused: it is empty or too long, the title is taken, the customer has no such chatbot, or as much as may be kept.
    """
    text = content.replace("\x00", "").strip()
    if not text or len(text) > MAX_DOCUMENT_CHARS:
        raise DocumentRefused(f"a document has 1 to {MAX_DOCUMENT_CHARS} characters, this one {len(text)}")
    chunks = split(text)
    document_id = new_id()
    try:
        async with db.transaction() as connection:
            await connection.execute(_ONE_AT_A_TIME, customer_id)
            stored = await connection.fetchrow(_STORED, customer_id, chatbot_id)
            if stored is not None and stored["documents"] >= MAX_DOCUMENTS:
                raise DocumentRefused(f"a customer has at most {MAX_DOCUMENTS} documents; delete some first")
            if stored is not None and stored["chunks"] + len(chunks) > MAX_CHUNKS:
                raise DocumentRefused(
                    f"a chatbot has at most {MAX_CHUNKS} pieces of documents, of about {CHUNK_CHARS} characters each; "
                    f"it has {stored['chunks']}, and this document {len(chunks)}"
                )
            await connection.execute(_INSERT, document_id, customer_id, chatbot_id, title, text)
            await connection.execute(
                _CHUNKS,
                [new_id() for _ in chunks],
                customer_id,
                chatbot_id,
                document_id,
                list(range(len(chunks))),
                chunks,
            )
            record = await connection.fetchrow(_GET, document_id, customer_id)
    except asyncpg.UniqueViolationError as error:
        raise DocumentTaken("the chatbot already has a document with this title") from error
    except asyncpg.ForeignKeyViolationError as error:
        raise DocumentRefused("the customer has no such chatbot") from error
    except asyncpg.CheckViolationError as error:
        raise DocumentRefused(f"refused by {error.constraint_name}") from error
    if record is None:
        raise LookupError("an inserted document was not returned")
    return _document(record)


async def list_page(
    db: Database,
    *,
    customer_id: uuid.UUID,
    chatbot_id: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[Document]:
    """A page of the customer's documents, oldest first, after the one given."""
    async with db.connection() as connection:
        records = await connection.fetch(_LIST, customer_id, chatbot_id, after, limit)
    return [_document(record) for record in records]


async def get(db: Database, document_id: uuid.UUID, *, customer_id: uuid.UUID) -> tuple[Document, str] | None:
    """The document with its text, or None where the customer has no such one."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, document_id, customer_id)
    return None if record is None else (_document(record), record["content"])


async def delete(db: Database, document_id: uuid.UUID, *, customer_id: uuid.UUID) -> bool:
    """Delete the document; False where the customer has no such one."""
    async with db.connection() as connection:
        return await connection.fetchval(_DELETE, document_id, customer_id) is not None


async def passages(
    db: Database, *, chatbot_id: uuid.UUID, query: str, limit: int, within_s: float = _SEARCH_S
) -> Sequence[tuple[str, str]]:
    """The pieces that fit the question best, as (title, text), best first; at most `limit`.

    Raises:
        StoreBusy: they were not found in `within_s` seconds.
    """
    async with db.transaction() as connection:
        await connection.execute(f"SET LOCAL statement_timeout = {round(within_s * 1000)}")
        return await search(connection, chatbot_id=chatbot_id, query=query, limit=limit)


async def search(connection: Connection, *, chatbot_id: uuid.UUID, query: str, limit: int) -> Sequence[tuple[str, str]]:
    """See `passages`: the same in a transaction of the caller's."""
    words = " ".join(query.replace("\x00", " ").split()[:_MAX_QUERY_WORDS])
    records = await connection.fetch(_PASSAGES, chatbot_id, words, limit)
    return [(record["title"], record["content"]) for record in records]


def split(text: str) -> list[str]:
    """Cut into pieces of at most about 800 characters, at paragraphs where it can be, else at sentences, else anywhere."""
    chunks: list[str] = []
    current = ""
    for part in _parts(text):
        if current and len(current) + len(part) + 2 > CHUNK_CHARS:
            chunks.append(current)
            current = part
        else:
            current = f"{current}\n\n{part}" if current else part
    if current:
        chunks.append(current)
    return chunks


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    for raw in re.split(r"\n\s*\n", text):
        paragraph = raw.strip()
        if len(paragraph) <= CHUNK_CHARS:
            parts += [paragraph] if paragraph else []
            continue
        for sentence in re.split(r"(?<=[.!?])\s+", paragraph):
            parts += [sentence[start : start + CHUNK_CHARS] for start in range(0, len(sentence), CHUNK_CHARS)]
    return parts


def _document(record: asyncpg.Record) -> Document:
    return Document(**{name: value for name, value in record.items() if name != "content"})

"""Deleting what much hangs on, a channel, a chatbot or a webhook endpoint: closed at once, emptied in batches, then deleted."""

import time
import uuid
from collections.abc import Sequence
from typing import Literal, TypeAlias

from replyline.store.database import Database, StoreBusy
from replyline.store.deletions import delete_with_all

Kind: TypeAlias = Literal["channel", "chatbot", "endpoint"]

BATCH = 1000
_AT_ONCE = 100
"""So many conversations at a time are emptied of messages, and then deleted."""
MOST_S = 20.0
"""One call works for so many seconds; the next one goes on."""

_OPEN: dict[Kind, str] = {
    "channel": "UPDATE channels SET enabled = false WHERE id = $1 AND customer_id = $2 RETURNING id",
    "chatbot": """
        WITH closed AS (UPDATE channels SET enabled = false WHERE chatbot_id = $1 AND customer_id = $2 AND enabled)
        SELECT id FROM chatbots WHERE id = $1 AND customer_id = $2
    """,
    "endpoint": "UPDATE webhook_endpoints SET enabled = false WHERE id = $1 AND customer_id = $2 RETURNING id",
}
_DELETE: dict[Kind, str] = {
    "channel": "DELETE FROM channels WHERE id = $1 AND customer_id = $2 RETURNING id",
    "chatbot": "DELETE FROM chatbots WHERE id = $1 AND customer_id = $2 RETURNING id",
    "endpoint": "DELETE FROM webhook_endpoints WHERE id = $1 AND customer_id = $2 RETURNING id",
}
_TABLES: dict[Kind, Sequence[tuple[str, str]]] = {
    "channel": [
        (table, "channel_id")
        for table in (
            *("media", "visitors", "contact_identities", "contacts", "unread_callbacks"),
            *("parked_statuses", "parked_amendments", "session_events", "channel_notices"),
        )
    ],
    "chatbot": [("knowledge_chunks", "chatbot_id"), ("knowledge_documents", "chatbot_id")],
    "endpoint": [("webhook_events", "endpoint_id")],
}
# What a move has locked just now is passed over: the last statement waits for it.
_SOME = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {column} = $1 LIMIT $2 FOR UPDATE SKIP LOCKED))
"""
_SOME_MESSAGES = """
DELETE FROM messages WHERE ctid = ANY(ARRAY(
    SELECT m.ctid FROM (SELECT id FROM conversations WHERE {column} = $1 ORDER BY {column}, contact_id LIMIT $3) v
    JOIN messages m ON m.conversation_id = v.id LIMIT $2 FOR UPDATE OF m SKIP LOCKED
))
"""
_SOME_CONVERSATIONS = """
DELETE FROM conversations WHERE ctid = ANY(ARRAY(
    SELECT v.ctid FROM conversations v
    JOIN (SELECT id FROM conversations WHERE {column} = $1 ORDER BY {column}, contact_id LIMIT $2) first ON first.id = v.id
    WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.conversation_id = v.id) FOR UPDATE OF v SKIP LOCKED
))
"""


async def delete_in_batches(
    db: Database, kind: Kind, record_id: uuid.UUID, *, customer_id: uuid.UUID, for_s: float = MOST_S
) -> bool:
    """Delete it with all that hangs on it; False where the customer has no such one.

    Raises:
        StoreBusy: that takes longer than `for_s` seconds. Nothing comes in or goes out by it any more, and another call goes on.
    """
    until = time.monotonic() + for_s
    async with db.connection() as connection:
        if await connection.fetchval(_OPEN[kind], record_id, customer_id) is None:
            return False
        channels = await connection.fetch("SELECT id FROM channels WHERE chatbot_id = $1", record_id)
    if kind == "chatbot":
        for channel in channels:
            await _empty(db, "channel", channel["id"], until)
    await _empty(db, kind, record_id, until)
    return await delete_with_all(db, _DELETE[kind], record_id, customer_id)


async def _empty(db: Database, kind: Kind, record_id: uuid.UUID, until: float) -> None:
    if kind != "endpoint":
        column = f"{kind}_id"
        messages, conversations = _SOME_MESSAGES.format(column=column), _SOME_CONVERSATIONS.format(column=column)
        while await _delete(db, until, messages, record_id, BATCH, _AT_ONCE) or await _delete(
            db, until, conversations, record_id, _AT_ONCE
        ):
            pass
    for table, column in _TABLES[kind]:
        while await _delete(db, until, _SOME.format(table=table, column=column), record_id, BATCH):
            pass


async def _delete(db: Database, until: float, statement: str, *values: object) -> int:
    if time.monotonic() > until:
        raise StoreBusy("so much hangs on it that deleting takes longer: it is closed, and another call goes on")
    async with db.connection() as connection:
        return int((await connection.execute(statement, *values)).rsplit(" ", 1)[-1])

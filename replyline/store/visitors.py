"""Visitors of a site's widget, and the tokens that prove that a browser is one of them."""

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from replyline.ids import new_id
from replyline.store.database import Connection, Database

KEPT_S = 180 * 86_400.0
"""A token that is not used for so long, in seconds, is worth nothing (contracts §4.2)."""
MOST_TOKENS = 20
"""Of one visitor: somebody whom the site vouches for may use several browsers. The oldest makes room."""

VisitorKind = Literal["visitor", "external"]


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person at a widget, as the token `token_id` proves them.

    `identity` is how the channel knows them: made by us (`visitor`), or the site's own id of a user it vouches for (`external`).
    `conversation_id` is their conversation's, which has `begun` once they have written.
    """

    id: uuid.UUID
    customer_id: uuid.UUID
    channel_id: uuid.UUID
    chatbot_id: uuid.UUID
    identity_kind: VisitorKind
    identity: str
    conversation_id: uuid.UUID
    begun: bool
    token_id: uuid.UUID


_SELECT = """
SELECT p.id, p.customer_id, p.channel_id, c.chatbot_id, p.identity_kind, p.identity, p.conversation_id,
       EXISTS (SELECT 1 FROM conversations v WHERE v.id = p.conversation_id) AS begun, t.id AS token_id
FROM visitor_tokens t JOIN visitors p ON p.id = t.visitor_id JOIN channels c ON c.id = p.channel_id AND c.enabled
"""
_BY_TOKEN = f"{_SELECT} WHERE t.token_hash = $1 AND p.channel_id = $2 AND t.expires_at > now()"
_BY_TOKEN_ID = f"{_SELECT} WHERE t.id = $1 AND t.expires_at > now()"

# The update that changes nothing locks the row, so that two pages of one visitor agree on their conversation.
_ARRIVE = """
INSERT INTO visitors (id, customer_id, channel_id, identity_kind, identity, conversation_id)
SELECT $1, c.customer_id, c.id, $3, $4, $5 FROM channels c WHERE c.id = $2
ON CONFLICT (channel_id, identity_kind, identity) DO UPDATE SET identity = excluded.identity
RETURNING id
"""
_LET_IN = """
INSERT INTO visitor_tokens (id, customer_id, visitor_id, token_hash, expires_at)
SELECT $1, p.customer_id, p.id, $3, now() + make_interval(secs => $4) FROM visitors p WHERE p.id = $2
"""
_TRIM_TOKENS = """
DELETE FROM visitor_tokens WHERE visitor_id = $1 AND id <= (
    SELECT id FROM visitor_tokens WHERE visitor_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1
)
"""
_LOCK = "SELECT id FROM visitors WHERE id = $1 FOR UPDATE"
_USE = "UPDATE visitor_tokens SET expires_at = now() + make_interval(secs => $2) WHERE id = $1"

# The conversation that the person has with the chatbot that the widget has now, if there is one; a server of the customer may
# have begun it. Where the widget was given another chatbot, the next conversation has an id of its own.
_CONVERSATION = """
UPDATE visitors p SET conversation_id = r.conversation_id
FROM (
    SELECT q.id, CASE
        WHEN mine.id IS NOT NULL THEN mine.id
        WHEN EXISTS (SELECT 1 FROM conversations o WHERE o.id = q.conversation_id) THEN $2
        ELSE q.conversation_id
    END AS conversation_id
    FROM visitors q JOIN channels c ON c.id = q.channel_id
    LEFT JOIN contact_identities i ON i.channel_id = q.channel_id AND i.kind = q.identity_kind AND i.value = q.identity
    LEFT JOIN conversations mine
      ON mine.channel_id = i.channel_id AND mine.contact_id = i.contact_id AND mine.chatbot_id = c.chatbot_id
     AND mine.external_reference IS NULL
    WHERE q.id = $1
) r
WHERE p.id = r.id AND p.conversation_id <> r.conversation_id
"""
_GOOD = """
SELECT t.id FROM visitor_tokens t JOIN visitors p ON p.id = t.visitor_id JOIN channels c ON c.id = p.channel_id AND c.enabled
WHERE t.id = ANY($1::uuid[]) AND t.expires_at > now()
"""
_DEPART = "DELETE FROM visitor_tokens WHERE id = $1 AND customer_id = $2"
_PURGE_TOKENS = (
    "DELETE FROM visitor_tokens WHERE id IN (SELECT id FROM visitor_tokens WHERE expires_at < now() LIMIT $1)"
)
_PURGE_VISITORS = """
DELETE FROM visitors WHERE id IN (
    SELECT p.id FROM visitors p
    WHERE p.created_at < now() - make_interval(secs => $2)
      AND NOT EXISTS (SELECT 1 FROM visitor_tokens t WHERE t.visitor_id = p.id) LIMIT $1
)
"""


async def by_token(db: Database, token: str, *, channel_id: uuid.UUID) -> Visitor | None:
    """Whom the token proves at this channel; None where it is unknown, expired or another channel's."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_BY_TOKEN, _hash(token), channel_id)
    return None if record is None else Visitor(**dict(record))


async def by_token_id(db: Database, token_id: uuid.UUID) -> Visitor | None:
    """Whom a session is of; None where its token was given back or has expired, or its channel is off."""
    async with db.connection() as connection:
        return await _read(connection, token_id)


async def good_tokens(db: Database, token_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the tokens that are good still, of channels that are on."""
    async with db.connection() as connection:
        return {record["id"] for record in await connection.fetch(_GOOD, token_ids)}


async def arrive(
    db: Database, *, channel_id: uuid.UUID, kind: VisitorKind, identity: str
) -> tuple[Visitor | None, str]:
    """The visitor of that identity, made if there is none yet, and a new token of theirs, in clear; None as in `come_back`."""
    token, token_id = secrets.token_urlsafe(32), new_id()
    async with db.transaction() as connection:
        visitor_id = await connection.fetchval(_ARRIVE, new_id(), channel_id, kind, identity, new_id())
        await connection.execute(_LET_IN, token_id, visitor_id, _hash(token), KEPT_S)
        await connection.execute(_TRIM_TOKENS, visitor_id, MOST_TOKENS)
        visitor = await _settled(connection, visitor_id, token_id)
    return visitor, token


async def come_back(db: Database, visitor: Visitor) -> Visitor | None:
    """The same visitor once more: the token is good for another while, and the conversation is the one they have now.

    None where the token was given back, or the channel switched off, meanwhile.
    """
    async with db.transaction() as connection:
        await connection.execute(_LOCK, visitor.id)  # before the token, as whoever arrives does
        await connection.execute(_USE, visitor.token_id, KEPT_S)
        return await _settled(connection, visitor.id, visitor.token_id)


async def depart(db: Database, visitor: Visitor) -> None:
    """The token, and every session that was begun with it, is worth nothing any more."""
    async with db.connection() as connection:
        await connection.execute(_DEPART, visitor.token_id, visitor.customer_id)


async def purge(connection: Connection, *, limit: int = 5000) -> int:
    """Delete at most `limit` expired tokens, and visitors that have none left; returns how many went."""
    gone = 0
    for statement, values in ((_PURGE_TOKENS, ()), (_PURGE_VISITORS, (KEPT_S,))):
        gone += int((await connection.execute(statement, limit, *values)).rsplit(" ", 1)[-1])
    return gone


async def _settled(connection: Connection, visitor_id: uuid.UUID, token_id: uuid.UUID) -> Visitor | None:
    await connection.execute(_CONVERSATION, visitor_id, new_id())
    return await _read(connection, token_id)


async def _read(connection: Connection, token_id: uuid.UUID) -> Visitor | None:
    record = await connection.fetchrow(_BY_TOKEN_ID, token_id)
    return None if record is None else Visitor(**dict(record))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

"""Conversations, as a customer sees them: who writes with which chatbot where, and how far it has come."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from replyline.jobs import ChannelKind
from replyline.store.database import Database


@dataclass(frozen=True, slots=True)
class Conversation:
    """The thread of one contact with one chatbot on one channel. `last_seq` is its newest message's place in it."""

    id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    channel_id: uuid.UUID
    channel: ChannelKind
    contact_id: uuid.UUID
    contact_name: str | None
    marketing_opted_out: bool
    """Whether the contact stopped marketing messages; it says nothing of answers."""
    owner: str
    human_until: datetime | None
    """When a human's hold ends by itself; None where it does not, or nobody holds it."""
    reply_to: str
    external_reference: str | None
    """What a producer calls it, if it was begun with a name of the producer's."""
    last_seq: int
    last_inbound_seq: int
    answered_seq: int
    last_inbound_at: datetime | None
    created_at: datetime
    updated_at: datetime


_SELECT = """
SELECT v.id, v.customer_id, v.chatbot_id, v.channel_id, c.kind AS channel, v.contact_id, p.name AS contact_name,
       p.marketing_opted_out, v.owner, v.human_until, v.external_reference,
       v.reply_to, v.last_seq, v.last_inbound_seq, v.answered_seq, v.last_inbound_at, v.created_at, v.updated_at
FROM conversations v JOIN channels c ON c.id = v.channel_id JOIN contacts p ON p.id = v.contact_id
"""
_LIST = f"""
{_SELECT}
WHERE v.customer_id = $1 AND ($2::uuid IS NULL OR v.chatbot_id = $2) AND ($3::uuid IS NULL OR v.channel_id = $3)
  AND ($4::uuid IS NULL OR v.id < $4)
ORDER BY v.id DESC LIMIT $5
"""
_OF_PERSON = """
SELECT v.id FROM contact_identities i JOIN conversations v ON v.channel_id = i.channel_id AND v.contact_id = i.contact_id
WHERE i.channel_id = $1 AND i.customer_id = $2 AND i.value = ANY($3::text[]) ORDER BY v.id DESC LIMIT 1
"""
_GET = f"{_SELECT} WHERE v.id = $1 AND v.customer_id = $2"


async def list_page(
    db: Database,
    *,
    customer_id: uuid.UUID,
    chatbot_id: uuid.UUID | None = None,
    channel_id: uuid.UUID | None = None,
    before: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[Conversation]:
    """A page of the customer's conversations (of one chatbot or channel, where named), newest first, before the one given."""
    async with db.connection() as connection:
        records = await connection.fetch(_LIST, customer_id, chatbot_id, channel_id, before, limit)
    return [Conversation(**dict(record)) for record in records]


async def of_person(
    db: Database, *, channel_id: uuid.UUID, customer_id: uuid.UUID, names: Sequence[str]
) -> uuid.UUID | None:
    """The newest conversation on a channel of somebody whom it knows by one of these names."""
    async with db.connection() as connection:
        found: uuid.UUID | None = await connection.fetchval(_OF_PERSON, channel_id, customer_id, names)
    return found


async def get(db: Database, conversation_id: uuid.UUID, *, customer_id: uuid.UUID) -> Conversation | None:
    """The conversation, or None where the customer has no such one."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, conversation_id, customer_id)
    return None if record is None else Conversation(**dict(record))

"""What a delivery changes on our message, and what it says to the customer's books and webhooks."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from replyline.jobs import ChannelKind
from replyline.statuses import Pricing
from replyline.store.database import Connection
from replyline.store.moves.announce import Announcement
from replyline.store.moves.metering import Fact


@dataclass(frozen=True, slots=True)
class OurMessage:
    """A message of ours as the database has it."""

    id: uuid.UUID
    customer_id: uuid.UUID
    conversation_id: uuid.UUID
    channel_id: uuid.UUID
    chatbot_id: uuid.UUID
    contact_id: uuid.UUID
    channel: ChannelKind
    priority: int
    seq: int
    status: str
    content: str
    external_id: str | None
    trace_id: uuid.UUID
    is_template: bool


_LOCK = """
SELECT m.id, m.customer_id, m.conversation_id, m.channel_id, v.chatbot_id, v.contact_id, c.kind AS channel,
       u.priority::int AS priority, m.seq, m.status, m.content, m.external_id, m.trace_id,
       coalesce(m.body ->> 'type' = 'template', false) OR m.sent_as IS NOT NULL AS is_template
FROM messages m JOIN conversations v ON v.id = m.conversation_id JOIN channels c ON c.id = m.channel_id
JOIN customers u ON u.id = m.customer_id
WHERE m.id = ANY($1::uuid[]) AND m.direction = 'OUTBOUND' ORDER BY m.id FOR UPDATE OF m
"""


async def lock_messages(connection: Connection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, OurMessage]:
    """Lock messages of ours in id order."""
    records = await connection.fetch(_LOCK, sorted(set(ids)))
    return {record["id"]: OurMessage(**dict(record)) for record in records}


def sent_fact(message: OurMessage) -> Fact:
    """The billable fact that a message was sent."""
    return Fact(
        key=f"message_sent:{message.id}",
        kind="message_sent",
        customer_id=message.customer_id,
        channel=message.channel,
        chatbot_id=message.chatbot_id,
        conversation_id=message.conversation_id,
        message_id=message.id,
    )


def price_fact(message: OurMessage, external_id: str, pricing: Pricing) -> Fact:
    """What the channel charges for a message: said with several statuses, billed once (contracts §2.6)."""
    return Fact(
        key=f"whatsapp_pricing:{message.channel_id}:{external_id}",
        kind="whatsapp_pricing",
        customer_id=message.customer_id,
        channel=message.channel,
        chatbot_id=message.chatbot_id,
        conversation_id=message.conversation_id,
        message_id=message.id,
        category=pricing.category,
        pricing_type=pricing.type,
    )


def announcement(
    message: OurMessage,
    status: str,
    *,
    external_id: str | None = None,
    error_reason: str | None = None,
    parent_id: uuid.UUID | None = None,
) -> Announcement:
    """The webhook event for a message of ours that reached `status`."""
    data: dict[str, object] = {
        "message_id": str(message.id),
        "conversation_id": str(message.conversation_id),
        "contact_id": str(message.contact_id),
        "chatbot_id": str(message.chatbot_id),
        "channel_id": str(message.channel_id),
        "channel": message.channel,
        "direction": "OUTBOUND",
        "status": status,
        "seq": message.seq,
        "external_id": external_id or message.external_id,
    }
    if status == "SENT":
        data["content"] = message.content
    if error_reason is not None:
        data["error_reason"] = error_reason
    return Announcement(
        type="message.failed" if status == "BLOCKED_WINDOW" else f"message.{status.lower()}",
        customer_id=message.customer_id,
        priority=message.priority,
        message_id=message.id,
        trace_id=message.trace_id,
        data=data,
        parent_id=parent_id,
    )

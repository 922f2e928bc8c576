"""Writing down what a customer used: one row a billable fact, however often it is reported."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from replyline.ids import new_id
from replyline.jobs import ChannelKind
from replyline.store.database import Connection


@dataclass(frozen=True, slots=True)
class Fact:
    """One billable fact; `key` names it, and a key is billed once."""

    key: str
    kind: str
    customer_id: uuid.UUID
    channel: ChannelKind
    chatbot_id: uuid.UUID
    conversation_id: uuid.UUID
    message_id: uuid.UUID | None
    provider: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost: Decimal | None = None
    latency_ms: int | None = None
    category: str | None = None
    pricing_type: str | None = None
    """What the channel charges for, in its own words."""


_INSERT = """
INSERT INTO usage_logs (id, fact_key, kind, customer_id, channel_kind, chatbot_id, conversation_id, message_id, provider, model,
                        input_tokens, output_tokens, cached_tokens, cost, latency_ms, category, pricing_type)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::uuid[], $7::uuid[], $8::uuid[],
                     $9::text[], $10::text[], $11::int[], $12::int[], $13::int[], $14::numeric[], $15::int[],
                     $16::text[], $17::text[])
ON CONFLICT (fact_key) DO NOTHING
"""


async def meter(connection: Connection, facts: Sequence[Fact]) -> None:
    """Write the facts that are not known yet."""
    if not facts:
        return
    await connection.execute(
        _INSERT,
        [new_id() for _ in facts],
        [fact.key for fact in facts],
        [fact.kind for fact in facts],
        [fact.customer_id for fact in facts],
        [fact.channel for fact in facts],
        [fact.chatbot_id for fact in facts],
        [fact.conversation_id for fact in facts],
        [fact.message_id for fact in facts],
        [fact.provider for fact in facts],
        [fact.model for fact in facts],
        [fact.input_tokens for fact in facts],
        [fact.output_tokens for fact in facts],
        [fact.cached_tokens for fact in facts],
        [fact.cost for fact in facts],
        [fact.latency_ms for fact in facts],
        [fact.category for fact in facts],
        [fact.pricing_type for fact in facts],
    )

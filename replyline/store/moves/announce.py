"""Announcing what happened: one webhook event and one delivery job for each endpoint that asked for it."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from replyline.ids import new_id
from replyline.jobs import WebhookDeliveryJob
from replyline.store.database import Connection
from replyline.store.outbox import Enqueue


@dataclass(frozen=True, slots=True)
class Announcement:
    """Something a customer may want to hear of."""

    type: str
    customer_id: uuid.UUID
    priority: int
    message_id: uuid.UUID | None
    trace_id: uuid.UUID
    data: Mapping[str, object]
    parent_id: uuid.UUID | None = None


_ENDPOINTS = """
SELECT id, customer_id, events FROM webhook_endpoints WHERE customer_id = ANY($1::uuid[]) AND enabled
"""

_INSERT = """
INSERT INTO webhook_events (id, customer_id, endpoint_id, type, payload, message_id, trace_id)
SELECT id, customer_id, endpoint_id, type, payload::jsonb, message_id, trace_id
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::uuid[])
  AS new (id, customer_id, endpoint_id, type, payload, message_id, trace_id)
"""


async def announce(connection: Connection, announcements: Sequence[Announcement]) -> list[Enqueue]:
    """Write the events and return their delivery jobs, which the caller inserts with its others."""
    if not announcements:
        return []
    endpoints = await connection.fetch(_ENDPOINTS, list({said.customer_id for said in announcements}))
    if not endpoints:
        return []
    at = datetime.now(UTC).isoformat()
    events = [
        (new_id(), said, endpoint["id"])
        for said in announcements
        for endpoint in endpoints
        if endpoint["customer_id"] == said.customer_id and said.type in endpoint["events"]
    ]
    if not events:
        return []
    await connection.execute(
        _INSERT,
        [event_id for event_id, _, _ in events],
        [said.customer_id for _, said, _ in events],
        [endpoint_id for _, _, endpoint_id in events],
        [said.type for _, said, _ in events],
        [
            msgspec.json.encode({"type": said.type, "timestamp": at, "data": said.data}).decode()
            for _, said, _ in events
        ],
        [said.message_id for _, said, _ in events],
        [said.trace_id for _, said, _ in events],
    )
    return [
        Enqueue(
            WebhookDeliveryJob(
                customer_id=said.customer_id, trace_id=said.trace_id, message_id=said.message_id, event_id=event_id
            ),
            said.priority,
            said.trace_id,
            parent_id=said.parent_id,
        )
        for event_id, said, _ in events
    ]

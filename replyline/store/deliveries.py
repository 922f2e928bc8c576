"""Reading the webhook event that a delivery job is about, for many jobs at once."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from replyline.store.database import Connection
from replyline.store.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook event on its way to one endpoint."""

    event_id: uuid.UUID
    customer_id: uuid.UUID
    endpoint_id: uuid.UUID
    url: str
    enabled: bool
    payload: str
    secret_sealed: str = field(repr=False)


_READ = """
SELECT r.ord, e.id AS event_id, e.customer_id, e.endpoint_id, p.url, p.enabled, e.payload::text AS payload, p.secret_sealed
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS r (job_id, event_id, ord)
JOIN jobs j ON j.id = r.job_id AND j.finished_at IS NULL
JOIN LATERAL (SELECT * FROM webhook_events WHERE id = r.event_id LIMIT 1) e ON e.customer_id = j.customer_id
JOIN webhook_endpoints p ON p.id = e.endpoint_id
"""


async def read_deliveries(
    connection: Connection, rows: Sequence[tuple[uuid.UUID, uuid.UUID]], _outbox: Outbox
) -> list[Delivery | None]:
    """The delivery of each (job, event); None where the job was finished by another run or the event is gone."""
    found: list[Delivery | None] = [None] * len(rows)
    records = await connection.fetch(_READ, [job_id for job_id, _ in rows], [event_id for _, event_id in rows])
    for record in records:
        fields = dict(record)
        index = fields.pop("ord") - 1
        found[index] = Delivery(**fields)
    return found

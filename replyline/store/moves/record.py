"""The move `record`: an attempt to deliver a webhook event is written down; a success finishes its job."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from replyline.ids import new_id
from replyline.store.database import Connection
from replyline.store.moves.work import Run, finish
from replyline.store.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP call to a customer's endpoint. `error` is None if and only if it was delivered."""

    run: Run
    event_id: uuid.UUID
    customer_id: uuid.UUID
    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    response_head: str | None


_INSERT = """
INSERT INTO webhook_attempts (id, customer_id, event_id, started_at, duration_ms, status_code, error, response_head)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::int[], $6::int[], $7::text[], $8::text[])
"""

_DELIVERED = """
UPDATE webhook_events SET status = 'DELIVERED', finished_at = now() WHERE id = ANY($1::uuid[]) AND status <> 'DELIVERED'
"""


async def record(connection: Connection, rows: Sequence[Attempt], outbox: Outbox) -> list[bool]:
    """Write the attempts down; True where the event was delivered and its job is now finished by this run."""
    ordered = sorted(rows, key=lambda row: row.run.job_id)
    delivered = [row for row in ordered if row.error is None]
    done = await finish(connection, [row.run for row in delivered])
    await connection.execute(
        _INSERT,
        [new_id() for _ in ordered],
        [row.customer_id for row in ordered],
        [row.event_id for row in ordered],
        [row.started_at for row in ordered],
        [row.duration_ms for row in ordered],
        [row.status_code for row in ordered],
        [row.error for row in ordered],
        [row.response_head for row in ordered],
    )
    if delivered:
        await connection.execute(_DELIVERED, [row.event_id for row in delivered])
    return [row.run.job_id in done for row in rows]

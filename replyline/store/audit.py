"""The audit trail: who did what to whom, kept also when the customer is gone."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from replyline.ids import new_id
from replyline.store.database import Connection, Database

OPERATOR = "operator"
"""The actor of what the operator did, with the operator's key or on the command line."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that was done. `actor` is `operator`, or `api-key` and the id of the key that was used."""

    id: uuid.UUID
    customer_id: uuid.UUID
    actor: str
    action: str
    subject_id: uuid.UUID
    subject_name: str
    created_at: datetime


_NOTE = """
INSERT INTO audit_events (id, customer_id, actor, action, subject_id, subject_name) VALUES ($1, $2, $3, $4, $5, $6)
"""
_LIST = """
SELECT id, customer_id, actor, action, subject_id, subject_name, created_at FROM audit_events
WHERE ($1::uuid IS NULL OR customer_id = $1) AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3
"""
_PURGE = """
DELETE FROM audit_events WHERE id IN (
    SELECT id FROM audit_events WHERE created_at < now() - make_interval(secs => $1) LIMIT $2
)
"""


async def note(
    connection: Connection,
    *,
    customer_id: uuid.UUID,
    actor: str,
    action: str,
    subject_id: uuid.UUID,
    subject_name: str,
) -> None:
    """Write an event down, in the transaction that does what it tells."""
    await connection.execute(_NOTE, new_id(), customer_id, actor, action, subject_id, subject_name)


async def list_page(
    db: Database, *, customer_id: uuid.UUID | None, before: uuid.UUID | None = None, limit: int = 50
) -> Sequence[AuditEvent]:
    """A page of a customer's events or, with None, of all, newest first, before the one given."""
    async with db.connection() as connection:
        return [AuditEvent(**dict(record)) for record in await connection.fetch(_LIST, customer_id, before, limit)]


async def purge(connection: Connection, *, keep_s: float, limit: int = 5000) -> int:
    """Delete at most `limit` events that were kept for so long, in seconds; returns how many went."""
    return int((await connection.execute(_PURGE, keep_s, limit)).rsplit(" ", 1)[-1])

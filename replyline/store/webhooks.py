"""Webhook endpoints, and the events that were or are to be delivered to them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict

import asyncpg
import msgspec

from replyline.ids import new_id
from replyline.store.database import Database
from replyline.store.emptying import delete_in_batches
from replyline.vault import Vault


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A URL of a customer's, and the events it is told of."""

    id: uuid.UUID
    customer_id: uuid.UUID
    url: str
    events: list[str]
    secret_sealed: str = field(repr=False)
    enabled: bool
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime


class EndpointChanges(TypedDict, total=False):
    """What may be changed; what is left out stays."""

    url: str
    events: Sequence[str]
    enabled: bool


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """Something an endpoint is told."""

    id: uuid.UUID
    customer_id: uuid.UUID
    endpoint_id: uuid.UUID
    type: str
    payload: object
    status: str
    message_id: uuid.UUID | None
    trace_id: uuid.UUID | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class WebhookAttempt:
    """One HTTP call for an event. `error` is None if it was delivered."""

    id: uuid.UUID
    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    response_head: str | None


class EndpointRefused(Exception):
    """The customer does not exist, or no event is named."""


MOST_ENDPOINTS = 20
"""How many a customer may have: each of them multiplies what one message sends."""
_COUNT = "SELECT count(*) FROM webhook_endpoints WHERE customer_id = $1"
_INSERT = """
INSERT INTO webhook_endpoints (id, customer_id, url, events, secret_sealed) VALUES ($1, $2, $3, $4, $5) RETURNING *
"""
_UPDATE = """
UPDATE webhook_endpoints SET url = coalesce($3, url), events = coalesce($4::text[], events), enabled = coalesce($5, enabled),
    disabled_reason = CASE WHEN $5 THEN NULL ELSE disabled_reason END, updated_at = now()
WHERE id = $1 AND customer_id = $2 RETURNING *
"""
_ROTATE = """
UPDATE webhook_endpoints SET secret_sealed = $3, updated_at = now() WHERE id = $1 AND customer_id = $2 RETURNING *
"""
_LIST = """
SELECT * FROM webhook_endpoints WHERE customer_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3
"""
_GET = "SELECT * FROM webhook_endpoints WHERE id = $1 AND customer_id = $2"
_EVENTS = """
SELECT id, customer_id, endpoint_id, type, payload::text AS payload, status, message_id, trace_id, created_at, finished_at
FROM webhook_events
WHERE customer_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($3::text IS NULL OR status = $3)
  AND ($4::uuid IS NULL OR endpoint_id = $4)
ORDER BY id DESC LIMIT $5
"""
_EVENT = """
SELECT id, customer_id, endpoint_id, type, payload::text AS payload, status, message_id, trace_id, created_at, finished_at
FROM webhook_events WHERE id = $1 AND customer_id = $2
"""
_ATTEMPTS = """
SELECT id, started_at, duration_ms, status_code, error, response_head FROM webhook_attempts
WHERE event_id = $1 AND customer_id = $2 ORDER BY id LIMIT 100
"""


async def create(
    db: Database, vault: Vault, *, customer_id: uuid.UUID, url: str, events: Sequence[str], secret: str
) -> WebhookEndpoint:
    """Add an endpoint; its secret is shown by the caller now and by nobody later.

    Raises:
        EndpointRefused: see there.
    """
    try:
        async with db.transaction() as connection:
            await connection.execute("SELECT FROM customers WHERE id = $1 FOR NO KEY UPDATE", customer_id)
            if await connection.fetchval(_COUNT, customer_id) >= MOST_ENDPOINTS:
                raise EndpointRefused(f"a customer has at most {MOST_ENDPOINTS} endpoints")
            record = await connection.fetchrow(_INSERT, new_id(), customer_id, url, list(events), vault.seal(secret))
    except (asyncpg.ForeignKeyViolationError, asyncpg.CheckViolationError) as error:
        raise EndpointRefused(f"refused by {error.constraint_name}") from error
    if record is None:
        raise LookupError("an inserted endpoint was not returned")
    return WebhookEndpoint(**dict(record))


async def list_page(
    db: Database, *, customer_id: uuid.UUID, after: uuid.UUID | None = None, limit: int = 50
) -> Sequence[WebhookEndpoint]:
    """A page of the customer's endpoints, oldest first, after the one given."""
    async with db.connection() as connection:
        return [WebhookEndpoint(**dict(record)) for record in await connection.fetch(_LIST, customer_id, after, limit)]


async def get(db: Database, endpoint_id: uuid.UUID, *, customer_id: uuid.UUID) -> WebhookEndpoint | None:
    """The endpoint, or None where the customer has no such one."""
    return await _one(db, _GET, endpoint_id, customer_id)


async def update(
    db: Database, endpoint_id: uuid.UUID, *, customer_id: uuid.UUID, changes: EndpointChanges
) -> WebhookEndpoint | None:
    """Change the endpoint; None where the customer has no such one.

    Raises:
        EndpointRefused: no event is named.
    """
    events = list(changes["events"]) if "events" in changes else None
    try:
        return await _one(db, _UPDATE, endpoint_id, customer_id, changes.get("url"), events, changes.get("enabled"))
    except asyncpg.CheckViolationError as error:
        raise EndpointRefused(f"refused by {error.constraint_name}") from error


async def rotate_secret(
    db: Database, vault: Vault, endpoint_id: uuid.UUID, *, customer_id: uuid.UUID, secret: str
) -> WebhookEndpoint | None:
    """Sign with `secret` from now on; None where the customer has no such endpoint."""
    return await _one(db, _ROTATE, endpoint_id, customer_id, vault.seal(secret))


async def delete(db: Database, endpoint_id: uuid.UUID, *, customer_id: uuid.UUID) -> bool:
    """Delete the endpoint with its events; False where the customer has no such one.

    Raises:
        StoreBusy: so much hangs on it that another call must go on.
    """
    return await delete_in_batches(db, "endpoint", endpoint_id, customer_id=customer_id)


async def list_events(
    db: Database,
    *,
    customer_id: uuid.UUID,
    before: uuid.UUID | None = None,
    status: str | None = None,
    endpoint_id: uuid.UUID | None = None,
    limit: int = 50,
) -> Sequence[WebhookEvent]:
    """A page of the customer's events, newest first, before the one given."""
    async with db.connection() as connection:
        records = await connection.fetch(_EVENTS, customer_id, before, status, endpoint_id, limit)
    return [_event(record) for record in records]


async def get_event(
    db: Database, event_id: uuid.UUID, *, customer_id: uuid.UUID
) -> tuple[WebhookEvent, Sequence[WebhookAttempt]] | None:
    """The event with its attempts, oldest first, or None where the customer has no such one."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_EVENT, event_id, customer_id)
        attempts = await connection.fetch(_ATTEMPTS, event_id, customer_id)
    return None if record is None else (_event(record), [WebhookAttempt(**dict(attempt)) for attempt in attempts])


async def _one(db: Database, statement: str, *values: object) -> WebhookEndpoint | None:
    async with db.connection() as connection:
        record = await connection.fetchrow(statement, *values)
    return None if record is None else WebhookEndpoint(**dict(record))


def _event(record: asyncpg.Record) -> WebhookEvent:
    return WebhookEvent(**{**record, "payload": msgspec.json.decode(record["payload"].encode())})

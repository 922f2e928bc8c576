"""Customers, which the operator keeps, and their API keys."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, cast

from fastapi import APIRouter, Response
from pydantic import Field

from replyline.store import api_keys, audit, customer_deletions, customers
from replyline.web.auth import Anyone, Caller, CustomerId, Here, Operator, Tenant, TenantOrAll
from replyline.web.guards import RecordRoute
from replyline.web.problems import not_found
from replyline.web.wire import Changes, Cursor, In, Limit, Name, Out, Page, page

router = APIRouter(route_class=RecordRoute)

# Whole cents: a third decimal would be rounded, and 99.999 is not the price of the Premium plan.
Price = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2, description="US dollars a month.")]


class CustomerIn(In):
    """A business that pays us."""

    name: Name
    monthly_price: Price = Decimal(0)


class CustomerChanges(Changes):
    """What may be changed of a customer."""

    name: Name | None = None
    monthly_price: Price | None = None


class CustomerOut(Out):
    """A customer; plan (PREMIUM, PRO, BASIC) and priority (1, 3, 5; lower runs first) follow from the price."""

    id: uuid.UUID
    name: str
    monthly_price: Decimal
    plan: str
    priority: int
    created_at: datetime
    updated_at: datetime


class CustomerDeletionOut(Out):
    """The deletion of a customer, which goes on while `finishedAt` is null."""

    customer_id: uuid.UUID
    name: str
    requested_at: datetime
    deleted_rows: int
    finished_at: datetime | None


class ApiKeyIn(In):
    """A key to be made."""

    name: Name
    customer_id: uuid.UUID | None = None


class ApiKeyOut(Out):
    """A key as it is kept: enough to recognise it, not to use it."""

    id: uuid.UUID
    customer_id: uuid.UUID
    name: str
    key_prefix: str
    created_at: datetime
    last_used_at: datetime | None = Field(description="To the minute; null if it never was used.")
    revoked_at: datetime | None


class NewApiKeyOut(ApiKeyOut):
    """A key that was just made: `key` is shown this once."""

    key: str


class AuditEventOut(Out):
    """Something that was done. `actor` is `operator`, or `api-key` with the id of the key that was used."""

    id: uuid.UUID
    customer_id: uuid.UUID
    actor: str
    action: str
    subject_id: uuid.UUID
    subject_name: str
    created_at: datetime


@router.post("/v1/customers", status_code=201, tags=["customers"])
async def create_customer(body: CustomerIn, app: Here, _who: Operator) -> CustomerOut:
    """Add a customer. Operator only."""
    made = await customers.create(app.database, name=body.name, monthly_price=body.monthly_price)
    return CustomerOut.model_validate(made)


@router.get("/v1/customers", tags=["customers"])
async def list_customers(app: Here, who: Anyone, cursor: Cursor = None, limit: Limit = 50) -> Page[CustomerOut]:
    """All customers, oldest first; with a customer's key, only itself."""
    if who.customer_id is not None:
        own = await customers.get(app.database, customer_id=who.customer_id)
        return page([own] if own is not None else [], limit, CustomerOut)
    found = await customers.list_page(app.database, after=cursor, limit=limit + 1)
    return page(found, limit, CustomerOut)


@router.get("/v1/customers/{customer_id}", tags=["customers"])
async def get_customer(customer_id: uuid.UUID, app: Here, who: Anyone) -> CustomerOut:
    """One customer."""
    found = await customers.get(app.database, customer_id=who.one(customer_id))
    if found is None:
        raise not_found("customer")
    return CustomerOut.model_validate(found)


@router.patch("/v1/customers/{customer_id}", tags=["customers"])
async def update_customer(customer_id: uuid.UUID, body: CustomerChanges, app: Here, who: Anyone) -> CustomerOut:
    """Change a customer. Operator only. A new plan counts for the jobs that are enqueued from now on."""
    _only_operator(who, customer_id)
    changes = cast("customers.CustomerChanges", body.model_dump(exclude_unset=True))
    changed = await customers.update(app.database, customer_id=customer_id, changes=changes)
    if changed is None:
        raise not_found("customer")
    return CustomerOut.model_validate(changed)


@router.delete("/v1/customers/{customer_id}", status_code=204, tags=["customers"])
async def delete_customer(customer_id: uuid.UUID, app: Here, who: Anyone) -> Response:
    """Delete a customer with everything of theirs, at once for whoever asks; what takes long goes on. Operator only."""
    _only_operator(who, customer_id)
    if not await customers.delete(app.database, customer_id=customer_id):
        raise not_found("customer")
    return Response(status_code=204)


@router.get("/v1/customer-deletions", tags=["customers"])
async def list_customer_deletions(app: Here, _who: Operator, limit: Limit = 50) -> Page[CustomerDeletionOut]:
    """Which customers were deleted or are being deleted, newest first, and how far that is. Operator only."""
    found = await customer_deletions.list_newest(app.database, limit=limit)
    return Page(data=[CustomerDeletionOut.model_validate(one) for one in found], next=None)


@router.post("/v1/api-keys", status_code=201, tags=["api keys"])
async def create_api_key(body: ApiKeyIn, app: Here, who: Anyone, customer_id: CustomerId = None) -> NewApiKeyOut:
    """Make a key. `key` is in this answer and nowhere else, ever."""
    owner = who.one(body.customer_id or customer_id)
    made = await api_keys.create(app.database, customer_id=owner, name=body.name, actor=who.actor)
    if made is None:
        raise not_found("customer")
    row, key = made
    return NewApiKeyOut(**ApiKeyOut.model_validate(row).model_dump(), key=key)


@router.get("/v1/api-keys", tags=["api keys"])
async def list_api_keys(app: Here, customer_id: Tenant, cursor: Cursor = None, limit: Limit = 50) -> Page[ApiKeyOut]:
    """A customer's keys, oldest first, revoked ones too."""
    found = await api_keys.list_page(app.database, customer_id=customer_id, after=cursor, limit=limit + 1)
    return page(found, limit, ApiKeyOut)


@router.delete("/v1/api-keys/{key_id}", status_code=204, tags=["api keys"])
async def revoke_api_key(key_id: uuid.UUID, app: Here, who: Anyone, customer_id: Tenant) -> Response:
    """Revoke a key; it is refused everywhere within 5 seconds."""
    if not await api_keys.revoke(app.database, key_id, customer_id=customer_id, actor=who.actor):
        raise not_found("live key")
    return Response(status_code=204)


@router.get("/v1/audit-events", tags=["api keys"])
async def list_audit_events(
    app: Here, customer_id: TenantOrAll, cursor: Cursor = None, limit: Limit = 50
) -> Page[AuditEventOut]:
    """Which API keys were made and revoked by whom, newest first; of a deleted customer too, for the operator."""
    found = await audit.list_page(app.database, customer_id=customer_id, before=cursor, limit=limit + 1)
    return page(found, limit, AuditEventOut)


def _only_operator(who: Caller, customer_id: uuid.UUID) -> None:
    """A customer may not change itself; about others it is told what it would be told if they did not exist."""
    who.one(customer_id)
    who.require_operator()

"""A customer's webhook endpoints, and what was sent to them."""

import uuid
from datetime import datetime
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, Field

from replyline.app import App
from replyline.store import customers, webhooks
from replyline.web.auth import Anyone, CustomerId, Here, Tenant
from replyline.web.guards import KeyedRoute
from replyline.web.problems import Problem, not_found
from replyline.web.wire import Changes, Cursor, In, Limit, Out, Page, Url, page
from replyline.webhooks import EVENTS, check_url, new_secret

router = APIRouter(route_class=KeyedRoute)


def _known_event(name: str) -> str:
    if name not in EVENTS:
        raise ValueError(f"there is no such event; there are {', '.join(EVENTS)}")
    return name


Events = Annotated[list[Annotated[str, AfterValidator(_known_event)]], Field(min_length=1, max_length=len(EVENTS))]


class WebhookEndpointIn(In):
    """A URL that wants to hear of some kinds of events; of all, if none are named."""

    url: Url
    events: Events = Field(default_factory=lambda: list(EVENTS))
    customer_id: uuid.UUID | None = None


class WebhookEndpointChanges(Changes):
    """What may be changed of an endpoint."""

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None


class WebhookEndpointOut(Out):
    """An endpoint."""

    id: uuid.UUID
    customer_id: uuid.UUID
    url: str
    events: list[str]
    enabled: bool
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime


class NewWebhookEndpointOut(WebhookEndpointOut):
    """An endpoint that was just made: `secret` verifies what is sent to it, and is shown this once."""

    secret: str


class WebhookAttemptOut(Out):
    """One HTTP call; `error` is null if and only if it was delivered."""

    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    response_head: str | None


class WebhookEventOut(Out):
    """An event for one endpoint."""

    id: uuid.UUID
    customer_id: uuid.UUID
    endpoint_id: uuid.UUID
    type: str
    payload: dict[str, object]
    status: str
    message_id: uuid.UUID | None
    trace_id: uuid.UUID | None
    created_at: datetime
    finished_at: datetime | None


class WebhookEventWithAttemptsOut(WebhookEventOut):
    """An event with every call that was made for it, oldest first."""

    attempts: list[WebhookAttemptOut]


@router.post("/v1/webhook-endpoints", status_code=201, tags=["webhooks"])
async def create_endpoint(
    body: WebhookEndpointIn, app: Here, who: Anyone, customer_id: CustomerId = None
) -> NewWebhookEndpointOut:
    """Add an endpoint. `secret` is in this answer and nowhere else, ever."""
    owner = who.one(body.customer_id or customer_id)
    _check_url(app, body.url)
    if await customers.get(app.database, customer_id=owner) is None:
        raise not_found("customer")
    secret = new_secret()
    made = await webhooks.create(
        app.database, app.vault, customer_id=owner, url=body.url, events=sorted(set(body.events)), secret=secret
    )
    return NewWebhookEndpointOut(**WebhookEndpointOut.model_validate(made).model_dump(), secret=secret)


@router.get("/v1/webhook-endpoints", tags=["webhooks"])
async def list_endpoints(
    app: Here, customer_id: Tenant, cursor: Cursor = None, limit: Limit = 50
) -> Page[WebhookEndpointOut]:
    """Endpoints, oldest first."""
    found = await webhooks.list_page(app.database, customer_id=customer_id, after=cursor, limit=limit + 1)
    return page(found, limit, WebhookEndpointOut)


@router.get("/v1/webhook-endpoints/{endpoint_id}", tags=["webhooks"])
async def get_endpoint(endpoint_id: uuid.UUID, app: Here, customer_id: Tenant) -> WebhookEndpointOut:
    """One endpoint."""
    found = await webhooks.get(app.database, endpoint_id, customer_id=customer_id)
    if found is None:
        raise not_found("webhook endpoint")
    return WebhookEndpointOut.model_validate(found)


@router.patch("/v1/webhook-endpoints/{endpoint_id}", tags=["webhooks"])
async def update_endpoint(
    endpoint_id: uuid.UUID, body: WebhookEndpointChanges, app: Here, customer_id: Tenant
) -> WebhookEndpointOut:
    """Change an endpoint; events that wait for it go to where it is then."""
    if body.url is not None:
        _check_url(app, body.url)
    changes = cast("webhooks.EndpointChanges", body.model_dump(exclude_unset=True))
    changed = await webhooks.update(app.database, endpoint_id, customer_id=customer_id, changes=changes)
    if changed is None:
        raise not_found("webhook endpoint")
    return WebhookEndpointOut.model_validate(changed)


@router.post("/v1/webhook-endpoints/{endpoint_id}/rotate-secret", tags=["webhooks"])
async def rotate_endpoint_secret(endpoint_id: uuid.UUID, app: Here, customer_id: Tenant) -> NewWebhookEndpointOut:
    """Sign with a new secret from now on, also what is tried again. `secret` is in this answer and nowhere else, ever."""
    secret = new_secret()
    rotated = await webhooks.rotate_secret(app.database, app.vault, endpoint_id, customer_id=customer_id, secret=secret)
    if rotated is None:
        raise not_found("webhook endpoint")
    return NewWebhookEndpointOut(**WebhookEndpointOut.model_validate(rotated).model_dump(), secret=secret)


@router.delete("/v1/webhook-endpoints/{endpoint_id}", status_code=204, tags=["webhooks"])
async def delete_endpoint(endpoint_id: uuid.UUID, app: Here, customer_id: Tenant) -> Response:
    """Delete an endpoint with its events."""
    if not await webhooks.delete(app.database, endpoint_id, customer_id=customer_id):
        raise not_found("webhook endpoint")
    return Response(status_code=204)


@router.get("/v1/webhook-events", tags=["webhooks"])
async def list_events(
    *,
    app: Here,
    customer_id: Tenant,
    endpoint_id: Annotated[uuid.UUID | None, Query(alias="endpointId")] = None,
    status: Literal["PENDING", "DELIVERED", "FAILED"] | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[WebhookEventOut]:
    """Events, newest first. A FAILED one has a dead letter of queue `webhook-delivery`, by which it can be sent again."""
    found = await webhooks.list_events(
        app.database,
        customer_id=customer_id,
        endpoint_id=endpoint_id,
        status=status,
        before=cursor,
        limit=limit + 1,
    )
    return page(found, limit, WebhookEventOut)


@router.get("/v1/webhook-events/{event_id}", tags=["webhooks"])
async def get_event(event_id: uuid.UUID, app: Here, customer_id: Tenant) -> WebhookEventWithAttemptsOut:
    """One event with its attempts."""
    found = await webhooks.get_event(app.database, event_id, customer_id=customer_id)
    if found is None:
        raise not_found("webhook event")
    event, attempts = found
    return WebhookEventWithAttemptsOut(
        **WebhookEventOut.model_validate(event).model_dump(),
        attempts=[WebhookAttemptOut.model_validate(attempt) for attempt in attempts],
    )


def _check_url(app: App, url: str) -> None:
    try:
        check_url(url, allow_private=app.settings.webhook_allow_private)
    except ValueError as error:
        raise Problem(422, "invalid", f"url: {error}") from error

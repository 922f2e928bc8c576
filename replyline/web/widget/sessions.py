"""Beginning, going on and ending: a page shows its site key and gets a session of one visitor."""

import secrets
import uuid
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request

from replyline.app import App
from replyline.broker import BrokerUnavailable, CommandRefused
from replyline.store import conversation_log, visitors
from replyline.store.channels import Channel
from replyline.store.visitors import Visitor
from replyline.web.auth import Here
from replyline.web.guards import OpenRoute
from replyline.web.problems import Problem, not_found
from replyline.web.widget import identity
from replyline.web.widget.limits import WidgetLimits, limits_of
from replyline.web.widget.origins import check_origin
from replyline.web.widget.sites import Sites
from replyline.web.widget.streams import Streams, streams_of
from replyline.web.widget.uploads import UPLOAD_TYPES
from replyline.web.widget.visitors import SESSION_S, CurrentGuest, FindGuests, FindSite
from replyline.web.widget.wire import Look, SessionIn, SessionOut, TicketOut

TICKET_S = 30

router = APIRouter(route_class=OpenRoute)
Limited = Annotated[WidgetLimits, Depends(limits_of)]


class Ticket(msgspec.Struct, frozen=True):
    """What a ticket stands for: a session, for one call."""

    site: uuid.UUID
    token_id: uuid.UUID
    conversation_id: uuid.UUID
    origin: str
    expires_at: float


@router.post("/sessions", status_code=201)
async def begin_session(  # noqa: PLR0917  FastAPI's parameters
    body: SessionIn, request: Request, app: Here, sites: FindSite, guests: FindGuests, limits: Limited
) -> SessionOut:
    """A session of an hour. With `visitor_token` it is the same visitor's, else a new one's; with a user whom the site vouches
    for it is that user's. An old token of somebody else opens nothing: the answer's `visitor_token` then differs."""
    site = await sites.by_key(body.site_key)
    origin = check_origin(site, request.headers, public_url=app.settings.public_url)
    found = (
        await visitors.by_token(app.database, body.visitor_token, channel_id=site.id) if body.visitor_token else None
    )
    user_id = _vouched_for(sites, site, body, found, now_s=app.broker.now_ms() / 1000)
    known = found if found is not None and _is_same(found, user_id) else None
    token = body.visitor_token
    if known is None or token is None:
        await limits.new_visitor(site, request)
        kind: visitors.VisitorKind = "visitor" if user_id is None else "external"
        name = f"v_{secrets.token_urlsafe(16)}" if user_id is None else user_id
        visitor, token = await visitors.arrive(app.database, channel_id=site.id, kind=kind, identity=name)
    else:
        await limits.refresh(known)
        visitor = await visitors.come_back(app.database, known)
    if visitor is None:  # logged out, or the widget switched off, at this very moment
        raise not_found("widget")
    guests.forget(visitor)
    head = (await conversation_log.heads(app.database, [visitor.conversation_id])).get(visitor.conversation_id)
    return SessionOut(
        session_token=guests.begin(site, visitor, origin),
        expires_in=SESSION_S,
        visitor_token=token,
        conversation_id=visitor.conversation_id,
        verified=visitor.identity_kind == "external",
        last_event_id=str(head.last if head else 0),
        config=_look(site, app),
    )


@router.delete("/sessions", status_code=204)
async def end_session(
    guest: CurrentGuest, app: Here, guests: FindGuests, streams: Annotated[Streams, Depends(streams_of)]
) -> None:
    """The visitor logs out: their token and all sessions that were begun with it are worth nothing (after 5 seconds)."""
    await visitors.depart(app.database, guest.visitor)
    guests.forget(guest.visitor)
    streams.let_go(guest.visitor.token_id)


@router.post("/tickets", status_code=201)
async def make_ticket(guest: CurrentGuest, app: Here, limits: Limited) -> TicketOut:
    """For a browser's own EventSource, which cannot send a token: good for one call of the event stream, within 30 seconds."""
    await limits.ticket(guest.visitor)
    name = secrets.token_urlsafe(32)
    ticket = Ticket(
        guest.site.id, guest.visitor.token_id, guest.visitor.conversation_id, guest.origin, guest.expires_at
    )
    try:
        await app.broker.live.keep_ticket(name, msgspec.json.encode(ticket), ttl_s=TICKET_S)
    except (BrokerUnavailable, CommandRefused) as error:
        raise Problem(503, "redis_unavailable", "try again in a moment", retry_after_s=1.0) from error
    return TicketOut(ticket=name, expires_in=TICKET_S)


def _vouched_for(sites: Sites, site: Channel, body: SessionIn, found: Visitor | None, *, now_s: float) -> str | None:
    known_as = found.identity if found is not None and found.identity_kind == "external" else None
    secret = sites.secret(site, "identity_secret")
    if body.user_token is not None:
        return identity.by_token(secret, site.external_id, body.user_token, known_as=known_as, now_s=now_s)
    if body.user is not None:
        return identity.by_hash(secret, body.user.id, body.user.hash)
    if site.config.get("identity") == "required":
        raise identity.required()
    return None


def _is_same(found: Visitor, user_id: str | None) -> bool:
    """Whether a visitor token is the same person's: a browser's, or the user's whom the site vouches for right now."""
    if user_id is None:
        return found.identity_kind == "visitor"
    return found.identity_kind == "external" and found.identity == user_id


def _look(site: Channel, app: App) -> Look:
    config = site.config
    return Look(
        title=config.get("title") or site.name,
        subtitle=config.get("subtitle"),
        greeting=config.get("greeting"),
        placeholder=config.get("placeholder"),
        color=config.get("color"),
        theme=config.get("theme", "auto"),
        position=config.get("position", "right"),
        uploads=config.get("uploads", "on") == "on",
        upload_max_bytes=app.settings.max_body_bytes,
        upload_types=UPLOAD_TYPES,
    )

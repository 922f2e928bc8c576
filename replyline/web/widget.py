"""The widget on a customer's site: a visitor writes, and reads what was answered. No key, so nothing is told to a stranger."""

import hashlib
import hmac
import secrets as randomness
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import StringConstraints
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replyline.app import App
from replyline.ids import new_id
from replyline.jobs import IncomingMessageJob
from replyline.store import channels, messages
from replyline.store.channels import Channel
from replyline.store.moves.accept import Accept, dedupe_key
from replyline.store.recently import Recently
from replyline.web.auth import Here
from replyline.web.problems import Problem, not_found
from replyline.web.wire import In, Out, ShortText, Text

PREFIX = "/widget/v1"
MAX_WIDGET_CHARS = 4000
_MAX_AGE_S = b"600"

router = APIRouter(prefix=PREFIX, tags=["widget"])

_bearer = HTTPBearer(auto_error=False, scheme_name="visitorToken", description="A visitor's token, from this API.")
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]

SiteKey = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
VisitorId = Annotated[str, StringConstraints(pattern=r"^v_[A-Za-z0-9_-]{22}$")]
ClientMessageId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


class VisitorIn(In):
    """A page that was just opened."""

    site_key: SiteKey


class VisitorOut(Out):
    """A visitor; the page keeps both. Whoever has the token is that visitor."""

    visitor_id: str
    visitor_token: str


class WidgetMessageIn(In):
    """What a visitor wrote. Without `visitorId` it makes a new visitor; with it, the visitor's token must come along."""

    site_key: SiteKey
    content: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_WIDGET_CHARS)]
    client_message_id: ClientMessageId
    visitor_id: VisitorId | None = None
    visitor_token: Annotated[str, StringConstraints(max_length=200)] | None = None
    visitor_name: ShortText | None = None


class WidgetAcceptedOut(VisitorOut):
    """The message is kept. A repeat (same visitor and `clientMessageId`) gives the first's id."""

    message_id: uuid.UUID
    duplicate: bool


class LogEntryOut(Out):
    """One message as the page shows it; `clientMessageId` is the page's own id of what its visitor wrote."""

    id: uuid.UUID
    seq: int
    role: str
    content: str
    client_message_id: str | None
    created_at: datetime


class WidgetLogOut(Out):
    """What the page has not shown yet; the next question is `after` this `next`."""

    data: list[LogEntryOut]
    next: int


class Sites:
    """Finds the widget that a site key names, as it is or was at most 5 seconds ago."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._found: Recently[str, Channel] = Recently()

    async def find(self, site_key: str) -> Channel:
        """The widget's channel.

        Raises:
            Problem: 404, there is none or it is switched off.
        """

        async def read() -> Channel | None:
            return await channels.find_widget(self._app.database, site_key)

        found = await self._found.get(site_key, read)
        if found is None or not found.enabled:
            raise not_found("widget")
        return found


def sites_of(request: Request) -> Sites:
    """The Sites of this process, so that they remember between requests."""
    sites: Sites = request.app.state.sites
    return sites


FindSite = Annotated[Sites, Depends(sites_of)]


@router.post("/visitors", status_code=201)
async def create_visitor(body: VisitorIn, app: Here, sites: FindSite) -> VisitorOut:
    """Make a visitor before the first message, so that the message can be repeated safely if its answer is lost."""
    site = await sites.find(body.site_key)
    visitor_id = _new_visitor()
    return VisitorOut(visitor_id=visitor_id, visitor_token=_token(app, site, visitor_id))


@router.post("/messages", status_code=202)
async def accept_widget_message(
    body: WidgetMessageIn, app: Here, sites: FindSite, bearer: _Bearer = None
) -> WidgetAcceptedOut:
    """Keep what a visitor wrote; it will be answered. The token may come as a field or as `Authorization: Bearer`."""
    site = await sites.find(body.site_key)
    if body.visitor_id is not None:
        given = body.visitor_token or (bearer.credentials if bearer else "")
        _check_token(app, site, body.visitor_id, given)
    visitor_id = body.visitor_id or _new_visitor()
    job = IncomingMessageJob(
        customer_id=site.customer_id,
        trace_id=new_id(),
        message_id=new_id(),
        chatbot_id=site.chatbot_id,
        channel="WIDGET",
        channel_id=site.id,
        external_user_id=visitor_id,
        # The page makes this id, so it says nothing outside its own visitor.
        external_message_id=f"{visitor_id}:{body.client_message_id}",
        identity_kind="visitor",
        content=body.content,
        contact_name=body.visitor_name,
    )
    key = dedupe_key(site.id, job.external_message_id or "")
    accepted = await app.moves.accept(Accept(job, await app.priority_of(site.customer_id), key))
    return WidgetAcceptedOut(
        visitor_id=visitor_id,
        visitor_token=_token(app, site, visitor_id),
        message_id=accepted.message_id,
        duplicate=accepted.duplicate,
    )


@router.get("/messages")
async def read_widget_messages(
    *,
    app: Here,
    sites: FindSite,
    site_key: Annotated[SiteKey, Query(alias="siteKey")],
    visitor_id: Annotated[VisitorId, Query(alias="visitorId")],
    after: Annotated[int, Query(ge=0, le=2**62, description="The last `seq` that the page shows.")] = 0,
    bearer: _Bearer = None,
) -> WidgetLogOut:
    """The visitor's conversation after place `after`: what they wrote, once it is saved, and the answers, once they are sent."""
    site = await sites.find(site_key)
    _check_token(app, site, visitor_id, bearer.credentials if bearer else "")
    found = await messages.after_seq(
        app.database, channel_id=site.id, chatbot_id=site.chatbot_id, visitor_id=visitor_id, seq=after
    )
    return WidgetLogOut(data=[_shown(entry, visitor_id) for entry in found], next=found[-1].seq if found else after)


def _shown(entry: messages.LogEntry, visitor_id: str) -> LogEntryOut:
    own = entry.external_id if entry.role == "user" else None
    return LogEntryOut(
        id=entry.id,
        seq=entry.seq,
        role=entry.role,
        content=entry.content,
        client_message_id=own.removeprefix(f"{visitor_id}:") if own else None,
        created_at=entry.created_at,
    )


def _new_visitor() -> str:
    return f"v_{randomness.token_urlsafe(16)}"


def _token(app: App, site: Channel, visitor_id: str) -> str:
    """What proves a visitor: made from the site's own secret, so nobody can make one and nothing needs to be kept."""
    secret = site.open_secrets(app.vault).get("visitor_secret", "")
    if not secret:
        raise Problem(500, "misconfigured", "the widget has no visitor_secret")
    return hmac.new(secret.encode(), visitor_id.encode(), hashlib.sha256).hexdigest()


def _check_token(app: App, site: Channel, visitor_id: str, given: str) -> None:
    if not hmac.compare_digest(given.encode(), _token(app, site, visitor_id).encode()):
        raise Problem(401, "unauthorized", "visitorId needs its visitorToken", headers={"WWW-Authenticate": "Bearer"})


class AnyOrigin:
    """Lets pages of every site call the widget's routes: what they may see, the token decides, never a cookie."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        if scope["type"] != "http" or not scope["path"].startswith(f"{PREFIX}/"):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            await _preflight(send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"access-control-allow-origin", b"*")]
            await send(message)

        await self._app(scope, receive, sending)


_PREFLIGHT: Mapping[bytes, bytes] = {
    b"access-control-allow-origin": b"*",
    b"access-control-allow-methods": b"GET, POST",
    b"access-control-allow-headers": b"Authorization, Content-Type",
    b"access-control-max-age": _MAX_AGE_S,
}


async def _preflight(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": list(_PREFLIGHT.items())})
    await send({"type": "http.response.body", "body": b""})

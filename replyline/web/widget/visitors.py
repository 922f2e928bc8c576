"""Who is calling: the session token of a visitor, short-lived and good on one site's pages only."""

import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

import jwt
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from replyline import metrics
from replyline.app import App
from replyline.store import visitors
from replyline.store.channels import Channel
from replyline.store.recently import Recently
from replyline.store.visitors import Visitor
from replyline.web.guards import JSON_BODY_BYTES, most_of
from replyline.web.limits import body_of
from replyline.web.problems import Problem
from replyline.web.widget.origins import check_origin, same_origin
from replyline.web.widget.sites import Sites, sites_of, visitor_secret

SESSION_S = 3600
"""A session token is good for so long."""
_LEEWAY_S = 5

_bearer = HTTPBearer(auto_error=False, scheme_name="sessionToken", description="A visitor's session, from this API.")


@dataclass(frozen=True, slots=True)
class Guest:
    """A visitor on a page of their site; `expires_at` (Unix seconds) is when their session ends."""

    visitor: Visitor
    site: Channel
    origin: str
    expires_at: float


class Guests:
    """Reads sessions; a visitor is as they were at most 5 seconds ago, so a token given back is worth nothing after that."""

    def __init__(self, app: App, sites: Sites) -> None:
        self._app = app
        self._sites = sites
        self._seen: Recently[uuid.UUID, Visitor] = Recently(changes=app.changes)

    def begin(self, site: Channel, visitor: Visitor, origin: str) -> str:
        """A session token: it names the visitor's own token, so it dies with that."""
        now = self._now_s()
        claims = {
            "sub": str(visitor.id),
            "sid": str(visitor.token_id),
            "cb": str(visitor.chatbot_id),
            "cv": str(visitor.conversation_id),
            "org": origin,
            "iat": now,
            "exp": now + SESSION_S,
            "jti": uuid.uuid4().hex,
        }
        secret = visitor_secret(self._sites, site)
        return jwt.encode(claims, secret, algorithm="HS256", headers={"kid": str(site.id)})

    async def check(self, token: str, request: Request) -> Guest:
        """Whom a session token proves.

        Raises:
            Problem: 401, it is forged, expired or given back; 403, it comes from another origin than it was given to.
        """
        try:
            site = await self._site_of(token)
            claims = jwt.decode(
                token,
                visitor_secret(self._sites, site),
                algorithms=["HS256"],
                # Looked at below, by the clock that all processes have in common.
                options={"require": ["sub", "sid", "cv", "exp", "org"], "verify_exp": False, "verify_iat": False},
            )
            token_id, expires_at = uuid.UUID(claims["sid"]), float(claims["exp"])
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError) as error:
            raise unauthorized("unauthorized", "send a session token as Authorization: Bearer …") from error
        if not expires_at > self._now_s() - _LEEWAY_S:
            raise unauthorized("session_expired", "the session is over: begin a new one with the visitor token")
        origin = check_origin(site, request.headers, public_url=self._app.settings.public_url)
        if not same_origin(origin, str(claims["org"])):
            metrics.widget_refusals_total.labels("origin").inc()
            raise Problem(403, "origin_not_allowed", "the session was begun on another site's page")
        return await self.guest(site, token_id, origin, expires_at, conversation=claims["cv"])

    def _now_s(self) -> int:
        """Redis' time: a session is as old at every process, whatever its machine's clock says."""
        return self._app.broker.now_ms() // 1000

    async def guest(
        self, site: Channel, token_id: uuid.UUID, origin: str, expires_at: float, *, conversation: object = None
    ) -> Guest:
        """The visitor whose token that is.

        Raises:
            Problem: 401, it was given back, or the session is of an earlier conversation of theirs.
        """

        async def read() -> Visitor | None:
            return await visitors.by_token_id(self._app.database, token_id)

        visitor = await self._seen.get(token_id, read)
        if visitor is not None and conversation not in {None, str(visitor.conversation_id)}:
            self._seen.forget(token_id)  # another process may have begun the session a moment ago
            visitor = await self._seen.get(token_id, read)
        if visitor is None or visitor.channel_id != site.id:
            raise unauthorized("session_expired", "the session is over: begin a new one")
        if conversation not in {None, str(visitor.conversation_id)}:
            raise unauthorized("session_expired", "the conversation has changed: begin a new session")
        return Guest(visitor, site, origin, expires_at)

    def forget(self, visitor: Visitor) -> None:
        """Read it anew next time."""
        self._seen.forget(visitor.token_id)

    async def _site_of(self, token: str) -> Channel:
        """The site whose secret must have signed it; a forged name leads to a secret that has not."""
        named = jwt.get_unverified_header(token).get("kid")
        try:
            return await self._sites.by_id(uuid.UUID(str(named)))
        except Problem as error:
            raise unauthorized("unauthorized", "the session is of a widget that is not there (any more)") from error


def unauthorized(code: str, detail: str) -> Problem:
    """The answer that makes a page begin a new session."""
    metrics.widget_refusals_total.labels("unauthorized").inc()
    return Problem(401, code, detail, headers={"WWW-Authenticate": "Bearer"})


async def guests_of(request: Request) -> Guests:
    """The Guests of this process."""
    guests: Guests = request.app.state.guests
    return guests


async def identify(request: Request, guests: Guests) -> Guest:
    """The visitor of this request; asked once.

    Raises:
        Problem: see `Guests.check`.
    """
    known: Guest | None = getattr(request.state, "guest", None)
    if known is None:
        credentials = await _bearer(request)
        known = await guests.check(credentials.credentials if credentials else "", request)
        request.state.guest = known
    return known


async def current_guest(
    request: Request,
    guests: Annotated[Guests, Depends(guests_of)],
    _credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Guest:
    """The visitor of this request. Raises Problem: see `Guests.check`."""
    return await identify(request, guests)


class VisitorRoute(APIRoute):
    """A route of the widget: without a session nothing of the body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answered, most = super().get_route_handler(), most_of(self.endpoint, JSON_BODY_BYTES)

        async def guarded(request: Request) -> Response:
            await identify(request, await guests_of(request))
            body_of(request).allow(most, proven=True)
            return await answered(request)

        return guarded


CurrentGuest = Annotated[Guest, Depends(current_guest)]
FindSite = Annotated[Sites, Depends(sites_of)]
FindGuests = Annotated[Guests, Depends(guests_of)]

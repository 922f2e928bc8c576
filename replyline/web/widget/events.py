"""The stream of a conversation's events (SSE), which a page resumes from the last place that it has seen."""

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.types import Receive, Scope, Send

from replyline.app import App
from replyline.broker import BrokerUnavailable, CommandRefused
from replyline.web.auth import Here
from replyline.web.problems import Problem
from replyline.web.widget.limits import WidgetLimits, limits_of
from replyline.web.widget.listener import Listener
from replyline.web.widget.origins import check_origin, same_origin
from replyline.web.widget.sessions import Ticket
from replyline.web.widget.sites import Sites
from replyline.web.widget.streams import Streams, streams_of
from replyline.web.widget.visitors import FindGuests, FindSite, Guest, Guests, unauthorized

_TAKEN_WITHIN_S = 60.0

router = APIRouter()


class EventStream(Response):
    """Sends a listener's frames for as long as the page takes them; one that takes nothing for a minute is let go."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, listener: Listener) -> None:
        super().__init__()
        self._streams = streams
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        gone = asyncio.create_task(self._until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            async for framed in self._listener.frames():
                async with asyncio.timeout(_TAKEN_WITHIN_S):
                    await send({"type": "http.response.body", "body": framed, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except (TimeoutError, OSError):
            return  # the page is gone without a word, or takes nothing: it will be back
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            await asyncio.shield(asyncio.ensure_future(self._streams.leave(self._listener)))

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._listener.end()


_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


@router.get("/events", response_class=Response)
async def listen(
    request: Request,
    app: Here,
    sites: FindSite,
    guests: FindGuests,
    streams: Annotated[Streams, Depends(streams_of)],
    *,
    limits: Annotated[WidgetLimits, Depends(limits_of)],
    ticket: Annotated[
        str | None, Query(max_length=200, description="Instead of a session token: from `tickets`.")
    ] = None,
    after: Annotated[int | None, Query(ge=0, le=2**62, description="The last place that the page has.")] = None,
    page: Annotated[
        str | None,
        Query(pattern=r"^[A-Za-z0-9-]{1,64}$", description="The page's name for itself: it replaces its own stream."),
    ] = None,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**62, description="The same; it wins.")] = None,
) -> EventStream:
    """The conversation from a place on (from its end if none is given): messages with their place as id, and without one what
    is nowhere kept: answers while they are written, typing. It ends with the session."""
    if ticket is not None:
        guest = await _with_ticket(app, sites, guests, ticket, request)
    else:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        guest = await guests.check(token if scheme.lower() == "bearer" else "", request)
    await limits.read(guest.visitor)
    place = after if last_event_id is None else last_event_id
    return EventStream(streams, await streams.enter(guest, place, page))


async def _with_ticket(app: App, sites: Sites, guests: Guests, ticket: str, request: Request) -> Guest:
    try:
        raw = await app.broker.live.take_ticket(ticket)
    except (BrokerUnavailable, CommandRefused) as error:
        raise Problem(503, "redis_unavailable", "try again in a moment", retry_after_s=1.0) from error
    if raw is None:
        raise unauthorized("ticket_used", "the ticket was used, is older than 30 seconds, or never was")
    found = msgspec.json.decode(raw, type=Ticket)
    site = await sites.by_id(found.site)
    if not same_origin(check_origin(site, request.headers, public_url=app.settings.public_url), found.origin):
        raise Problem(403, "origin_not_allowed", "the ticket was given to another site's page")
    return await guests.guest(
        site, found.token_id, found.origin, found.expires_at, conversation=str(found.conversation_id)
    )

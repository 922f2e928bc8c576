"""A visitor writes, reads what was said, and lets others know that they are writing or have read."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from replyline import live
from replyline.app import App
from replyline.errors import Permanent
from replyline.ids import new_id
from replyline.inbound_content import Choice, InboundContent, Quoted, told
from replyline.jobs import IncomingMessageJob
from replyline.store import conversation_log, media
from replyline.store.conversation_log import LogEntry, LogPlace
from replyline.store.moves.accept import Accept, dedupe_key
from replyline.store.moves.seen import Seen
from replyline.web.auth import Here
from replyline.web.problems import Problem, not_found
from replyline.web.widget.limits import WidgetLimits, limits_of
from replyline.web.widget.offers import choice_of
from replyline.web.widget.streams import Streams, streams_of
from replyline.web.widget.visitors import CurrentGuest, Guest, VisitorRoute
from replyline.web.widget.wire import (
    FILES_ONLY,
    AcceptedOut,
    HistoryOut,
    MessageIn,
    SeenIn,
    TypingIn,
    attachment_id,
    shown,
)

LONGEST_WAIT_S = 25
_NO_END = 2**62

router = APIRouter(route_class=VisitorRoute)
Limited = Annotated[WidgetLimits, Depends(limits_of)]
Place = Annotated[int | None, Query(ge=0, le=2**62)]


@router.post("/messages", status_code=202)
async def write(  # noqa: PLR0917  FastAPI's parameters
    body: MessageIn, request: Request, response: Response, guest: CurrentGuest, app: Here, limits: Limited
) -> AcceptedOut:
    """Keep what a visitor wrote; it will be answered. 202 the first time, 200 for every repeat of the same `client_id`."""
    accepted, is_new = await keep(body, request, guest, app, limits)
    if not is_new:
        response.status_code = 200
    return accepted


async def keep(
    body: MessageIn, request: Request, guest: Guest, app: App, limits: WidgetLimits
) -> tuple[AcceptedOut, bool]:
    """Keep what a visitor wrote, and say whether it is new.

    Raises:
        Problem: 422, it says nothing, or names files that are not there; 429, too often.
    """
    if body.choice is not None and body.attachments:
        raise Problem(422, "invalid", "attachments: a message with a choice has none")
    if not body.text.strip() and not body.attachments and body.choice is None:
        raise Problem(422, "invalid", "text: a message says something, has a file or is a choice")
    await limits.message(guest.site, guest.visitor, request)
    job = _job(body, guest, await _choice(body, guest, app))
    key = dedupe_key(guest.site.id, job.external_message_id or "")
    await _check_files(app, guest, job, key)
    try:
        accepted = await app.moves.accept(Accept(job, await app.priority_of(guest.site.customer_id), key))
    except Permanent as error:  # its customer was deleted within the last seconds
        raise not_found("widget") from error
    return AcceptedOut(id=accepted.message_id, client_id=body.client_id), not accepted.duplicate


@router.get("/messages")
async def read(
    *,
    guest: CurrentGuest,
    app: Here,
    limits: Limited,
    streams: Annotated[Streams, Depends(streams_of)],
    before: Place = None,
    after: Place = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    wait: Annotated[int, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds, with `after`.")] = 0,
) -> HistoryOut:
    """Messages of the visitor's conversation, oldest first: the newest, or those next to a place. With `after` and `wait` the
    answer comes when there is one: for pages that cannot have the event stream."""
    if before is not None and after is not None:
        raise Problem(422, "invalid", "give before or after, not both")
    await limits.read(guest.visitor)
    if after is None:
        found = await conversation_log.before(
            app.database,
            conversation_id=guest.visitor.conversation_id,
            customer_id=guest.visitor.customer_id,
            seq=_NO_END if before is None else before,
            limit=limit + 1,
        )
        return _page(guest, found[-limit:], more=len(found) > limit, last=found[-1].seq if found else 0)
    place = LogPlace(guest.visitor.conversation_id, guest.visitor.customer_id, after, limit + 1)
    found = await _after(app, streams, place, wait)
    return _page(guest, found[:limit], more=len(found) > limit, last=found[:limit][-1].seq if found else after)


@router.post("/read", status_code=204)
async def see(body: SeenIn, guest: CurrentGuest, app: Here, limits: Limited) -> None:
    """The page has everything of ours up to that place (`delivered`), or its visitor has read it (`read`)."""
    await limits.sign(guest.visitor)
    conversation_id = guest.visitor.conversation_id
    status: Literal["DELIVERED", "READ"] = "DELIVERED" if body.state == "delivered" else "READ"
    lifted = await app.see(Seen(conversation_id, guest.visitor.customer_id, body.up_to, status))
    if lifted:
        await app.tell(conversation_id, live.seen(body.up_to, body.state))


@router.post("/typing", status_code=204)
async def type_(body: TypingIn, guest: CurrentGuest, app: Here, limits: Limited) -> None:
    """The visitor is writing, or no longer."""
    await limits.sign(guest.visitor)
    await app.tell(guest.visitor.conversation_id, live.typing("user", on=body.on))


async def _choice(body: MessageIn, guest: Guest, app: App) -> Choice | None:
    """What the visitor chose, in the words of the message that offers it: a page cannot put others into its place."""
    if body.choice is None:
        return None
    content = await conversation_log.content_of(
        app.database,
        body.choice.message_id,
        conversation_id=guest.visitor.conversation_id,
        customer_id=guest.visitor.customer_id,
    )
    choice = choice_of(content, body.choice.option_id)
    if choice is None:
        raise Problem(422, "not_offered", "that message of the conversation does not offer this choice")
    return choice


def _job(body: MessageIn, guest: Guest, choice: Choice | None) -> IncomingMessageJob:
    visitor = guest.visitor
    content = None
    if choice is not None and body.choice is not None:
        # As a tapped button of WhatsApp is kept. A widget's messages have no other id than ours.
        content = InboundContent(choice=choice, quoted=Quoted(external_id=str(body.choice.message_id)))
    return IncomingMessageJob(
        customer_id=visitor.customer_id,
        trace_id=new_id(),
        message_id=new_id(),
        conversation_id=visitor.conversation_id,
        chatbot_id=visitor.chatbot_id,
        channel="WIDGET",
        channel_id=visitor.channel_id,
        external_user_id=visitor.identity,
        # The page makes this id, so it says nothing outside its own visitor.
        external_message_id=f"{visitor.id}:{body.client_id}",
        identity_kind=visitor.identity_kind,
        content=told(content) if content is not None else body.text if body.text.strip() else FILES_ONLY,
        body=content,
        uploads=tuple(dict.fromkeys(attachment_id(name) for name in body.attachments)),
    )


async def _check_files(app: App, guest: Guest, job: IncomingMessageJob, key: str) -> None:
    """A repeat names files that its first has already: it is let through, and changes nothing."""
    if not job.uploads:
        return
    visitor = guest.visitor
    mine = await media.are_unattached(
        app.database,
        job.uploads,
        customer_id=visitor.customer_id,
        channel_id=visitor.channel_id,
        uploaded_by=visitor.identity,
    )
    if not mine and await app.accepted_as(key, customer_id=visitor.customer_id) is None:
        raise Problem(422, "invalid", "attachments: there is no such file of yours that no message has yet")


async def _after(app: App, streams: Streams, place: LogPlace, wait_s: int) -> list[LogEntry]:
    found = list(await app.reads.log(place))
    if found or not wait_s:
        return found
    async with streams.growth(place.conversation_id) as grown:
        try:
            async with asyncio.timeout(wait_s):
                while not (found := list(await app.reads.log(place))):
                    await grown()
        except TimeoutError:
            return []
    return found


def _page(guest: Guest, found: Sequence[LogEntry], *, more: bool, last: int) -> HistoryOut:
    entries = [shown(entry, guest.visitor.id) for entry in found]
    return HistoryOut(data=entries, more=more, last_event_id=str(last))

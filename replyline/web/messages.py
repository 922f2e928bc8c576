"""Messages: handing one in by API, looking at them, and following one through the queues."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import StringConstraints

from replyline.errors import Permanent
from replyline.jobs import MAX_CONTENT_CHARS, ChannelKind, IncomingMessageJob
from replyline.produced import NOT_FOUND_YET, Produced
from replyline.store import messages, timeline
from replyline.web.auth import Anyone, Caller, CustomerId, Here, Tenant
from replyline.web.guards import KeyedRoute, takes
from replyline.web.problems import Problem, not_found
from replyline.web.wire import Cursor, In, Limit, Out, Page, Reference, ReferenceOrNone, ShortText, Text, page

router = APIRouter(prefix="/v1/messages", tags=["messages"], route_class=KeyedRoute)

MessageStatus = Literal[
    "RECEIVED", "QUEUED", "SENDING", "SENT", "DELIVERED", "READ", "FAILED", "UNKNOWN", "BLOCKED_WINDOW", "SUPERSEDED",
    "CANCELLED",
]  # fmt: skip


class MessageIn(In):
    """A message that a person wrote, as a server of the customer hands it in."""

    chatbot_id: Reference
    """Our id of the chatbot, or its external reference."""
    external_user_id: Annotated[Text, StringConstraints(min_length=1, max_length=512)]
    content: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_CONTENT_CHARS)]
    channel: ChannelKind
    channel_id: uuid.UUID | None = None
    conversation_id: ReferenceOrNone | None = None
    """Our id of the conversation, or a reference of your own: one that is new begins a conversation. '' is none."""
    external_message_id: Annotated[Text, StringConstraints(min_length=1, max_length=512)] | None = None
    """With it, the message is accepted once, however often it is sent."""
    identity_kind: Literal["phone", "wa_id", "bsuid", "lid", "visitor", "external"] | None = None
    contact_name: ShortText | None = None
    reply_to: ShortText | None = None
    content_type: ShortText = "text"
    customer_id: uuid.UUID | None = None


class MessageOut(Out):
    """One message of a conversation."""

    id: uuid.UUID
    customer_id: uuid.UUID
    conversation_id: uuid.UUID
    channel_id: uuid.UUID
    seq: int
    direction: str
    role: str
    status: str
    content: str
    content_type: str
    synthetic: bool
    external_id: str | None
    trace_id: uuid.UUID
    quotes: uuid.UUID | None
    sent_as: str | None
    error_reason: str | None
    error_code: int | None
    error_title: str | None
    error_detail: str | None
    provider_at: datetime | None
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    accepted_at: datetime | None
    edited_at: datetime | None
    deleted_at: datetime | None
    body: dict[str, object] | None


class FailureOut(Out):
    """One failed try of a job, without secrets and personal text; `stack` is for the operator, and empty for others."""

    at: datetime
    attempt: int
    worker: str
    reason: str
    message: str
    stack: str


def without_stacks(errors: Iterable[FailureOut], who: Caller) -> None:
    """Where in our code it happened is nothing to customers."""
    if not who.is_operator:
        for error in errors:
            error.stack = ""


class WaitOut(Out):
    """Why a job was not due yet, since when, and for how many seconds, all its `times` together."""

    reason: str
    since: datetime
    seconds: float
    times: int


class TimelineJobOut(Out):
    """One job: where it is, how long it waited and ran (seconds), and why it waits."""

    id: uuid.UUID
    queue: str
    state: str
    parent_id: uuid.UUID | None
    message_id: uuid.UUID | None
    conversation_id: uuid.UUID | None
    attempts: int
    generation: int
    reason: str | None
    wait_reason: str | None
    wait_since: datetime | None
    waits: list[WaitOut]
    errors: list[FailureOut]
    worker: str | None
    created_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    wait_s: float
    run_s: float | None


class TimelineMessageOut(Out):
    """One message of the timeline and how far it has come."""

    id: uuid.UUID
    direction: str
    role: str
    status: str
    synthetic: bool
    seq: int
    error_reason: str | None
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    content_type: str
    body: dict[str, object] | None


class TimelineEventOut(Out):
    """One webhook event of the timeline."""

    id: uuid.UUID
    endpoint_id: uuid.UUID
    type: str
    status: str
    attempts: int
    created_at: datetime
    finished_at: datetime | None


class TimelineOut(Out):
    """Everything that a message caused."""

    trace_id: uuid.UUID
    message_id: uuid.UUID
    customer_id: uuid.UUID
    owner: str | None
    jobs: list[TimelineJobOut]
    messages: list[TimelineMessageOut]
    webhook_events: list[TimelineEventOut]


@router.post("", status_code=202)
@takes(1_000_000)
async def accept_message(
    body: MessageIn, app: Here, who: Anyone, customer_id: CustomerId = None
) -> Mapping[str, object]:
    """Hand in a message; 202 means it is kept and will be answered. A repeat (same `externalMessageId`) gives the first's ids;
    with another content it is 409 `taken`."""
    fields = body.model_dump(exclude={"customer_id", "chatbot_id", "conversation_id"})
    produced = Produced(
        IncomingMessageJob(**fields, chatbot_id=NOT_FOUND_YET), body.chatbot_id, body.conversation_id or None
    )
    try:
        accepted = await app.accept_produced(produced, customer_id=who.one_or_all(body.customer_id or customer_id))
    except Permanent as error:
        raise Problem(404, error.reason, str(error)) from error
    if accepted.duplicate and await messages.accepted_content(app.database, accepted.job_id) != body.content:
        raise Problem(409, "taken", "this externalMessageId was used for a message with another content")
    return {
        "messageId": accepted.message_id,
        "traceId": accepted.trace_id,
        "jobId": accepted.job_id,
        "duplicate": accepted.duplicate,
    }


@router.get("")
async def list_messages(
    *,
    app: Here,
    customer_id: Tenant,
    conversation_id: Annotated[uuid.UUID | None, Query(alias="conversationId")] = None,
    status: MessageStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[MessageOut]:
    """Messages, newest first."""
    found = await messages.list_page(
        app.database,
        customer_id=customer_id,
        conversation_id=conversation_id,
        status=status,
        before=cursor,
        limit=limit + 1,
    )
    return page(found, limit, MessageOut)


@router.get("/{message_id}")
async def get_message(message_id: uuid.UUID, app: Here, customer_id: Tenant) -> MessageOut:
    """One message. It is here once `incoming-messages` has saved it; the timeline is there from the first moment."""
    found = await messages.get(app.database, message_id, customer_id=customer_id)
    if found is None:
        raise not_found("message")
    return MessageOut.model_validate(found)


@router.get("/{message_id}/timeline")
async def get_timeline(message_id: uuid.UUID, app: Here, who: Anyone, customer_id: CustomerId = None) -> TimelineOut:
    """Where a message is and why it waits: its jobs with waits, attempts, errors and workers, its messages and webhook events."""
    found = await timeline.trace(app.database, message_id, customer_id=who.one_or_all(customer_id))
    if found is None:
        raise not_found("message")
    shown = TimelineOut.model_validate(found)
    without_stacks((error for job in shown.jobs for error in job.errors), who)
    return shown

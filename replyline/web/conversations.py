"""Conversations of a customer: who answers in them, and what a human of the business says there."""

import uuid
from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import Field, StringConstraints, model_validator

from replyline.contents import Content, encode_content, in_words, read_content
from replyline.jobs import ChannelKind
from replyline.store import conversations
from replyline.store.moves.speak import Owner, Speak, UnknownQuote
from replyline.web.auth import Here, Tenant
from replyline.web.guards import KeyedRoute
from replyline.web.problems import Problem, not_found
from replyline.web.wire import Cursor, In, Limit, Out, Page, ShortText, Text, page

router = APIRouter(prefix="/v1/conversations", tags=["conversations"], route_class=KeyedRoute)


class ConversationOut(Out):
    """The thread of one contact with one chatbot on one channel."""

    id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    channel_id: uuid.UUID
    channel: ChannelKind
    contact_id: uuid.UUID
    contact_name: str | None
    marketing_opted_out: bool
    owner: str
    human_until: datetime | None
    reply_to: str
    external_reference: str | None
    last_seq: int
    last_inbound_seq: int
    answered_seq: int
    last_inbound_at: datetime | None
    created_at: datetime
    updated_at: datetime


@router.get("")
async def list_conversations(
    *,
    app: Here,
    customer_id: Tenant,
    chatbot_id: Annotated[uuid.UUID | None, Query(alias="chatbotId")] = None,
    channel_id: Annotated[uuid.UUID | None, Query(alias="channelId")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ConversationOut]:
    """Conversations, newest first; their messages are at `/v1/messages?conversationId=`."""
    found = await conversations.list_page(
        app.database,
        customer_id=customer_id,
        chatbot_id=chatbot_id,
        channel_id=channel_id,
        before=cursor,
        limit=limit + 1,
    )
    return page(found, limit, ConversationOut)


@router.get("/{conversation_id}")
async def get_conversation(conversation_id: uuid.UUID, app: Here, customer_id: Tenant) -> ConversationOut:
    """One conversation."""
    found = await conversations.get(app.database, conversation_id, customer_id=customer_id)
    if found is None:
        raise not_found("conversation")
    return ConversationOut.model_validate(found)


class OwnerIn(In):
    """Who answers from now on: BOT, HUMAN (for the chatbot's humanHoldS), or NONE."""

    owner: Owner


@router.put("/{conversation_id}/owner")
async def set_owner(conversation_id: uuid.UUID, body: OwnerIn, app: Here, customer_id: Tenant) -> ConversationOut:
    """Say who answers. The bot answers from the next message on; its messages not yet sent are withdrawn where it loses it."""
    if not await app.set_owner(conversation_id, customer_id=customer_id, owner=body.owner):
        raise not_found("conversation")
    return await get_conversation(conversation_id, app, customer_id)


AgentText = Annotated[Text, StringConstraints(min_length=1, max_length=4096)]


class AgentMessageIn(In):
    """A message of a human of the business: `text`, or a `content` (media, buttons, list or template), not both.

    `content` is one of `{"type": "media", "kind", "link", "caption"?, "filename"?}`, `{"type": "buttons", "text", "buttons":
    [{"id", "title"}]}`, `{"type": "list", "text", "button", "sections": [{"title"?, "rows": [{"id", "title",
    "description"?}]}]}`, `{"type": "template", "name", "language", "parameters"?}`. A channel that
    cannot show it sends it in words.
    """

    text: AgentText | None = None
    content: dict[str, object] | None = None
    reply_to: uuid.UUID | None = Field(None, description="A message of this conversation to be quoted.")
    client_id: ShortText | None = Field(
        None, description="The same id sends the message once, however often it is posted."
    )
    take_over: bool = Field(True, description="Whether the bot is silent in this conversation from now on.")

    @model_validator(mode="after")
    def _one_of_them(self) -> "AgentMessageIn":
        if (self.text is None) == (self.content is None):
            raise ValueError("give either text or content")
        return self


class AgentMessageOut(Out):
    """The message, which is on its way."""

    message_id: uuid.UUID
    trace_id: uuid.UUID


@router.post("/{conversation_id}/messages", status_code=202)
async def send_message(
    conversation_id: uuid.UUID, body: AgentMessageIn, response: Response, app: Here, customer_id: Tenant
) -> AgentMessageOut:
    """Say something in a conversation; it leaves behind what already waits there. 200 for one that was posted before."""
    content = _content(body.content)
    try:
        spoken = await app.speak(
            Speak(
                conversation_id,
                customer_id,
                in_words(content) if content is not None else body.text or "",
                encode_content(content) if content is not None else None,
                body.reply_to,
                body.client_id,
                body.take_over,
            )
        )
    except UnknownQuote as error:
        raise Problem(422, "invalid", str(error)) from error
    if spoken is None:
        raise not_found("conversation")
    response.status_code = 200 if spoken.repeated else 202
    return AgentMessageOut(message_id=spoken.message_id, trace_id=spoken.trace_id)


def _content(given: dict[str, object] | None) -> Content | None:
    if given is None:
        return None
    try:
        content = read_content(given)
    except msgspec.ValidationError as error:
        raise Problem(422, "invalid", f"content: {error}") from error
    if b"\\u0000" in encode_content(content):
        raise Problem(422, "invalid", "content: must not contain the character U+0000")
    return content

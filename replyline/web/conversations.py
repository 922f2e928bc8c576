"""Conversations of a customer."""

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from replyline.jobs import ChannelKind
from replyline.store import conversations
from replyline.web.auth import Here, Tenant
from replyline.web.problems import not_found
from replyline.web.wire import Cursor, Limit, Out, Page, page

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])


class ConversationOut(Out):
    """The thread of one contact with one chatbot on one channel."""

    id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    channel_id: uuid.UUID
    channel: ChannelKind
    contact_id: uuid.UUID
    contact_name: str | None
    owner: str
    reply_to: str
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

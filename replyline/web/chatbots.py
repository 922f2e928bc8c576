"""Chatbots of a customer. A provider's key goes in and never comes out."""

import uuid
from datetime import datetime
from typing import Annotated, ClassVar, cast

from fastapi import APIRouter, Response
from pydantic import AfterValidator, Field, StringConstraints

from replyline.providers import PROVIDERS
from replyline.store import chatbots, customers
from replyline.web.addresses import check_addresses
from replyline.web.auth import Anyone, CustomerId, Here, Tenant
from replyline.web.guards import RecordRoute, takes
from replyline.web.problems import not_found
from replyline.web.wire import Changes, Cursor, Limit, Name, Out, Page, Reference, Secret, Text, Url, page

router = APIRouter(prefix="/v1/chatbots", tags=["chatbots"], route_class=RecordRoute)


_MOST_BYTES = 1_500_000  # 100,000 characters of instructions, each in 12 bytes where JSON escapes it


def _known_provider(name: str) -> str:
    if name not in PROVIDERS:
        raise ValueError(f"there is no such provider; there are {', '.join(PROVIDERS)}")
    return name


Instructions = Annotated[Text, StringConstraints(max_length=100_000)]
ProviderName = Annotated[str, AfterValidator(_known_provider)]
Model = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
FallbackText = Annotated[Text, StringConstraints(min_length=1, max_length=4000)]
QuietWindow = Annotated[float, Field(ge=0, le=60)]


class ChatbotChanges(Changes):
    """What may be set of a chatbot; quiet windows are in seconds, 0 turns one off. What is left out stays, or has its default."""

    clearable: ClassVar[frozenset[str]] = frozenset(
        {"model", "provider_base_url", "provider_key", "external_reference"}
    )

    name: Name | None = None
    instructions: Instructions | None = None
    provider: ProviderName | None = None
    model: Model | None = None
    provider_base_url: Url | None = None
    provider_key: Secret | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    fallback_text: FallbackText | None = None
    context_messages: Annotated[int, Field(ge=0, le=200)] | None = None
    context_chars: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    knowledge_passages: Annotated[int, Field(ge=0, le=20)] | None = None
    quiet_window_widget_s: QuietWindow | None = None
    quiet_window_whatsapp_s: QuietWindow | None = None
    quiet_window_max_s: Annotated[float, Field(ge=0, le=300)] | None = None
    vision: bool | None = None
    unsupported_text: Annotated[Text, StringConstraints(min_length=1, max_length=1000)] | None = None
    human_takeover: bool | None = None
    human_hold_s: Annotated[float, Field(ge=0, le=2_592_000)] | None = None
    external_reference: Reference | None = None


class ChatbotIn(ChatbotChanges):
    """A chatbot to be made."""

    clearable: ClassVar[frozenset[str]] = ChatbotChanges.clearable | {"customer_id"}

    name: Name
    customer_id: uuid.UUID | None = None


class ChatbotOut(Out):
    """A chatbot."""

    id: uuid.UUID
    customer_id: uuid.UUID
    name: str
    instructions: str
    provider: str
    model: str | None
    provider_base_url: str | None
    has_provider_key: bool
    max_output_tokens: int
    fallback_text: str
    context_messages: int
    context_chars: int
    knowledge_passages: int
    quiet_window_widget_s: float
    quiet_window_whatsapp_s: float
    quiet_window_max_s: float
    vision: bool
    unsupported_text: str
    human_takeover: bool
    human_hold_s: float
    external_reference: str | None
    created_at: datetime
    updated_at: datetime


@router.post("", status_code=201)
@takes(_MOST_BYTES)
async def create_chatbot(body: ChatbotIn, app: Here, who: Anyone, customer_id: CustomerId = None) -> ChatbotOut:
    """Add a chatbot; with nothing but a name it answers from its knowledge, without any AI provider."""
    owner = who.one(body.customer_id or customer_id)
    check_addresses(app, who, {"providerBaseUrl": body.provider_base_url})
    if await customers.get(app.database, customer_id=owner) is None:
        raise not_found("customer")
    settings = cast("chatbots.ChatbotChanges", body.model_dump(exclude_unset=True, exclude={"customer_id", "name"}))
    made = await chatbots.create(app.database, app.vault, customer_id=owner, name=body.name, settings=settings)
    return ChatbotOut.model_validate(made)


@router.get("")
async def list_chatbots(app: Here, customer_id: Tenant, cursor: Cursor = None, limit: Limit = 50) -> Page[ChatbotOut]:
    """Chatbots, oldest first."""
    found = await chatbots.list_page(app.database, customer_id=customer_id, after=cursor, limit=limit + 1)
    return page(found, limit, ChatbotOut)


@router.get("/{chatbot_id}")
async def get_chatbot(chatbot_id: uuid.UUID, app: Here, customer_id: Tenant) -> ChatbotOut:
    """One chatbot."""
    found = await chatbots.get(app.database, chatbot_id, customer_id=customer_id)
    if found is None:
        raise not_found("chatbot")
    return ChatbotOut.model_validate(found)


@router.patch("/{chatbot_id}")
@takes(_MOST_BYTES)
async def update_chatbot(
    chatbot_id: uuid.UUID, body: ChatbotChanges, app: Here, who: Anyone, customer_id: Tenant
) -> ChatbotOut:
    """Change a chatbot; turns that begin from now on are answered with the new settings."""
    check_addresses(app, who, {"providerBaseUrl": body.provider_base_url})
    changes = cast("chatbots.ChatbotChanges", body.model_dump(exclude_unset=True))
    changed = await chatbots.update(app.database, app.vault, chatbot_id, customer_id=customer_id, changes=changes)
    if changed is None:
        raise not_found("chatbot")
    return ChatbotOut.model_validate(changed)


@router.delete("/{chatbot_id}", status_code=204)
async def delete_chatbot(chatbot_id: uuid.UUID, app: Here, customer_id: Tenant) -> Response:
    """Delete a chatbot with its channels, conversations and knowledge."""
    if not await chatbots.delete(app.database, chatbot_id, customer_id=customer_id):
        raise not_found("chatbot")
    return Response(status_code=204)

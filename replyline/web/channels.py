"""Channels of a customer: their settings, their health. Their secrets go in and never come out."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, cast

from fastapi import APIRouter, Query, Response
from pydantic import BeforeValidator, Field, StringConstraints, computed_field

from replyline.jobs import ChannelKind
from replyline.store import channels, chatbots, unread
from replyline.store.channel_forms import check_complete, check_external_id, check_names
from replyline.web.addresses import check_addresses
from replyline.web.auth import Anyone, CustomerId, Here, Tenant
from replyline.web.guards import RecordRoute
from replyline.web.numbers import check_number
from replyline.web.problems import not_found
from replyline.web.wire import Changes, Cursor, In, Limit, Name, Out, Page, Secret, Text, few, page

router = APIRouter(prefix="/v1/channels", tags=["channels"], route_class=RecordRoute)

ExternalId = Annotated[Text, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
FieldName = Annotated[str, StringConstraints(max_length=100)]
FieldValue = Annotated[Text, StringConstraints(max_length=2000)]
Config = Annotated[dict[FieldName, FieldValue], BeforeValidator(few)]
Secrets = Annotated[dict[FieldName, Secret], BeforeValidator(few)]
_ADDRESSES = ("graph_base", "gateway_url")


class ChannelIn(In):
    """An account to be connected.

    WHATSAPP_CLOUD: externalId is the phone_number_id, which Meta must let the access_token read; secrets app_secret,
    verify_token, access_token; config graph_base and graph_version are optional. WHATSAPP_QR: config gateway_url; secrets
    secret and, optional, gateway_token; its externalId is the session, made here (only the operator may name one). WIDGET
    needs nothing: its externalId is the site key, made here.
    """

    chatbot_id: uuid.UUID
    kind: ChannelKind
    name: Name
    external_id: ExternalId | None = None
    config: Config = Field(default_factory=dict)
    secrets: Secrets = Field(default_factory=dict)
    enabled: bool = True
    customer_id: uuid.UUID | None = None


class ChannelChanges(Changes):
    """What may be changed of a channel: `config` replaces the old one, `secrets` replace those they name.

    `externalId` only of WHATSAPP_CLOUD, and by a customer only together with an access_token that may read the new number.
    """

    name: Name | None = None
    chatbot_id: uuid.UUID | None = None
    external_id: ExternalId | None = None
    config: Config | None = None
    secrets: Secrets | None = None
    enabled: bool | None = None


class ChannelOut(Out):
    """A channel. `callbackPath` is where its callbacks go; a widget has none.

    UNHEALTHY: it cannot send, `healthReason` says why; its messages are held until it can, which is looked at `probeAt`.
    """

    id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    kind: ChannelKind
    name: str
    channel_key: str
    external_id: str
    config: Mapping[str, str]
    has_secrets: bool
    enabled: bool
    health: str
    health_reason: str | None
    health_detail: str | None
    unhealthy_since: datetime | None
    probe_at: datetime | None
    quality: dict[str, object] | None
    created_at: datetime
    updated_at: datetime

    @computed_field(alias="callbackPath")  # type: ignore[prop-decorator]  # pydantic's own way to write one
    @property
    def callback_path(self) -> str | None:
        """The path of this API that the channel must call."""
        if self.kind == "WIDGET":
            return None
        return f"/callbacks/{self.kind.lower().replace('_', '-')}/{self.channel_key}"


@router.post("", status_code=201)
async def create_channel(body: ChannelIn, app: Here, who: Anyone, customer_id: CustomerId = None) -> ChannelOut:
    """Connect an account."""
    owner = who.one(body.customer_id or customer_id)
    check_addresses(app, who, {f"config.{name}": body.config.get(name) for name in _ADDRESSES})
    if await chatbots.get(app.database, body.chatbot_id, customer_id=owner) is None:
        raise not_found("chatbot")
    if body.external_id is not None:
        check_external_id(body.kind, body.external_id)
        check_names(body.kind, body.config, body.secrets)
        check_complete(body.kind, body.config, body.secrets)
        if body.kind == "WHATSAPP_CLOUD":
            await check_number(
                app,
                who,
                chatbot_id=body.chatbot_id,
                number=body.external_id,
                config=body.config,
                token=body.secrets.get("access_token"),
            )
        else:
            who.require_operator()
    made = await channels.create(
        app.database,
        app.vault,
        customer_id=owner,
        chatbot_id=body.chatbot_id,
        kind=body.kind,
        name=body.name,
        external_id=body.external_id,
        config=body.config,
        secrets=body.secrets,
        enabled=body.enabled,
    )
    return ChannelOut.model_validate(made)


@router.get("")
async def list_channels(
    *,
    app: Here,
    customer_id: Tenant,
    chatbot_id: Annotated[uuid.UUID | None, Query(alias="chatbotId")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ChannelOut]:
    """Channels, oldest first."""
    found = await channels.list_page(
        app.database, customer_id=customer_id, chatbot_id=chatbot_id, after=cursor, limit=limit + 1
    )
    return page(found, limit, ChannelOut)


@router.get("/{channel_id}")
async def get_channel(channel_id: uuid.UUID, app: Here, customer_id: Tenant) -> ChannelOut:
    """One channel."""
    found = await channels.get(app.database, channel_id, customer_id=customer_id)
    if found is None:
        raise not_found("channel")
    return ChannelOut.model_validate(found)


@router.patch("/{channel_id}")
async def update_channel(
    channel_id: uuid.UUID, body: ChannelChanges, app: Here, who: Anyone, customer_id: Tenant
) -> ChannelOut:
    """Change a channel; what runs may use the old values for 5 seconds more."""
    old = await channels.get(app.database, channel_id, customer_id=customer_id)
    if old is None:
        raise not_found("channel")
    config = body.config or {}
    # An address that stays as it is was allowed before.
    check_addresses(
        app,
        who,
        {f"config.{name}": config.get(name) for name in _ADDRESSES if config.get(name) != old.config.get(name)},
    )
    if body.chatbot_id and await chatbots.get(app.database, body.chatbot_id, customer_id=customer_id) is None:
        raise not_found("chatbot")
    if body.external_id is not None and body.external_id != old.external_id and old.kind == "WHATSAPP_CLOUD":
        check_external_id(old.kind, body.external_id)
        await check_number(
            app,
            who,
            chatbot_id=old.chatbot_id,
            number=body.external_id,
            config=old.config if body.config is None else body.config,
            token=(body.secrets or {}).get("access_token"),
        )
    changes = cast("channels.ChannelChanges", body.model_dump(exclude_unset=True))
    changed = await channels.update(app.database, app.vault, channel_id, customer_id=customer_id, changes=changes)
    if changed is None:
        raise not_found("channel")
    return ChannelOut.model_validate(changed)


@router.delete("/{channel_id}", status_code=204)
async def delete_channel(channel_id: uuid.UUID, app: Here, customer_id: Tenant) -> Response:
    """Delete a channel with its contacts and conversations."""
    if not await channels.delete(app.database, channel_id, customer_id=customer_id):
        raise not_found("channel")
    return Response(status_code=204)


@router.post("/{channel_id}/resume")
async def resume_channel(channel_id: uuid.UUID, app: Here, customer_id: Tenant) -> ChannelOut:
    """Say that an unhealthy channel is mended: what it holds goes out at once, at the pace of its limits."""
    await app.heal_channel(channel_id, customer_id=customer_id)
    return await get_channel(channel_id, app, customer_id)


class UnreadCallbackOut(Out):
    """A part of a callback that was not understood, as it came."""

    id: uuid.UUID
    channel_id: uuid.UUID
    reason: str
    body: str
    received_at: datetime


@router.get("/{channel_id}/unread-callbacks")
async def list_unread_callbacks(
    *, channel_id: uuid.UUID, app: Here, customer_id: Tenant, cursor: Cursor = None, limit: Limit = 50
) -> Page[UnreadCallbackOut]:
    """What the channel was told and Replyline did not understand, newest first."""
    if await channels.get(app.database, channel_id, customer_id=customer_id) is None:
        raise not_found("channel")
    found = await unread.list_page(
        app.database, customer_id=customer_id, channel_id=channel_id, before=cursor, limit=limit + 1
    )
    return page(found, limit, UnreadCallbackOut)

"""WhatsApp Cloud API (Meta): callbacks signed over their bytes, sends without an idempotency key."""

import hashlib
import hmac
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import ClassVar

import aiohttp
import msgspec

from replyline.channels.contract import (
    Accepted,
    Callback,
    ChannelAccount,
    DeliveryStatus,
    ForgedCallback,
    IdentityKind,
    InboundMessage,
    OutgoingText,
    StatusUpdate,
    UnreadableCallback,
)
from replyline.channels.http_call import Answer, call
from replyline.channels.reading import UNREADABLE, is_id, items, part, text
from replyline.channels.signatures import same
from replyline.channels.whatsapp_cloud_content import content_of
from replyline.channels.whatsapp_cloud_errors import error_from, reason_of
from replyline.errors import Permanent, Temporary
from replyline.jobs import ChannelKind

MAX_TEXT_CHARS = 4096
"""WhatsApp Cloud API, text messages: `body` has at most 4096 characters."""

# Business-scoped user ids: a country code, a dot and an id (WhatsApp Cloud API, "Business-scoped user IDs").
_BSUID = re.compile(r"^[A-Z]{2}\.")
_MAX_NAME_CHARS = 512
_MAX_DETAIL_CHARS = 1000
_STATUSES: dict[str, DeliveryStatus] = {
    "sent": "SENT",
    "delivered": "DELIVERED",
    "read": "READ",
    "played": "READ",
    "failed": "FAILED",
}


class _Profile(msgspec.Struct):
    name: str | None = None


class _Contact(msgspec.Struct):
    profile: _Profile | None = None
    wa_id: str | None = None
    user_id: str | None = None


class _Metadata(msgspec.Struct):
    phone_number_id: str


class _Value(msgspec.Struct):
    metadata: _Metadata
    contacts: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    statuses: msgspec.Raw = msgspec.Raw()


class _Change(msgspec.Struct):
    value: msgspec.Raw
    field: str


class _Entry(msgspec.Struct):
    changes: msgspec.Raw = msgspec.Raw()


class _Envelope(msgspec.Struct):
    object: str
    entry: list[msgspec.Raw]


class _Message(msgspec.Struct):
    id: str
    type: str
    timestamp: str | float | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    from_user_id: str | None = None
    group_id: str | None = None


class _StatusError(msgspec.Struct):
    code: int
    title: str | None = None
    message: str | None = None


class _Status(msgspec.Struct):
    id: str
    status: str
    timestamp: str | float | None = None
    biz_opaque_callback_data: str | None = None
    errors: msgspec.Raw = msgspec.Raw()


class _SentMessage(msgspec.Struct):
    id: str


class _SendAnswer(msgspec.Struct):
    messages: list[_SentMessage]


class WhatsAppCloud:
    """The channel WHATSAPP_CLOUD."""

    kind: ClassVar[ChannelKind] = "WHATSAPP_CLOUD"
    repeat_is_safe: ClassVar[bool] = False

    def verify(self, account: ChannelAccount, headers: Mapping[str, str], raw: bytes) -> None:
        """Check `X-Hub-Signature-256`: HMAC-SHA256 of the raw body with the app secret (contracts §2.2)."""
        secret = account.secrets.get("app_secret", "")
        wanted = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
        if not secret or not same(headers.get("x-hub-signature-256", ""), wanted):
            raise ForgedCallback("X-Hub-Signature-256 is missing or wrong")

    def parse(self, account: ChannelAccount, raw: bytes) -> Callback:
        """Read every entry, change, message and status of a batch; those of another number are ignored (contracts §2.2)."""
        try:
            envelope = msgspec.json.decode(raw, type=_Envelope)
        except UNREADABLE as error:
            raise UnreadableCallback(f"not a WhatsApp callback: {error}") from error
        messages: list[InboundMessage] = []
        statuses: list[StatusUpdate] = []
        ignored = 0
        for value in _values(envelope):
            if value is None or value.metadata.phone_number_id != account.external_id:
                ignored += 1
                continue
            names = _names(value)
            for raw_message in items(value.messages):
                message = _message(raw_message, names)
                ignored += message is None
                messages += [message] if message else []
            for raw_status in items(value.statuses):
                status = _status(raw_status)
                ignored += status is None
                statuses += [status] if status else []
        return Callback(tuple(messages), tuple(statuses), ignored)

    async def send(self, account: ChannelAccount, message: OutgoingText, http: aiohttp.ClientSession) -> Accepted:
        """Send one text; our message id goes along and comes back in every status (contracts §1.2)."""
        if len(message.content) > MAX_TEXT_CHARS:
            raise Permanent(
                f"the text has {len(message.content)} characters, WhatsApp takes {MAX_TEXT_CHARS}",
                reason="text_too_long",
            )
        base, version = account.config.get("graph_base"), account.config.get("graph_version")
        token = account.secrets.get("access_token")
        if not base or not version or not token:
            raise Permanent(
                "the channel has no graph_base, graph_version or access_token", reason="channel_misconfigured"
            )
        recipient = {"recipient": message.to} if _BSUID.match(message.to) else {"to": f"+{message.to.lstrip('+')}"}
        body = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            **recipient,
            "type": "text",
            "text": {"body": message.content, "preview_url": False},
            "biz_opaque_callback_data": str(message.message_id),
        }
        answer = await call(
            http,
            "Meta",
            f"{base.rstrip('/')}/{version}/{account.external_id}/messages",
            body=msgspec.json.encode(body),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            secret=token,
        )
        if not 200 <= answer.status < 300:
            raise error_from(answer)
        return Accepted(_wamid(answer))


def verification(account: ChannelAccount, query: Mapping[str, str]) -> str:
    """The challenge to send back when Meta verifies a callback URL (contracts §2.1).

    Raises:
        ForgedCallback: it is no subscription, or the token is not this channel's.
    """
    wanted = account.secrets.get("verify_token", "")
    given = query.get("hub.verify_token", "")
    if query.get("hub.mode") != "subscribe" or not wanted or not same(given, wanted):
        raise ForgedCallback("hub.verify_token is not this channel's")
    return query.get("hub.challenge", "")


def _values(envelope: _Envelope) -> Iterator[_Value | None]:
    """The value of each change; None for one that cannot be read, or is of a field that is none of our business."""
    for raw_entry in envelope.entry:
        entry = part(raw_entry, _Entry)
        if entry is None:
            yield None
            continue
        for raw_change in items(entry.changes):
            change = part(raw_change, _Change)
            yield part(change.value, _Value) if change is not None and change.field == "messages" else None


def _names(value: _Value) -> dict[str, str]:
    names: dict[str, str] = {}
    for raw in items(value.contacts):
        contact = part(raw, _Contact)
        if contact is not None and contact.profile is not None and contact.profile.name:
            for identity in (contact.wa_id, contact.user_id):
                if identity:
                    names[identity] = text(contact.profile.name, _MAX_NAME_CHARS)
    return names


def _message(raw: msgspec.Raw, names: Mapping[str, str]) -> InboundMessage | None:
    """A message of a person to us; None for one that asks for no answer, or that cannot be read.

    A person who has a user id is known by it: it is always there, while the phone number comes and goes with their privacy
    settings and would make them two contacts (WhatsApp Cloud API, "Business-scoped user IDs").
    """
    message = part(raw, _Message)
    if message is None or message.group_id is not None or not is_id(message.id):
        return None
    sender = message.from_user_id or message.from_
    reply_to = message.from_ or message.from_user_id
    content = content_of(message.type, bytes(raw))
    if not sender or not reply_to or not is_id(sender) or not is_id(reply_to) or content is None:
        return None
    kind: IdentityKind = "bsuid" if message.from_user_id else "wa_id"
    return InboundMessage(
        external_id=message.id,
        sender=sender,
        identity_kind=kind,
        reply_to=reply_to,
        content=content,
        content_type=message.type,
        name=names.get(sender) or names.get(reply_to),
        provider_timestamp=_seconds(message.timestamp),
    )


def _status(raw: msgspec.Raw) -> StatusUpdate | None:
    status = part(raw, _Status)
    if status is None or status.status not in _STATUSES or not is_id(status.id):
        return None
    seconds = _seconds(status.timestamp)
    errors = [part(error, _StatusError) for error in items(status.errors)]
    error = errors[0] if errors else None
    return StatusUpdate(
        external_id=status.id,
        status=_STATUSES[status.status],
        at=datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC),
        message_id=_our_id(status.biz_opaque_callback_data),
        error_reason=reason_of(error.code) if error else None,
        error_detail=text(f"{error.code}: {error.title or error.message}", _MAX_DETAIL_CHARS) if error else None,
    )


def _our_id(value: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if value else None
    except ValueError:  # another program's message on the same number
        return None


_LATEST_S = 4_102_444_800.0  # the year 2100: anything later is not a time


def _seconds(stamp: str | float | None) -> float | None:
    """Unix seconds, which Meta writes as text; None where they are no time."""
    try:
        seconds = float(stamp) if stamp else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 < seconds < _LATEST_S else None


def _wamid(answer: Answer) -> str:
    read = part(answer.body, _SendAnswer)
    if read is None or not read.messages or not is_id(read.messages[0].id):
        raise Temporary("Meta's answer names no message", reason="unreadable_answer", outcome_unknown=True)
    return read.messages[0].id

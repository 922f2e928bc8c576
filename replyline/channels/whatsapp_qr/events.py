"""What the gateway tells us: messages, statuses and the state of its session (docs/qr-gateway.md, "Events")."""

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from replyline.channels.contract import (
    Callback,
    ChannelAccount,
    DeliveryStatus,
    ForgedCallback,
    IdentityKind,
    InboundMessage,
    SessionReport,
    StatusUpdate,
    UnreadableCallback,
    UnreadItem,
)
from replyline.channels.reading import UNREADABLE, is_id, our_id, part, seconds, text
from replyline.channels.signatures import same
from replyline.channels.whatsapp_qr.content import Message, said_in
from replyline.channels.whatsapp_qr.gateway import Failure, down_reason
from replyline.jobs import Identity, IncomingKind

SIGNATURE_TOLERANCE_S = 25 * 3600.0
"""How old a callback may be, in seconds: the gateway repeats one for 24 hours, and may sign it but once."""

_STATUSES: dict[str, DeliveryStatus] = {"sent": "SENT", "delivered": "DELIVERED", "read": "READ", "failed": "FAILED"}
# Where one person writes: a phone number or a LID. Groups, broadcasts, newsletters and bots are not answered (contracts §3.6).
_PEOPLE: dict[str, IdentityKind] = {"": "phone", "s.whatsapp.net": "phone", "c.us": "phone", "lid": "lid"}
_WHATSAPP_ITSELF = "0"
"""WhatsApp's own notices come from 0@s.whatsapp.net."""
_KINDS: dict[str, IncomingKind] = {
    "reaction": "reaction",
    "edit": "edit",
    "revoke": "revoke",
    "unknown": "unsupported",
}
_MAX_NAME_CHARS = 512
_MAX_DETAIL_CHARS = 1000


class _Event(msgspec.Struct):
    id: str
    type: str
    session: str
    data: msgspec.Raw
    ts: float | None = None


class _Status(msgspec.Struct):
    wa_id: str
    status: str
    message_id: str | None = None
    timestamp: float | None = None
    error: Failure | None = None


class _Session(msgspec.Struct):
    state: str
    last_error: Failure | None = None


def verify(account: ChannelAccount, headers: Mapping[str, str], raw: bytes) -> None:
    """Check `X-Gateway-Signature`: v1=HMAC-SHA256(secret, timestamp "." body), and that it is not stale.

    Raises:
        ForgedCallback: it is missing, wrong or too old.
    """
    secret = account.secrets.get("secret", "")
    stamp = headers.get("x-gateway-timestamp", "")
    signed = hmac.new(secret.encode(), stamp.encode(errors="surrogatepass") + b"." + raw, hashlib.sha256).hexdigest()
    if not secret or not same(headers.get("x-gateway-signature", ""), f"v1={signed}"):
        raise ForgedCallback("X-Gateway-Signature is missing or wrong")
    try:
        age_s = abs(time.time() - float(stamp))
    except ValueError as error:
        raise ForgedCallback("X-Gateway-Timestamp is not a number of seconds") from error
    if not age_s <= SIGNATURE_TOLERANCE_S:  # so written that "nan" is refused too
        raise ForgedCallback("the callback is too old")


def read(account: ChannelAccount, raw: bytes) -> Callback:
    """Read one event of the account's session.

    Raises:
        UnreadableCallback: it is no event.
    """
    try:
        event = msgspec.json.decode(raw, type=_Event)
    except UNREADABLE as error:
        raise UnreadableCallback(f"not a gateway event: {error}") from error
    if event.session != account.external_id:  # its secret may not speak for another number
        return Callback(elsewhere={text(event.session, 100): 1})
    match event.type:
        case "message":
            return _message_in(event)
        case "status":
            return _status_in(event)
        case "session":
            return _session_in(event)
        case _:
            return _unread(f"an event of the type {text(event.type, 60)}", event)


def _unread(reason: str, event: _Event) -> Callback:
    return Callback(unread=(UnreadItem(reason, bytes(event.data)),))


def _message_in(event: _Event) -> Callback:
    message = part(event.data, Message)
    if message is None or not is_id(message.id):
        return _unread("a message cannot be read", event)
    found = _message(message)
    return Callback(ignored=1) if found is None else Callback(messages=(found,))


def _message(message: Message) -> InboundMessage | None:
    """What one person did, or a human of the business on the telephone; answered to the very address it came from."""
    sender = _person(message.from_)
    kind = _KINDS.get(message.type, "message")
    if sender is None or not is_id(message.from_):
        return None
    if kind in {"edit", "revoke", "reaction"} and not (message.target and is_id(message.target)):
        return None
    if message.from_me and kind != "message":
        return None  # what the business does on its own telephone, other than write, is not the person's
    said = said_in(message)
    content = "[deleted]" if kind == "revoke" else "[unsupported]" if kind == "unsupported" else said.words
    if not content.strip():
        return None
    other = _person(message.alt) if message.alt else None
    return InboundMessage(
        external_id=message.id,
        sender=sender.value,
        identity_kind=sender.kind,
        reply_to=message.from_,
        content=content,
        content_type=text(message.type, 60),
        name=text(message.name, _MAX_NAME_CHARS) if message.name and not message.from_me else None,
        provider_timestamp=seconds(message.timestamp),
        kind="echo" if message.from_me else kind,
        also_known_as=(other,) if other is not None and other != sender else (),
        target_id=message.target,
        media=said.media,
        body=said.body,
    )


def _person(jid: str) -> Identity | None:
    user, _, domain = jid.partition("@")
    value = user.partition(":")[0].removeprefix("+")  # without the device
    if domain not in _PEOPLE or not is_id(value) or value == _WHATSAPP_ITSELF:
        return None
    return Identity(_PEOPLE[domain], value)


def _status_in(event: _Event) -> Callback:
    status = part(event.data, _Status)
    if status is None or status.status not in _STATUSES or not is_id(status.wa_id):
        return _unread("a status cannot be read", event)
    at = seconds(status.timestamp)
    error = status.error
    reason = None
    if status.status == "failed":
        reason = "restricted" if error is not None and error.code == "463" else "gateway_failed"
    update = StatusUpdate(
        external_id=status.wa_id,
        status=_STATUSES[status.status],
        at=datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC),
        message_id=our_id(status.message_id),
        error_reason=reason,
        error_code=_code(error),
        error_title=text(error.code, _MAX_NAME_CHARS) if error is not None else None,
        error_detail=text(error.message, _MAX_DETAIL_CHARS) if error is not None else None,
    )
    return Callback(statuses=(update,))


def _code(error: Failure | None) -> int | None:
    """WhatsApp's own number of the error, where it is one."""
    digits = error.code if error is not None else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def _session_in(event: _Event) -> Callback:
    session = part(event.data, _Session)
    if session is None or not session.state:
        return _unread("a session cannot be read", event)
    detail = session.last_error.message if session.last_error is not None else None
    report = SessionReport(
        event_id=text(event.id, _MAX_NAME_CHARS),
        state=text(session.state, 60),
        raw=bytes(event.data),
        # Between two connections there is nothing to be done: jobs are put off by the gateway itself.
        down=None if session.state in {"connecting", "closed"} else down_reason(session.state),
        detail=text(detail, _MAX_DETAIL_CHARS) if detail else None,
    )
    return Callback(session=report)

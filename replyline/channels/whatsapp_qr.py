"""WhatsApp by QR: our own narrow gateway contract (contracts §3.8), behind which any WhatsApp Web library may run."""

import hashlib
import hmac
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar
from urllib.parse import quote

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
from replyline.channels.reading import UNREADABLE, is_id, part, text
from replyline.channels.signatures import same
from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.jobs import ChannelKind

SIGNATURE_TOLERANCE_S = 25 * 3600.0
"""How old a callback may be, in seconds: the gateway repeats one for 24 hours, and may sign it but once."""

_STATUSES: dict[str, DeliveryStatus] = {"sent": "SENT", "delivered": "DELIVERED", "read": "READ", "failed": "FAILED"}
# Where one person writes: a phone number or a LID. Groups, broadcasts, newsletters and bots are not answered (contracts §3.6).
_PEOPLE: dict[str, IdentityKind] = {"": "phone", "s.whatsapp.net": "phone", "c.us": "phone", "lid": "lid"}
_MAX_NAME_CHARS = 512
_MAX_DETAIL_CHARS = 1000
_DEFAULT_WAIT_S = 5.0
_LONGEST_WAIT_S = 3600.0


class _Event(msgspec.Struct):
    id: str
    type: str
    session: str
    data: msgspec.Raw
    ts: float | None = None


class _Message(msgspec.Struct):
    id: str
    from_: str = msgspec.field(name="from")
    text: str
    type: str = "text"
    name: str | None = None
    timestamp: float | None = None


class _Status(msgspec.Struct):
    wa_id: str
    status: str
    message_id: str | None = None
    timestamp: float | None = None
    error: str | None = None


class _SendAnswer(msgspec.Struct):
    wa_id: str


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""
    retryable: bool = False
    retry_after_ms: float | None = None


class _ErrorAnswer(msgspec.Struct):
    error: _Error


class WhatsAppQr:
    """The channel WHATSAPP_QR."""

    kind: ClassVar[ChannelKind] = "WHATSAPP_QR"
    # The gateway recognises our message id (`Idempotency-Key`) and answers a repeat with what it answered first.
    repeat_is_safe: ClassVar[bool] = True

    def verify(self, account: ChannelAccount, headers: Mapping[str, str], raw: bytes) -> None:
        """Check `X-Gateway-Signature`: v1=HMAC-SHA256(secret, timestamp "." body), and that it is not stale."""
        secret = account.secrets.get("secret", "")
        stamp = headers.get("x-gateway-timestamp", "")
        signed = hmac.new(
            secret.encode(), stamp.encode(errors="surrogatepass") + b"." + raw, hashlib.sha256
        ).hexdigest()
        if not secret or not same(headers.get("x-gateway-signature", ""), f"v1={signed}"):
            raise ForgedCallback("X-Gateway-Signature is missing or wrong")
        try:
            age_s = abs(time.time() - float(stamp))
        except ValueError as error:
            raise ForgedCallback("X-Gateway-Timestamp is not a number of seconds") from error
        if not age_s <= SIGNATURE_TOLERANCE_S:  # so written that "nan" is refused too
            raise ForgedCallback("the callback is too old")

    def parse(self, account: ChannelAccount, raw: bytes) -> Callback:
        """Read one event of this session; kinds that concern neither messages nor their statuses are ignored."""
        try:
            event = msgspec.json.decode(raw, type=_Event)
            if event.session != account.external_id:  # its secret may not speak for another number
                return Callback(ignored=1)
            match event.type:
                case "message":
                    message = _message(event)
                    return Callback(messages=(message,)) if message else Callback(ignored=1)
                case "status":
                    update = _status(event)
                    return Callback(statuses=(update,)) if update else Callback(ignored=1)
                case _:
                    return Callback(ignored=1)
        except UNREADABLE as error:
            raise UnreadableCallback(f"not a gateway event: {error}") from error

    async def send(self, account: ChannelAccount, message: OutgoingText, http: aiohttp.ClientSession) -> Accepted:
        """Send one text; a repeat with the same message id is answered like the first."""
        url = account.config.get("gateway_url")
        if not url:
            raise Permanent("the channel has no gateway_url", reason="channel_misconfigured")
        headers = {"Idempotency-Key": str(message.message_id), "Content-Type": "application/json"}
        token = account.secrets.get("gateway_token")
        if token:
            headers["Authorization"] = f"Bearer {token}"
        answer = await call(
            http,
            "the QR gateway",
            f"{url.rstrip('/')}/v1/sessions/{quote(account.external_id, safe='')}/messages",
            body=msgspec.json.encode({"to": message.to, "type": "text", "text": message.content}),
            headers=headers,
            secret=token,
        )
        if not 200 <= answer.status < 300:
            raise _refusal(answer)
        sent = part(answer.body, _SendAnswer)
        if sent is None or not is_id(sent.wa_id):
            raise Temporary("the gateway's answer names no message", reason="unreadable_answer")
        return Accepted(sent.wa_id)


def _message(event: _Event) -> InboundMessage | None:
    """A message of one person to us; it is answered to the very address it came from (contracts §3.6)."""
    message = msgspec.json.decode(event.data, type=_Message)
    user, _, domain = message.from_.partition("@")
    sender = user.partition(":")[0].removeprefix("+")  # without the device
    content = text(message.text)
    if domain not in _PEOPLE or not sender or not is_id(message.from_) or not is_id(message.id) or not content:
        return None
    return InboundMessage(
        external_id=message.id,
        sender=sender,
        identity_kind=_PEOPLE[domain],
        reply_to=message.from_,
        content=content,
        content_type=text(message.type, _MAX_NAME_CHARS),
        name=text(message.name, _MAX_NAME_CHARS) if message.name else None,
        provider_timestamp=_seconds(message.timestamp),
    )


def _status(event: _Event) -> StatusUpdate | None:
    status = msgspec.json.decode(event.data, type=_Status)
    if status.status not in _STATUSES or not is_id(status.wa_id):
        return None
    seconds = _seconds(status.timestamp)
    return StatusUpdate(
        external_id=status.wa_id,
        status=_STATUSES[status.status],
        at=datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC),
        message_id=_our_id(status.message_id),
        error_reason="gateway_failed" if status.status == "failed" else None,
        error_detail=text(status.error, _MAX_DETAIL_CHARS) if status.error else None,
    )


_LATEST_S = 4_102_444_800.0  # the year 2100: anything later is not a time


def _seconds(stamp: float | None) -> float | None:
    return stamp if stamp is not None and 0 < stamp < _LATEST_S else None


def _our_id(value: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if value else None
    except ValueError:  # sent from the phone itself
        return None


def _refusal(answer: Answer) -> JobError:
    """The gateway says by itself whether a repeat helps; without a readable error the status decides."""
    status = answer.status
    read = part(answer.body, _ErrorAnswer)
    error = read.error if read else _Error(retryable=status in {408, 425})
    said = f"the QR gateway answered {status}: {error.message or error.code or 'no reason'}"
    reason = error.code or f"http_{status}"
    wait_s = answer.retry_after_s or _DEFAULT_WAIT_S
    if error.retry_after_ms is not None:
        wait_s = min(max(error.retry_after_ms / 1000, 0.0), _LONGEST_WAIT_S)
    match status:
        case 409 | 429:  # not connected or in flight; paced: the gateway will take it later
            return RateLimited(said, after=wait_s, reason=reason)
        case 423:  # WhatsApp's error 463: every repeat counts as another attempt to reach out and makes it worse
            return Permanent(said, reason=reason)
        case _ if error.retryable or status >= 500:
            return Temporary(said, reason=reason)
        case _:
            return Permanent(said, reason=reason)

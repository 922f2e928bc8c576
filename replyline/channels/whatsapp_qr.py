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
    InboundMessage,
    OutgoingText,
    StatusUpdate,
    UnreadableCallback,
)
from replyline.channels.http_errors import failed_call, retry_after_s
from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.jobs import ChannelKind

SIGNATURE_TOLERANCE_S = 86_400.0
"""How old a callback may be: the gateway repeats one for 24 hours, signed with the time of its first try."""

_STATUSES: dict[str, DeliveryStatus] = {"sent": "SENT", "delivered": "DELIVERED", "read": "READ", "failed": "FAILED"}
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
        signed = hmac.new(secret.encode(), stamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
        given = headers.get("x-gateway-signature", "")
        if not secret or not hmac.compare_digest(given.encode(), f"v1={signed}".encode()):
            raise ForgedCallback("X-Gateway-Signature is missing or wrong")
        try:
            age_s = abs(time.time() - float(stamp))
        except ValueError as error:
            raise ForgedCallback("X-Gateway-Timestamp is not a number of seconds") from error
        if not age_s <= SIGNATURE_TOLERANCE_S:
            raise ForgedCallback("the callback is too old")

    def parse(self, account: ChannelAccount, raw: bytes) -> Callback:
        """Read one event of this session; kinds that concern neither messages nor their statuses are ignored."""
        try:
            event = msgspec.json.decode(raw, type=_Event)
        except msgspec.MsgspecError as error:
            raise UnreadableCallback(f"not a gateway event: {error}") from error
        if event.session != account.external_id:
            raise UnreadableCallback("the event is of another session")
        try:
            match event.type:
                case "message":
                    return Callback(messages=(_message(event),))
                case "status":
                    update = _status(event)
                    return Callback(statuses=(update,)) if update else Callback(ignored=1)
                case _:
                    return Callback(ignored=1)
        except msgspec.MsgspecError as error:
            raise UnreadableCallback(f"the data of a {event.type} event cannot be read: {error}") from error

    async def send(self, account: ChannelAccount, message: OutgoingText, http: aiohttp.ClientSession) -> Accepted:
        """Send one text; a repeat with the same message id is answered like the first."""
        url = account.config.get("gateway_url")
        if not url:
            raise Permanent("the channel has no gateway_url", reason="channel_misconfigured")
        headers = {"Idempotency-Key": str(message.message_id), "Content-Type": "application/json"}
        if token := account.secrets.get("gateway_token"):
            headers["Authorization"] = f"Bearer {token}"
        body = {"to": message.to, "type": "text", "text": message.content}
        try:
            async with http.post(
                f"{url.rstrip('/')}/v1/sessions/{quote(account.external_id, safe='')}/messages",
                data=msgspec.json.encode(body),
                headers=headers,
                allow_redirects=False,
            ) as response:
                answer = await response.read()
                if response.status not in {200, 202}:
                    raise _refusal(response.status, answer, retry_after_s(response.headers, _DEFAULT_WAIT_S))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise failed_call(error, "the QR gateway") from error
        try:
            return Accepted(msgspec.json.decode(answer, type=_SendAnswer).wa_id)
        except msgspec.MsgspecError as error:
            raise Temporary("the gateway's answer names no message", reason="unreadable_answer") from error


def _message(event: _Event) -> InboundMessage:
    message = msgspec.json.decode(event.data, type=_Message)
    if not message.id or not message.from_ or not message.text:
        raise msgspec.ValidationError("id, from and text must not be empty")
    return InboundMessage(
        external_id=message.id,
        sender=message.from_,
        identity_kind="lid" if message.from_.endswith("@lid") else "phone",
        reply_to=message.from_,
        content=message.text,
        content_type=message.type,
        name=message.name,
        provider_timestamp=message.timestamp,
    )


def _status(event: _Event) -> StatusUpdate | None:
    status = msgspec.json.decode(event.data, type=_Status)
    if status.status not in _STATUSES:
        return None
    return StatusUpdate(
        external_id=status.wa_id,
        status=_STATUSES[status.status],
        at=_time(status.timestamp),
        message_id=_our_id(status.message_id),
        error_reason="gateway_failed" if status.status == "failed" else None,
        error_detail=status.error,
    )


def _time(seconds: float | None) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds else datetime.now(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise msgspec.ValidationError(f"not a time: {seconds}") from error


def _our_id(value: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if value else None
    except ValueError:  # sent from the phone itself
        return None


def _refusal(status: int, body: bytes, header_wait_s: float) -> JobError:
    """The gateway says by itself whether a repeat helps; without a readable error the status decides."""
    try:
        error = msgspec.json.decode(body, type=_ErrorAnswer).error
    except msgspec.MsgspecError:
        error = _Error(retryable=status >= 500 or status in {408, 425, 429})
    said = f"the QR gateway answered {status}: {error.message or error.code or 'no reason'}"
    reason = error.code or f"http_{status}"
    wait_s = header_wait_s if error.retry_after_ms is None else min(error.retry_after_ms / 1000, _LONGEST_WAIT_S)
    match status:
        case 409 | 423 | 429:  # not connected, in flight; restricted; paced: the gateway will take it later
            return RateLimited(said, after=wait_s, reason=reason)
        case _ if error.retryable or status >= 500:
            return Temporary(said, reason=reason)
        case _:
            return Permanent(said, reason=reason)

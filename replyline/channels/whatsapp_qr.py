"""WhatsApp by QR: our own narrow gateway contract (docs/qr-gateway.md), behind which any WhatsApp Web library may run."""

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar
from urllib.parse import quote

import aiohttp
import msgspec

from replyline.channels.contract import (
    Accepted,
    Callback,
    Channel,
    ChannelAccount,
    DeliveryStatus,
    ForgedCallback,
    IdentityKind,
    InboundMessage,
    Outgoing,
    Pace,
    SessionReport,
    Sign,
    StatusUpdate,
    UnreadableCallback,
    UnreadItem,
)
from replyline.channels.http_call import Answer, call
from replyline.channels.reading import UNREADABLE, is_id, our_id, part, seconds, text
from replyline.channels.signatures import same
from replyline.channels.whatsapp_text import split_text, whatsapp_text
from replyline.errors import ChannelDown, JobError, Permanent, RateLimited, Temporary
from replyline.jobs import ChannelKind, Identity, IncomingKind

SIGNATURE_TOLERANCE_S = 25 * 3600.0
"""How old a callback may be, in seconds: the gateway repeats one for 24 hours, and may sign it but once."""
MAX_TEXT_CHARS = 65_536
"""docs/qr-gateway.md, "Sending"."""

_STATUSES: dict[str, DeliveryStatus] = {"sent": "SENT", "delivered": "DELIVERED", "read": "READ", "failed": "FAILED"}
# Where one person writes: a phone number or a LID. Groups, broadcasts, newsletters and bots are not answered (contracts §3.6).
_PEOPLE: dict[str, IdentityKind] = {"": "phone", "s.whatsapp.net": "phone", "c.us": "phone", "lid": "lid"}
_KINDS: dict[str, IncomingKind] = {
    "reaction": "reaction",
    "edit": "edit",
    "revoke": "revoke",
    "unknown": "unsupported",
}
# In these states nothing can be sent, and no waiting helps by itself for the last two (docs/qr-gateway.md, "Calls").
_DOWN = {"qr": "session_not_paired", "closed": "session_closed", "logged_out": "session_logged_out"}
_DOWN |= {"banned": "session_banned", "connecting": "session_closed"}
_MAX_NAME_CHARS = 512
_MAX_DETAIL_CHARS = 1000
_DEFAULT_WAIT_S = 5.0
_LONGEST_WAIT_S = 3600.0
_TYPING_MS = (1500, 40, 8000)
"""Shown before a message: at least, for each character, at most, in milliseconds (contracts §3.7)."""
# Not more than 20 messages a minute, and 1.5 s between two to one person (contracts §3.7); the channel may say otherwise.
_PER_MINUTE = 20.0
_CHAT_EVERY_S = 1.5


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
    alt: str | None = None
    from_me: bool = False
    name: str | None = None
    timestamp: float | None = None
    target: str | None = None


class _Failure(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Status(msgspec.Struct):
    wa_id: str
    status: str
    message_id: str | None = None
    timestamp: float | None = None
    error: _Failure | None = None


class _Session(msgspec.Struct):
    state: str
    last_error: _Failure | None = None


class _SendAnswer(msgspec.Struct):
    wa_id: str


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""
    retryable: bool = False
    retry_after_ms: float | None = None


class _ErrorAnswer(msgspec.Struct):
    error: _Error


class WhatsAppQr(Channel):
    """The channel WHATSAPP_QR."""

    kind: ClassVar[ChannelKind] = "WHATSAPP_QR"
    # The gateway recognises our message id (`Idempotency-Key`) and answers a repeat with what it answered first.
    repeat_is_safe: ClassVar[bool] = True
    # Accepted means written to the socket; the status `sent` says that WhatsApp has it (contracts §3.6).
    accepted_is_sent: ClassVar[bool] = False
    # WhatsApp shows "typing" for about ten seconds after it was last said.
    sign_every_s: ClassVar[float | None] = 8.0

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
        """Read one event of this session."""
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

    def render(self, text: str) -> tuple[str, ...]:
        """In WhatsApp's marks; one message, unless it is longer than the gateway takes."""
        return split_text(whatsapp_text(text) or text, MAX_TEXT_CHARS)

    async def send(self, account: ChannelAccount, message: Outgoing, http: aiohttp.ClientSession) -> Accepted:
        """Send one text; a repeat with the same message id is answered like the first.

        What is not plain text goes in words: buttons and lists are often not shown by QR sessions (contracts §3.2).
        """
        least, each, most = _TYPING_MS
        typing_ms = 0 if account.config.get("signs_of_life") == "off" else min(least + each * len(message.text), most)
        body: dict[str, object] = {
            "to": message.to,
            "type": "text",
            "text": message.text,
            "typing_ms": typing_ms,
        }
        if message.quotes is not None:
            body["reply_to"] = message.quotes
        answer = await _gateway(
            account, http, "POST", "/messages", body, headers={"Idempotency-Key": str(message.message_id)}
        )
        sent = part(answer.body, _SendAnswer)
        if sent is None or not is_id(sent.wa_id):
            raise Temporary("the gateway's answer names no message", reason="unreadable_answer")
        return Accepted(sent.wa_id)

    def pace(self, account: ChannelAccount) -> Pace:
        """20 messages a minute and one in 1.5 s to one person, unless the channel says otherwise (contracts §3.7)."""
        per_minute = float(account.config.get("messages_per_minute", _PER_MINUTE))
        return Pace(
            every_s=60 / per_minute if per_minute > 0 else 0.0,
            burst=1,
            recipient_every_s=_CHAT_EVERY_S if per_minute > 0 else 0.0,
            recipient_burst=1,
            per_day=int(account.config.get("messages_per_day", 0)),
        )

    async def sign(self, account: ChannelAccount, sign: Sign, http: aiohttp.ClientSession) -> bool:
        """Mark the message read, and show typing or end it."""
        if account.config.get("signs_of_life") == "off":
            return False
        if sign.read_id is not None:
            await _gateway(account, http, "POST", "/read", {"to": sign.to, "message_ids": [sign.read_id]})
        await _gateway(account, http, "POST", "/typing", {"to": sign.to, "on": sign.typing})
        return True

    async def check(self, account: ChannelAccount, http: aiohttp.ClientSession) -> None:
        """Ask for the session's state: it must be open."""
        answer = await _gateway(account, http, "GET", "", None)
        session = part(answer.body, _Session)
        if session is None:
            raise Temporary("the gateway's answer names no state", reason="unreadable_answer")
        if (reason := down_reason(session.state)) is not None:
            raise ChannelDown(f"the session is {text(session.state, 60)}", reason=reason)


def down_reason(state: str) -> str | None:
    """Why nothing can be sent in a session of that state; None where it can."""
    return _DOWN.get(state)


def _unread(reason: str, event: _Event) -> Callback:
    return Callback(unread=(UnreadItem(reason, bytes(event.data)),))


def _message_in(event: _Event) -> Callback:
    message = part(event.data, _Message)
    if message is None or not is_id(message.id):
        return _unread("a message cannot be read", event)
    found = _message(message)
    return Callback(ignored=1) if found is None else Callback(messages=(found,))


def _message(message: _Message) -> InboundMessage | None:
    """What one person did, or a human of the business on the telephone; answered to the very address it came from."""
    sender = _person(message.from_)
    content = text(message.text)
    kind = _KINDS.get(message.type, "message")
    if sender is None or not is_id(message.from_):
        return None
    if message.type not in {"text", "unknown"} and kind in {"message", "reaction"}:
        content = f"[{text(message.type, 60)}] {content}".strip()
    if kind in {"revoke", "unsupported"}:
        content = "[deleted]" if kind == "revoke" else "[unsupported]"
    if kind in {"edit", "revoke", "reaction"} and not (message.target and is_id(message.target)):
        return None
    if not content:
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
        kind="echo" if message.from_me and kind == "message" else kind,
        also_known_as=(other,) if other is not None and other != sender else (),
        target_id=message.target,
    )


def _person(jid: str) -> Identity | None:
    user, _, domain = jid.partition("@")
    value = user.partition(":")[0].removeprefix("+")  # without the device
    return Identity(_PEOPLE[domain], value) if domain in _PEOPLE and value and is_id(value) else None


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


def _code(error: _Failure | None) -> int | None:
    """WhatsApp's own number of the error, where it is one."""
    digits = error.code if error is not None else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def _session_in(event: _Event) -> Callback:
    session = part(event.data, _Session)
    if session is None or not session.state:
        return _unread("a session cannot be read", event)
    detail = session.last_error.message if session.last_error is not None else None
    report = SessionReport(
        state=text(session.state, 60),
        raw=bytes(event.data),
        # Between two connections there is nothing to be done: jobs are put off by the gateway itself.
        down=None if session.state in {"connecting", "closed"} else down_reason(session.state),
        detail=text(detail, _MAX_DETAIL_CHARS) if detail else None,
    )
    return Callback(session=report)


async def _gateway(
    account: ChannelAccount,
    http: aiohttp.ClientSession,
    method: str,
    path: str,
    body: Mapping[str, object] | None,
    *,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    url = account.config.get("gateway_url")
    if not url:
        raise Permanent("the channel has no gateway_url", reason="channel_misconfigured")
    token = account.secrets.get("gateway_token")
    answer = await call(
        http,
        "the QR gateway",
        f"{url.rstrip('/')}/v1/sessions/{quote(account.external_id, safe='')}{path}",
        body=None if body is None else msgspec.json.encode(body),
        headers={
            "Content-Type": "application/json",
            **(headers or {}),
            **({"Authorization": f"Bearer {token}"} if token else {}),
        },
        secret=token,
        method=method,
    )
    if not 200 <= answer.status < 300:
        raise _refusal(answer)
    return answer


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
        case 401 | 403 | 410:  # our token, or the session's login, is no longer taken
            return ChannelDown(said, reason=f"session_{reason}" if status == 410 else "gateway_unauthorized")
        case 404 if error.code == "unknown_session":
            return ChannelDown(said, reason="session_unknown")
        case 409 | 421 | 429:  # not connected or in flight; another gateway's; paced: it will be taken later
            return RateLimited(said, after=wait_s, reason=reason)
        case 423:  # WhatsApp's error 463: every repeat counts as another attempt to reach out and makes it worse
            return Permanent(said, reason=reason)
        case _ if error.retryable or status >= 500:
            return Temporary(said, reason=reason)
        case _:
            return Permanent(said, reason=reason)

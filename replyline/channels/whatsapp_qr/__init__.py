"""WhatsApp by QR: our own narrow gateway contract (docs/qr-gateway.md), behind which any WhatsApp Web library may run."""

from collections.abc import AsyncIterator, Mapping
from typing import ClassVar

import aiohttp
import msgspec

from replyline.channels.contract import Accepted, Callback, Channel, ChannelAccount, Outgoing, Pace, Sign
from replyline.channels.reading import is_id, part, text
from replyline.channels.whatsapp_qr import events, media
from replyline.channels.whatsapp_qr.gateway import ask, down_reason, show_session
from replyline.channels.whatsapp_text import split_text, whatsapp_text
from replyline.contents import Media
from replyline.errors import ChannelDown, Temporary
from replyline.jobs import ChannelKind, MediaRef

MAX_TEXT_CHARS = 65_536
"""docs/qr-gateway.md, "Sending"."""

_TYPING_MS = (1500, 40, 8000)
"""Shown before a message: at least, for each character, at most, in milliseconds (contracts §3.7)."""
# Not more than 20 messages a minute, and 1.5 s between two to one person (contracts §3.7); the channel may say otherwise.
_PER_MINUTE = 20.0
_CHAT_EVERY_S = 1.5


class _SendAnswer(msgspec.Struct):
    wa_id: str


class WhatsAppQr(Channel):
    """The channel WHATSAPP_QR."""

    kind: ClassVar[ChannelKind] = "WHATSAPP_QR"
    # The gateway recognises our message id (`Idempotency-Key`) and answers a repeat with what it answered first.
    repeat_is_safe: ClassVar[bool] = True
    # Accepted means written to the socket; the status `sent` says that WhatsApp has it (contracts §3.6).
    accepted_is_sent: ClassVar[bool] = False
    files_come_from_a_gateway: ClassVar[bool] = True
    # WhatsApp shows "typing" for about ten seconds after it was last said.
    sign_every_s: ClassVar[float | None] = 8.0

    def verify(self, account: ChannelAccount, headers: Mapping[str, str], raw: bytes) -> None:
        """Check `X-Gateway-Signature`."""
        events.verify(account, headers, raw)

    def parse(self, account: ChannelAccount, raw: bytes) -> Callback:
        """Read one event of this session."""
        return events.read(account, raw)

    def render(self, text: str) -> tuple[str, ...]:
        """In WhatsApp's marks; one message, unless it is longer than the gateway takes."""
        return split_text(whatsapp_text(text) or text, MAX_TEXT_CHARS)

    def unrendered(self, text: str) -> tuple[str, ...]:
        """As it is, cut into as long messages."""
        return split_text(text, MAX_TEXT_CHARS)

    async def send(self, account: ChannelAccount, message: Outgoing, http: aiohttp.ClientSession) -> Accepted:
        """Send one text or file; a repeat with the same message id is answered like the first.

        A file goes by its link, which the gateway fetches. Anything else that is not plain text goes in words: buttons and lists
        are often not shown by QR sessions (contracts §3.2).
        """
        body: dict[str, object] = {"to": message.to, **_said(message), "typing_ms": _typing_ms(account, message)}
        if message.quotes is not None:
            body["reply_to"] = message.quotes
        answer = await ask(
            account, http, "POST", "/messages", body, headers={"Idempotency-Key": str(message.message_id)}
        )
        sent = part(answer.body, _SendAnswer)
        if sent is None or not is_id(sent.wa_id):
            raise Temporary("the gateway's answer names no message", reason="unreadable_answer")
        return Accepted(sent.wa_id)

    async def fetch_media(
        self, account: ChannelAccount, media_ref: MediaRef, http: aiohttp.ClientSession
    ) -> AsyncIterator[bytes]:
        """The file that came with a message, piece by piece, through the gateway."""
        async for chunk in media.fetch(account, media_ref, http):
            yield chunk

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
            await ask(account, http, "POST", "/read", {"to": sign.to, "message_ids": [sign.read_id]})
        await ask(account, http, "POST", "/typing", {"to": sign.to, "on": sign.typing})
        return True

    async def check(self, account: ChannelAccount, http: aiohttp.ClientSession) -> None:
        """Ask for the session's state: it must be open."""
        session = await show_session(account, http)
        if (reason := down_reason(session.state)) is not None:
            raise ChannelDown(f"the session is {text(session.state, 60)}", reason=reason)


def _said(message: Outgoing) -> dict[str, object]:
    if not isinstance(message.content, Media):
        return {"type": "text", "text": message.text}
    file = message.content
    body: dict[str, object] = {"type": "media", "kind": file.kind, "link": file.link}
    if file.caption:
        body["caption"] = file.caption
    if file.filename:
        body["filename"] = file.filename
    return body


def _typing_ms(account: ChannelAccount, message: Outgoing) -> int:
    if account.config.get("signs_of_life") == "off":
        return 0
    least, each, most = _TYPING_MS
    words = (message.content.caption or "") if isinstance(message.content, Media) else message.text
    return min(least + each * len(words), most)

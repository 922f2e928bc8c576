"""WhatsApp Cloud API (Meta): callbacks signed over their bytes, sends without an idempotency key."""

from collections.abc import AsyncIterator, Mapping
from typing import ClassVar

import aiohttp
import msgspec

from replyline.channels.contract import Accepted, Callback, Channel, ChannelAccount, Outgoing, Pace, Sign
from replyline.channels.http_call import Answer, call
from replyline.channels.reading import is_id, part
from replyline.channels.whatsapp_cloud import callbacks, media
from replyline.channels.whatsapp_cloud.callbacks import verification
from replyline.channels.whatsapp_cloud.errors import RULES, error_from
from replyline.channels.whatsapp_cloud.file_hosts import FileHosts
from replyline.channels.whatsapp_cloud.sends import (
    MAX_TEXT_CHARS,
    is_user_id,
    message_body,
    sign_body,
    template_text,
)
from replyline.channels.whatsapp_text import split_text, whatsapp_text
from replyline.contents import Template
from replyline.errors import ChannelDown, Permanent, Temporary
from replyline.external_ids import MEDIA_ID, PHONE_NUMBER_ID, IdKind
from replyline.jobs import ChannelKind, MediaRef

__all__ = ["MAX_TEXT_CHARS", "WhatsAppCloud", "confirm_number", "verification"]

_DAY_S = 86_400.0
# WhatsApp Cloud API, "Throughput": 80 messages a second, in and out together; and one message in 6 s to one person, of which a
# burst of 45 may be borrowed (contracts §1.7). What a number really has is the channel's configuration.
_PER_SECOND = 60.0
# Of one second's messages, the part that may leave at once. A whole second's worth leaves no room for a worker that is held up
# between its slot and the wire: what it then sends comes in a bunch, on top of what the others send.
_BURST_S = 0.5
_PAIR_EVERY_S = 6.0
_PAIR_BURST = 45
_PAIR_CODE_RECIPIENT_FORM = "recipient_form_not_supported"


class _SentMessage(msgspec.Struct):
    id: str


class _SendAnswer(msgspec.Struct):
    messages: list[_SentMessage]


class _Number(msgspec.Struct):
    id: str


class _NumberState(msgspec.Struct):
    status: str | None = None


class WhatsAppCloud(Channel):
    """The channel WHATSAPP_CLOUD."""

    kind: ClassVar[ChannelKind] = "WHATSAPP_CLOUD"
    repeat_is_safe: ClassVar[bool] = False
    # The typing indicator lasts 25 seconds (contracts §1.3).
    sign_every_s: ClassVar[float | None] = 20.0
    # WhatsApp Cloud API, "Customer service windows": 24 hours from the person's last message.
    window_s: ClassVar[float | None] = _DAY_S

    def verify(self, account: ChannelAccount, headers: Mapping[str, str], raw: bytes) -> None:
        """Check `X-Hub-Signature-256` (contracts §2.2)."""
        callbacks.verify(account, headers, raw)

    def parse(self, account: ChannelAccount, raw: bytes) -> Callback:
        """Read every entry, change, message and status of a batch (contracts §2.4 to §2.6)."""
        return callbacks.read(account, raw)

    def render(self, text: str) -> tuple[str, ...]:
        """In WhatsApp's marks, in messages of at most 4,096 characters (contracts §1.3)."""
        return split_text(whatsapp_text(text) or text, MAX_TEXT_CHARS)

    def unrendered(self, text: str) -> tuple[str, ...]:
        """As it is, cut into as long messages."""
        return split_text(text, MAX_TEXT_CHARS)

    async def send(self, account: ChannelAccount, message: Outgoing, http: aiohttp.ClientSession) -> Accepted:
        """Send one message; to the person's phone number where this kind cannot go to a user id (contracts §1.6: 131062)."""
        if message.content is None and len(message.text) > MAX_TEXT_CHARS:
            raise Permanent(
                f"the text has {len(message.text)} characters, WhatsApp takes {MAX_TEXT_CHARS}",
                reason="text_too_long",
            )
        try:
            return await self._post(account, message, message.to, http)
        except Permanent as error:
            if error.reason != _PAIR_CODE_RECIPIENT_FORM or not is_user_id(message.to) or message.also_to is None:
                raise
            return await self._post(account, message, message.also_to, http)

    async def _post(self, account: ChannelAccount, message: Outgoing, to: str, http: aiohttp.ClientSession) -> Accepted:
        answer = await _graph(account, http, "POST", f"{_number(account)}/messages", message_body(message, to))
        return Accepted(_wamid(answer))

    def pace(self, account: ChannelAccount) -> Pace:
        """60 messages a second (30 at once); to one person 45 at once, then one in 6 seconds. The channel may say otherwise."""
        per_second = float(account.config.get("messages_per_second", _PER_SECOND))
        pair_s = float(account.config.get("pair_interval_s", _PAIR_EVERY_S))
        return Pace(
            every_s=1 / per_second if per_second > 0 else 0.0,
            burst=max(1, round(per_second * _BURST_S)),
            recipient_every_s=pair_s,
            recipient_burst=int(account.config.get("pair_burst", _PAIR_BURST)),
        )

    def fallback(self, account: ChannelAccount, text: str) -> Template | None:
        """The channel's template; with `fallback_parameter` set to `text`, the text goes into its first place."""
        name = account.config.get("fallback_template")
        if not name:
            return None
        parameters = (template_text(text)[:1024],) if account.config.get("fallback_parameter") == "text" else ()
        return Template(name=name, language=account.config.get("fallback_language", "en_US"), parameters=parameters)

    async def sign(self, account: ChannelAccount, sign: Sign, http: aiohttp.ClientSession) -> bool:
        """Mark the message read, and show typing; it ends by itself, with our message or after 25 seconds."""
        if sign.read_id is None or not sign.typing or account.config.get("signs_of_life") == "off":
            return False
        await _graph(account, http, "POST", f"{_number(account)}/messages", sign_body(sign.read_id, typing=True))
        return True

    async def check(self, account: ChannelAccount, http: aiohttp.ClientSession) -> None:
        """Ask for the number's state: it must be CONNECTED (contracts §1.9)."""
        answer = await _graph(account, http, "GET", f"{_number(account)}?fields=status", None)
        state = part(answer.body, _NumberState)
        if state is not None and state.status not in {None, "CONNECTED"}:
            raise ChannelDown(f"the number is {state.status}", reason=RULES[133010].reason)

    async def fetch_media(
        self, account: ChannelAccount, media_ref: MediaRef, http: aiohttp.ClientSession
    ) -> AsyncIterator[bytes]:
        """Ask for the file's address, then for the file (contracts §1.4)."""
        path = f"{_in_url(MEDIA_ID, media_ref.provider_id, 'media_id')}?phone_number_id={_number(account)}"
        url, token = _address(account, path)
        hosts = FileHosts(url, tuple(account.config.get("media_hosts", "").split()))
        async for chunk in media.fetch(media_ref, http, url, token, hosts):
            yield chunk


async def confirm_number(account: ChannelAccount, http: aiohttp.ClientSession) -> None:
    """Ask Meta whether the account's token may read the account's number: who has no such token cannot claim it.

    Raises:
        Permanent, ChannelDown: it may not.
        Temporary, RateLimited: Meta does not say.
    """
    answer = await _graph(account, http, "GET", f"{_number(account)}?fields=id", None)
    read = part(answer.body, _Number)
    if read is None or read.id != account.external_id:
        raise Permanent("Meta's answer is not about this number", reason="number_unknown")


def _number(account: ChannelAccount) -> str:
    return _in_url(PHONE_NUMBER_ID, account.external_id, "channel_misconfigured")


def _in_url(kind: IdKind, value: str, reason: str) -> str:
    """The id for a path or a query of Graph's: one that is more than an id could name any object that the token may read."""
    try:
        return kind.in_url(value)
    except ValueError as error:
        raise Permanent(str(error), reason=reason) from error


async def _graph(
    account: ChannelAccount, http: aiohttp.ClientSession, method: str, path: str, body: Mapping[str, object] | None
) -> Answer:
    url, token = _address(account, path)
    answer = await call(
        http,
        "Meta",
        url,
        body=None if body is None else msgspec.json.encode(body),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        secret=token,
        method=method,
    )
    if not 200 <= answer.status < 300:
        raise error_from(answer)
    return answer


def _address(account: ChannelAccount, path: str) -> tuple[str, str]:
    base, version = account.config.get("graph_base"), account.config.get("graph_version")
    token = account.secrets.get("access_token")
    if not base or not version or not token:
        raise Permanent("the channel has no graph_base, graph_version or access_token", reason="channel_misconfigured")
    return f"{base.rstrip('/')}/{version}/{path}", token


def _wamid(answer: Answer) -> str:
    read = part(answer.body, _SendAnswer)
    if read is None or not read.messages or not is_id(read.messages[0].id):
        raise Temporary("Meta's answer names no message", reason="unreadable_answer", outcome_unknown=True)
    return read.messages[0].id

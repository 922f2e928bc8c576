"""Calls of Evolution API v2, and what its answers mean: everything thrown while sending is a 400 there, whatever it is.

Shapes and traps: contracts §3.2 (Evolution API v2.3.6).
"""

import io
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from replyline.evolution.files import SentFile, call_for, file_in
from replyline.evolution.refusal import Refusal
from replyline.webhooks import read_at_most

EVENTS = (
    "QRCODE_UPDATED",
    "CONNECTION_UPDATE",
    "MESSAGES_UPSERT",
    "MESSAGES_UPDATE",
    "MESSAGES_EDITED",
    "MESSAGES_DELETE",
    "SEND_MESSAGE",
    "LOGOUT_INSTANCE",
)
Known = TypeVar("Known", bound=msgspec.Struct)

_MAX_ANSWER_BYTES = 1_000_000
_MAX_FILE_ANSWER_BYTES = 140_000_000
_FILE_S = 90.0
"""How much longer a call with a file may take, in seconds."""
# WhatsApp answers so for a file that it has deleted, and the telephone had it no longer either.
_GONE = ("status code 404", "status code 410", "message not found")
_NOT_CONNECTED_MS = 3_000
_PACED_MS = 60_000


class Unknown(Exception):
    """No answer came, or none that says whether the message went out."""


class _Key(msgspec.Struct):
    id: str


class _Sent(msgspec.Struct):
    key: _Key


class _Code(msgspec.Struct):
    code: str | None = None
    pairingCode: str | None = None


class _Instance(msgspec.Struct):
    state: str | None = None


class _State(msgspec.Struct):
    instance: _Instance | None = None


class _Response(msgspec.Struct):
    message: object = None


class _Error(msgspec.Struct):
    response: _Response | None = None
    message: object = None
    error: object = None


class EvolutionApi:
    """One Evolution server."""

    def __init__(self, http: aiohttp.ClientSession, url: str, api_key: str, *, timeout_s: float) -> None:
        """`timeout_s` is for one call, in seconds; that of a send is longer by what its typing takes."""
        self._http = http
        self._url = url.rstrip("/")
        self._headers = {"apikey": api_key, "Content-Type": "application/json"}
        self._timeout_s = timeout_s

    async def create(self, name: str, webhook_url: str, secret: str) -> None:
        """Make the instance, or set the webhook of the one there is. Raises Refusal."""
        webhook = {
            "enabled": True,
            "url": webhook_url,
            "byEvents": False,
            "base64": False,
            "headers": {"x-replyline-secret": secret},
            "events": list(EVENTS),
        }
        body = {
            "instanceName": name,
            "integration": "WHATSAPP-BAILEYS",
            "qrcode": True,
            "groupsIgnore": True,
            "readMessages": False,
            "syncFullHistory": False,
            "webhook": webhook,
        }
        status, raw = await self._call("POST", "/instance/create", body)
        if status == 403 and "in use" in _said(raw).lower():
            status, raw = await self._call("POST", f"/webhook/set/{quote(name, safe='')}", {"webhook": webhook})
        _check(status, raw)

    async def connect(self, name: str, phone: str | None = None) -> tuple[str | None, str | None]:
        """Connect; gives the code to scan and the one to type, where there are such. Raises Refusal."""
        query = f"?number={quote(phone)}" if phone else ""
        status, raw = await self._call("GET", f"/instance/connect/{quote(name, safe='')}{query}")
        _check(status, raw)
        found = _read(raw, _Code)
        return (found.code, found.pairingCode) if found is not None else (None, None)

    async def state(self, name: str) -> str | None:
        """open, connecting or close. Raises Refusal."""
        status, raw = await self._call("GET", f"/instance/connectionState/{quote(name, safe='')}")
        _check(status, raw)
        found = _read(raw, _State)
        return found.instance.state if found is not None and found.instance is not None else None

    async def change(self, method: str, what: str, name: str) -> None:
        """restart (POST), logout or delete (DELETE). Raises Refusal, but not where it is so already."""
        status, raw = await self._call(method, f"/instance/{what}/{quote(name, safe='')}")
        if (what == "logout" and status == 400) or (what in {"logout", "delete"} and status == 404):
            return
        if (
            what == "restart" and 200 <= status < 300
        ):  # also of one that is not connected, with "error": true: `connect` follows
            return
        _check(status, raw)

    async def send(self, name: str, to: str, text: str, *, reply_to: str | None, typing_ms: int) -> str:
        """Send one text; its WhatsApp id.

        Raises:
            Refusal: it surely did not go out.
            Unknown: it may have.
        """
        body: dict[str, object] = {"number": to, "text": text, "linkPreview": False, "delay": typing_ms}
        if reply_to is not None:
            body["quoted"] = {"key": {"id": reply_to}}
        path = f"/message/sendText/{quote(name, safe='')}"
        status, raw = await self._call("POST", path, body, extra_s=typing_ms / 1000, may_have_happened=True)
        return _sent_id(status, raw)

    async def send_file(self, name: str, to: str, file: SentFile, *, reply_to: str | None, typing_ms: int) -> str:
        """Send one file; its WhatsApp id.

        Raises:
            Refusal: it surely did not go out.
            Unknown: it may have.
        """
        call, of_file = call_for(file)
        body: dict[str, object] = {"number": to, "delay": typing_ms, **of_file}
        if reply_to is not None:
            body["quoted"] = {"key": {"id": reply_to}}
        path = f"/message/{call}/{quote(name, safe='')}"
        extra_s = typing_ms / 1000 + _FILE_S
        return _sent_id(*await self._call("POST", path, body, extra_s=extra_s, may_have_happened=True))

    async def file(self, name: str, message: msgspec.Raw, message_id: str) -> bytes:
        """The file of a message. Evolution finds the message by its id if it keeps messages; else it takes the whole of it.

        Raises:
            Refusal: it cannot be had, or not now.
        """
        path = f"/chat/getBase64FromMediaMessage/{quote(name, safe='')}"
        status, raw = 0, b""
        for asked in ({"key": {"id": message_id}}, message):
            body: dict[str, object] = {"message": asked, "convertToMp4": False}
            status, raw = await self._call("POST", path, body, extra_s=_FILE_S, max_bytes=_MAX_FILE_ANSWER_BYTES)
            if 200 <= status < 300 and (found := file_in(raw)) is not None:
                return found
            if status not in {200, 201, 400}:
                break
        if status == 404:
            raise Refusal("unknown_session", f"Evolution knows no such instance: {_said(raw)}")
        said = _said(raw).lower()
        if any(gone in said for gone in _GONE):
            raise Refusal("unknown_media", f"WhatsApp no longer has the file: {said}")
        raise Refusal("unavailable", f"Evolution answered {status}: {said}", retry_after_ms=5_000)

    async def read(self, name: str, to: str, message_ids: list[str]) -> None:
        """Mark messages read. Raises Refusal."""
        messages = [{"remoteJid": to, "fromMe": False, "id": message_id} for message_id in message_ids]
        body: dict[str, object] = {"readMessages": messages}
        _check(*await self._call("POST", f"/chat/markMessageAsRead/{quote(name, safe='')}", body))

    async def typing(self, name: str, to: str, *, on: bool, for_s: float) -> None:
        """Show that somebody writes, or no longer. Evolution shows it as long as it holds the call. Raises Refusal."""
        delay_ms = round(for_s * 1000) if on else 0
        body: dict[str, object] = {"number": to, "presence": "composing" if on else "paused", "delay": delay_ms}
        path = f"/chat/sendPresence/{quote(name, safe='')}"
        _check(*await self._call("POST", path, body, extra_s=for_s))

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, object] | None = None,
        *,
        extra_s: float = 0.0,
        may_have_happened: bool = False,
        max_bytes: int = _MAX_ANSWER_BYTES,
    ) -> tuple[int, bytes]:
        try:
            async with self._http.request(
                method,
                f"{self._url}{path}",
                data=None if body is None else io.BytesIO(msgspec.json.encode(body)),  # a file is sent in pieces
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s + extra_s, sock_connect=5),
                allow_redirects=False,
            ) as response:
                return response.status, await read_at_most(response, max_bytes)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Refusal("unavailable", "Evolution cannot be reached", retry_after_ms=2_000) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            if may_have_happened:
                raise Unknown(f"no answer from Evolution: {type(error).__name__}") from error
            raise Refusal("unavailable", "Evolution did not answer", retry_after_ms=2_000) from error


def _read(raw: bytes, kind: type[Known]) -> Known | None:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _said(raw: bytes) -> str:
    """What Evolution says went wrong, wherever it says it."""
    error = _read(raw, _Error)
    if not isinstance(error, _Error):
        return ""
    message = error.response.message if error.response is not None else error.message or error.error
    return msgspec.json.encode(message).decode()[:500] if message is not None else ""


def _check(status: int, raw: bytes) -> None:
    """Raise what an answer means that is none; also a 200 may be an error (`connect` and `restart`)."""
    error = _read(raw, _Error)
    failed = isinstance(error, _Error) and error.error is True
    if 200 <= status < 300 and not failed:
        return
    said = f"Evolution answered {status}: {_said(raw)}"
    if status == 404:
        raise Refusal("unknown_session", said)
    if status in {401, 403}:
        raise Refusal("unavailable", f"{said} (is the API key right?)", retry_after_ms=60_000)
    raise Refusal("unavailable", said, retry_after_ms=2_000)


def _sent_id(status: int, raw: bytes) -> str:
    """The WhatsApp id of what was sent. Raises Refusal, Unknown."""
    if 200 <= status < 300:
        sent = _read(raw, _Sent)
        if sent is None:
            raise Unknown("Evolution's answer names no message")
        return sent.key.id
    if status >= 500 or status == 408:
        raise Unknown(f"Evolution answered {status}")
    raise _send_refusal(status, raw)


def _send_refusal(status: int, raw: bytes) -> Refusal | Unknown:
    """The 400 for everything: `exists: false` is for ever, a closed connection is not, a time-out says nothing at all."""
    said = _said(raw)
    lower = said.lower()
    if status == 404:
        return Refusal("unknown_session", f"Evolution knows no such instance: {said}")
    if status in {401, 403}:
        return Refusal("unavailable", f"Evolution refuses us: {said}", retry_after_ms=60_000)
    if 300 <= status < 400:
        return Refusal("unavailable", f"Evolution answered {status}: is its address right?", retry_after_ms=60_000)
    if status == 429:  # of a proxy before it: Evolution itself says 400
        return Refusal("paced", said or "too many calls", retry_after_ms=_PACED_MS)
    if '"exists":false' in lower.replace(" ", ""):
        return Refusal("not_on_whatsapp", "the number is not on WhatsApp")
    if "connection closed" in lower or "not connected" in lower:
        return Refusal("not_connected", said, retry_after_ms=_NOT_CONNECTED_MS)
    if "rate-overlimit" in lower:
        return Refusal("paced", said, retry_after_ms=_PACED_MS)
    # Thrown somewhere in the send, "Timed Out" among them: it may have gone out before. A single letter is the first of an error
    # that was a text: "Connection Closed" comes as ["C"] (Evolution API, issue 241), and so might "Timed Out" come.
    if "error:" in lower or len(lower.strip('[]" ')) == 1:
        return Unknown(said)
    return Refusal("invalid", f"Evolution answered {status}: {said}")

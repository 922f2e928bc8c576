"""Files as Evolution API v2 takes and gives them: whole, in base64 inside JSON (contracts §3.2)."""

import base64
import binascii
from dataclasses import dataclass

import msgspec

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file to be sent."""

    kind: str
    data: bytes
    mime: str | None
    name: str | None
    caption: str | None


class _Base64(msgspec.Struct):
    base64: str


def call_for(file: SentFile) -> tuple[str, Json]:
    """The call that sends a file, and what its body has of the file.

    A sound goes as a voice note: `sendWhatsAppAudio` has Evolution make Ogg/Opus of it, which all telephones play.
    """
    data = base64.b64encode(file.data).decode()
    if file.kind == "audio":
        return "sendWhatsAppAudio", {"audio": data}
    if file.kind == "sticker":
        return "sendSticker", {"sticker": data}
    body: Json = {"mediatype": file.kind, "media": data, "fileName": file.name or "file"}
    if file.mime is not None:
        body["mimetype"] = file.mime
    if file.caption:
        body["caption"] = file.caption
    return "sendMedia", body


def file_in(raw: bytes) -> bytes | None:
    """The file in the answer of `getBase64FromMediaMessage`; None if it is missing."""
    try:
        return base64.b64decode(msgspec.json.decode(raw, type=_Base64).base64, validate=True) or None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
        return None

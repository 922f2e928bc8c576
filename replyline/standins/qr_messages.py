"""Messages of the QR gateway as its stand-in takes and tells them, with their files (docs/qr-gateway.md)."""

import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import msgspec

from replyline.standins.qr_sessions import gateway_error
from replyline.standins.server import BadControl, Reply

MAX_FILES = 1_000
"""Files that can be had; the oldest are forgotten first."""
FileKind: TypeAlias = Literal["image", "audio", "video", "document", "sticker"]


class _Send(msgspec.Struct, tag_field="type", kw_only=True, forbid_unknown_fields=True):
    to: str
    reply_to: str | None = None
    typing_ms: Annotated[int, msgspec.Meta(ge=0, le=20_000)] = 0


class SendText(_Send, tag="text", kw_only=True):
    """A text."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=65_536)]


class SendFile(_Send, tag="media", kw_only=True):
    """A file by its link."""

    kind: FileKind
    link: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/?#]+", max_length=2000)]
    caption: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    filename: Annotated[str, msgspec.Meta(max_length=240)] | None = None


Send: TypeAlias = SendText | SendFile


class PersonFile(msgspec.Struct, forbid_unknown_fields=True):
    """The file of a message, in base64; what is said of it may be a lie."""

    data: str
    mime: str | None = None
    sha256: str | None = None
    size: int | None = None
    filename: str | None = None
    seconds: float | None = None
    voice: bool = False


class PersonText(msgspec.Struct, rename={"sender": "from"}, forbid_unknown_fields=True, kw_only=True):
    """What a person writes, or what a human of the business does on the telephone (`from_me`)."""

    sender: str
    text: str
    id: str | None = None
    name: str | None = None
    type: str = "text"
    alt: str | None = None
    from_me: bool = False
    backlog: bool = False
    reply_to: str | None = None
    target: str | None = None
    timestamp: float | None = None
    content: dict[str, object] = {}
    file: PersonFile | None = None


class QrFiles:
    """The files that came with messages, by session and message id."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def keep(self, session: str, message_id: str, file: PersonFile | None) -> Mapping[str, object] | None:
        """Take a file; gives what the event says of it. Raises BadControl."""
        if file is None:
            return None
        try:
            data = base64.b64decode(file.data, validate=True)
        except ValueError as error:
            raise BadControl("data is not base64") from error
        self._files[session, message_id] = data
        while len(self._files) > MAX_FILES:
            self._files.popitem(last=False)
        return {
            "id": message_id,
            "mime": file.mime,
            "size": len(data) if file.size is None else file.size,
            "sha256": file.sha256 or base64.b64encode(hashlib.sha256(data).digest()).decode(),
            "filename": file.filename,
            "seconds": file.seconds,
            "voice": file.voice,
        }

    def fetch(self, session: str, message_id: str) -> Reply:
        """Hand a file over."""
        data = self._files.get((session, message_id))
        if data is None:
            return gateway_error("unknown_media", "no such file is known, or no longer")
        return Reply(200, data, {"Content-Type": "application/octet-stream"})


def message_data(message_id: str, text: PersonText, media: Mapping[str, object] | None) -> Mapping[str, object]:
    """The data of a `message` event."""
    return {
        "id": message_id,
        "from": text.sender,
        "alt": text.alt,
        "from_me": text.from_me,
        "type": text.type,
        "text": text.text,
        "name": text.name,
        "timestamp": text.timestamp if text.timestamp is not None else time.time(),
        "backlog": text.backlog,
        "reply_to": text.reply_to,
        "target": text.target,
        "media": media,
        "content": text.content,
    }

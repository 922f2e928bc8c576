"""What Replyline asks of the adapter: the bodies of our contract's calls (docs/qr-gateway.md, "Calls")."""

import hashlib
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from replyline.evolution.events import sent_file_text

FileKind: TypeAlias = Literal["image", "audio", "video", "document", "sticker"]


class Put(msgspec.Struct):
    """A session, and where its events go."""

    webhook_url: Annotated[str, Meta(pattern=r"^https?://[^\s/?#]+")]
    webhook_secret: Annotated[str, Meta(min_length=1, max_length=500)]
    label: Annotated[str, Meta(max_length=100)] | None = None


class Pair(msgspec.Struct):
    """The telephone, in digits, on which a code will be typed."""

    phone: Annotated[str, Meta(pattern=r"^\d{6,20}$")]


class _Message(msgspec.Struct, tag_field="type", kw_only=True):
    to: str
    reply_to: str | None = None
    typing_ms: Annotated[int, Meta(ge=0, le=20_000)] = 0


class Text(_Message, tag="text", kw_only=True):
    """A text to be sent."""

    text: Annotated[str, Meta(min_length=1, max_length=65_536)]

    @property
    def recognised_by(self) -> str:
        """What Evolution will report of it."""
        return self.text

    @property
    def digest(self) -> bytes:
        """What makes a message the same: not how long "typing" was shown before it."""
        return _digest(self.to, "text", self.text, self.reply_to)


class File(_Message, tag="media", kw_only=True):
    """A file to be sent, from a link."""

    kind: FileKind
    link: Annotated[str, Meta(pattern=r"^https?://[^\s/?#]+", max_length=2000)]
    caption: Annotated[str, Meta(max_length=1024)] | None = None
    filename: Annotated[str, Meta(max_length=240)] | None = None

    @property
    def recognised_by(self) -> str:
        """What Evolution will report of it: a sound and a sticker have no caption."""
        return sent_file_text(self.kind, "" if self.kind in {"audio", "sticker"} else self.caption or "")

    @property
    def digest(self) -> bytes:
        """What makes a message the same."""
        return _digest(self.to, "media", self.kind, self.link, self.caption, self.filename, self.reply_to)


Message: TypeAlias = Text | File


class Read(msgspec.Struct):
    """Messages of a person that were read."""

    to: str
    message_ids: Annotated[list[str], Meta(min_length=1, max_length=100)]


class Typing(msgspec.Struct):
    """Whether somebody writes to a person."""

    to: str
    on: bool


def _digest(*facts: str | None) -> bytes:
    return hashlib.sha256(msgspec.json.encode(facts)).digest()

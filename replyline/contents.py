"""What a message of ours may consist of, apart from plain text; every kind can also be said in words alone.

Limits are those of the WhatsApp Cloud API, the strictest channel (facebook/openapi, business-messaging API v23.0).
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

MediaKind: TypeAlias = Literal["image", "audio", "video", "document", "sticker"]
Link: TypeAlias = Annotated[str, Meta(pattern=r"^https?://[^\s/?#]+", max_length=2000)]
Body: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]
Line: TypeAlias = Annotated[str, Meta(min_length=1, max_length=60)]
Title: TypeAlias = Annotated[str, Meta(min_length=1, max_length=20)]
RowTitle: TypeAlias = Annotated[str, Meta(min_length=1, max_length=24)]


class _Content(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag_field="type"):
    """What all kinds have in common on the wire: camelCase, told apart by `type`."""


class Media(_Content, frozen=True, kw_only=True, tag="media"):
    """A file that the channel fetches from `link`."""

    kind: MediaKind
    link: Link
    caption: Annotated[str, Meta(max_length=1024)] | None = None
    filename: Annotated[str, Meta(max_length=240)] | None = None


class Button(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One reply that can be tapped; `id` comes back with it."""

    id: Annotated[str, Meta(min_length=1, max_length=256)]
    title: Title


class Buttons(_Content, frozen=True, kw_only=True, tag="buttons"):
    """A question with one to three buttons, all different."""

    text: Body
    buttons: Annotated[tuple[Button, ...], Meta(min_length=1, max_length=3)]
    header: Line | None = None
    footer: Line | None = None

    def __post_init__(self) -> None:
        """Refuse equal ids or titles, which could not be told apart."""
        _all_different([button.id for button in self.buttons], "button ids")
        _all_different([button.title for button in self.buttons], "button titles")


class Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One entry of a list."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    title: RowTitle
    description: Annotated[str, Meta(max_length=72)] | None = None


class Section(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Entries of a list under a title, which is needed where there are several."""

    rows: Annotated[tuple[Row, ...], Meta(min_length=1, max_length=10)]
    title: RowTitle | None = None


class Choices(_Content, frozen=True, kw_only=True, tag="list"):
    """A question with a list to choose from, which `button` opens: at most 10 rows in all its sections."""

    text: Body
    button: Title
    sections: Annotated[tuple[Section, ...], Meta(min_length=1, max_length=10)]
    header: Line | None = None
    footer: Line | None = None

    def __post_init__(self) -> None:
        """Refuse too many rows, equal ids, and a section without a title beside others."""
        rows = [row for section in self.sections for row in section.rows]
        if len(rows) > 10:
            raise ValueError(f"a list has at most 10 rows in all, not {len(rows)}")
        _all_different([row.id for row in rows], "row ids")
        if len(self.sections) > 1 and any(section.title is None for section in self.sections):
            raise ValueError("where there are several sections, each needs a title")


class Template(_Content, frozen=True, kw_only=True, tag="template"):
    """A message that WhatsApp approved beforehand; the only kind it takes when the person has not written for 24 hours."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,512}$")]
    language: Annotated[str, Meta(pattern=r"^[a-zA-Z_]{2,10}$")]
    parameters: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=1024)], ...], Meta(max_length=50)] = ()
    """What stands for {{1}}, {{2}} … in its body."""
    header: Media | None = None


Content: TypeAlias = Media | Buttons | Choices | Template

_decoder: msgspec.json.Decoder[Content] = msgspec.json.Decoder(Content)


def encode_content(content: Content) -> bytes:
    """The content as it is kept and sent over the wire, UTF-8 JSON."""
    return msgspec.json.encode(content)


def decode_content(raw: bytes) -> Content:
    """Read a content.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: it is none; the message names the field.
    """
    return _decoder.decode(raw)


def read_content(value: object) -> Content:
    """A content from JSON that is already read.

    Raises:
        msgspec.ValidationError: it is none; the message names the field.
    """
    return msgspec.convert(value, Content)  # type: ignore[no-any-return]  # the union is what was asked for


def in_words(content: Content) -> str:
    """The same for a channel that shows text alone: options are numbered, a file is its link."""
    match content:
        case Media():
            return "\n".join(part for part in (content.caption, content.link) if part)
        case Buttons():
            options = [f"{number}. {button.title}" for number, button in enumerate(content.buttons, 1)]
            return _paragraphs(content.header, content.text, "\n".join(options), content.footer)
        case Choices():
            return _paragraphs(content.header, content.text, *_numbered(content), content.footer)
        case Template():
            return _paragraphs(f"[{content.name}]", "\n".join(content.parameters))


def _numbered(choices: Choices) -> list[str]:
    blocks: list[str] = []
    number = 0
    for section in choices.sections:
        lines = [section.title] if section.title else []
        for row in section.rows:
            number += 1
            lines.append(f"{number}. {row.title}" + (f": {row.description}" if row.description else ""))
        blocks.append("\n".join(lines))
    return blocks


def _paragraphs(*parts: str | None) -> str:
    return "\n\n".join(part for part in parts if part)


def _all_different(names: list[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"{what} must differ from each other")

"""The text of an inbound WhatsApp message: what the bot is to read, whatever kind of message it came in (contracts §2.5)."""

from typing import TypeAlias

import msgspec

from replyline.channels.reading import part, text


class _Text(msgspec.Struct):
    body: str


class _Media(msgspec.Struct):
    caption: str | None = None
    filename: str | None = None


class _Location(msgspec.Struct):
    latitude: float
    longitude: float
    name: str | None = None
    address: str | None = None


class _Button(msgspec.Struct):
    text: str


class _Reply(msgspec.Struct):
    title: str


class _Form(msgspec.Struct):
    body: str | None = None


class _Interactive(msgspec.Struct):
    button_reply: _Reply | None = None
    list_reply: _Reply | None = None
    nfm_reply: _Form | None = None


class _Order(msgspec.Struct):
    text: str | None = None


class _Message(msgspec.Struct):
    text: _Text | None = None
    image: _Media | None = None
    audio: _Media | None = None
    video: _Media | None = None
    document: _Media | None = None
    sticker: _Media | None = None
    location: _Location | None = None
    button: _Button | None = None
    interactive: _Interactive | None = None
    order: _Order | None = None


_Part: TypeAlias = _Text | _Media | _Location | _Button | _Interactive | _Order


def content_of(kind: str, raw: bytes) -> str | None:
    """What the person said, in words; None for kinds that ask for no answer (reactions, system notices) or cannot be read."""
    if kind == "contacts":
        return "[contacts]"
    message = part(raw, _Message) if kind in _Message.__struct_fields__ else None
    found: _Part | None = getattr(message, kind, None)
    if found is None:
        return None
    return text(_words(kind, found) or "") or f"[{kind}]"


def _words(kind: str, found: _Part) -> str | None:
    match found:
        case _Text(body):
            return body
        case _Media(caption, filename):
            return f"[{kind}] {caption or filename}" if caption or filename else None
        case _Location(latitude, longitude, name, address):
            place = ", ".join(word for word in (name, address) if word)
            return f"[location] {place} ({latitude}, {longitude})".replace("  ", " ")
        case _Button(text):
            return text
        case _Interactive(button_reply, list_reply, form):
            if reply := button_reply or list_reply:
                return reply.title
            return form.body if form else None
        case _Order(text):
            return f"[order] {text}" if text else None

"""What an inbound WhatsApp message says: in words for the bot, and the file that came with it (contracts §2.5)."""

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from replyline.channels.reading import is_id, part, text
from replyline.jobs import IncomingKind, MediaRef

_MAX_NAME_CHARS = 512
_MAX_CARDS = 20


class _Text(msgspec.Struct):
    body: str


class _Media(msgspec.Struct):
    id: str = ""
    mime_type: str | None = None
    sha256: str | None = None
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


class _Product(msgspec.Struct):
    product_retailer_id: str
    quantity: float | None = None


class _Order(msgspec.Struct):
    text: str | None = None
    product_items: list[_Product] = []


class _CardName(msgspec.Struct):
    formatted_name: str = ""


class _CardPhone(msgspec.Struct):
    phone: str | None = None


class _Card(msgspec.Struct):
    name: _CardName = msgspec.field(default_factory=_CardName)
    phones: list[_CardPhone] = []


class _Reaction(msgspec.Struct):
    message_id: str
    emoji: str | None = None


class _Edit(msgspec.Struct):
    original_message_id: str
    message: msgspec.Raw


class _Revoke(msgspec.Struct):
    original_message_id: str


class _Inner(msgspec.Struct):
    type: str


class _Message(msgspec.Struct):
    text: _Text | None = None
    image: _Media | None = None
    audio: _Media | None = None
    video: _Media | None = None
    document: _Media | None = None
    sticker: _Media | None = None
    location: _Location | None = None
    contacts: list[_Card] | None = None
    button: _Button | None = None
    interactive: _Interactive | None = None
    order: _Order | None = None
    reaction: _Reaction | None = None
    edit: _Edit | None = None
    revoke: _Revoke | None = None


_Part: TypeAlias = _Text | _Media | _Location | list[_Card] | _Button | _Interactive | _Order


@dataclass(frozen=True, slots=True)
class Said:
    """What a message amounts to."""

    content: str
    kind: IncomingKind = "message"
    media: MediaRef | None = None
    target_id: str | None = None


def said_in(kind: str, raw: bytes) -> Said | None:
    """What the person did; None for a kind that is not known, or that cannot be read."""
    if kind == "unsupported":
        return Said("[unsupported]", "unsupported")
    message = part(raw, _Message) if kind in _Message.__struct_fields__ else None
    if message is None:
        return None
    match kind:
        case "reaction" if message.reaction is not None:
            emoji = text(message.reaction.emoji or "", 40)
            return _about("reaction", message.reaction.message_id, f"[reaction] {emoji}" if emoji else "[no reaction]")
        case "revoke" if message.revoke is not None:
            return _about("revoke", message.revoke.original_message_id, "[deleted]")
        case "edit" if message.edit is not None:
            return _edited(message.edit)
        case _:
            found: _Part | None = getattr(message, kind, None)
            return None if found is None else _message(kind, found)


def _about(kind: IncomingKind, target: str, content: str) -> Said | None:
    return Said(content, kind, target_id=target) if is_id(target) else None


def _edited(edit: _Edit) -> Said | None:
    inner = part(edit.message, _Inner)
    said = said_in(inner.type, bytes(edit.message)) if inner is not None and inner.type != "edit" else None
    return None if said is None else _about("edit", edit.original_message_id, said.content)


def _message(kind: str, found: _Part) -> Said:
    media = None
    if isinstance(found, _Media) and is_id(found.id):
        media = MediaRef(
            kind=kind,
            provider_id=found.id,
            mime_type=text(found.mime_type, _MAX_NAME_CHARS) if found.mime_type else None,
            sha256=text(found.sha256, _MAX_NAME_CHARS) if found.sha256 else None,
            filename=text(found.filename, _MAX_NAME_CHARS) if found.filename else None,
        )
    return Said(text(_words(kind, found) or "") or f"[{kind}]", media=media)


def _words(kind: str, found: _Part) -> str | None:
    match found:
        case _Text(body):
            return body
        case _Media():
            caption = found.caption or found.filename
            return f"[{kind}] {caption}" if caption else None
        case _Location(latitude, longitude, name, address):
            place = ", ".join(word for word in (name, address) if word)
            return f"[location] {place} ({latitude}, {longitude})".replace("  ", " ")
        case _Button(text):
            return text
        case _Interactive(button_reply, list_reply, form):
            if reply := button_reply or list_reply:
                return reply.title
            return form.body if form else None
        case _Order():
            return _order(found)
        case list():
            cards = "; ".join(card for one in found[:_MAX_CARDS] if (card := _card(one)))
            return f"[contacts] {cards}" if cards else None


def _order(order: _Order) -> str | None:
    items = ", ".join(f"{item.quantity or 1:g} x {item.product_retailer_id}" for item in order.product_items[:50])
    words = ": ".join(part for part in (order.text, items) if part)
    return f"[order] {words}" if words else None


def _card(card: _Card) -> str:
    return " ".join(part for part in (card.name.formatted_name, *(phone.phone for phone in card.phones)) if part)

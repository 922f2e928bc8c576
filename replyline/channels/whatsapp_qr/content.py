"""What a `message` event holds besides its text: files, places, cards, choices … (docs/qr-gateway.md, "Events")."""

from typing import Literal, cast

import msgspec

from replyline.channels.fields import Fields, plain
from replyline.channels.reading import is_id, part, text
from replyline.channels.whatsapp_qr.vcard import card_in
from replyline.inbound_content import (
    MAX_ANSWERS_CHARS,
    MAX_CARDS,
    MAX_LINK_CHARS,
    MAX_NAME_CHARS,
    MAX_OPTIONS,
    MAX_WORDS_CHARS,
    Choice,
    File,
    Form,
    InboundContent,
    Location,
    Order,
    Poll,
    Product,
    Quoted,
    Reaction,
    Referral,
    number,
    told,
)
from replyline.jobs import MediaRef

FileKind = Literal["image", "audio", "video", "document", "sticker"]
FILE_KINDS = frozenset({"image", "audio", "video", "document", "sticker"})
_ChoiceKind = Literal["button", "list", "template_button"]
_CHOICES = frozenset({"button", "list", "template_button"})
_ONLY_TEXT = frozenset({"text", "edit", "button", "list"})


class Said(msgspec.Struct, frozen=True):
    """One message: in words, in parts, and the file to be fetched."""

    words: str
    body: InboundContent
    media: MediaRef | None


class Message(msgspec.Struct):
    """The data of a `message` event."""

    id: str
    from_: str = msgspec.field(name="from")
    text: str
    type: str = "text"
    alt: str | None = None
    from_me: bool = False
    name: str | None = None
    timestamp: float | None = None
    reply_to: str | None = None
    target: str | None = None
    media: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()


def said_in(message: Message) -> Said:
    """What a message says; a part that cannot be read is left out."""
    kind, words, target = message.type, text(message.text), message.target
    found, file = Fields(message.content), Fields(message.media)
    body = InboundContent(
        choice=_choice(found.fields("choice")),
        form=_form(found.fields("form")),
        order=_order(found.fields("order")) if "order" in found else None,
        contacts=tuple(
            card
            for one in found.each("contacts", MAX_CARDS)
            if (card := card_in(one.text("vcard", 20_000), one.text("name", MAX_NAME_CHARS))) is not None
        ),
        location=_location(found.fields("location")),
        file=_file(kind, words, file),
        poll=_poll(found.fields("poll")),
        reaction=Reaction(external_id=target, emoji=text(words, 40) or None) if kind == "reaction" and target else None,
        quoted=_quoted(message.reply_to, found.fields("quoted")),
        referral=_referral(found.fields("ad")),
        product=_product(found.fields("product")),
        forwarded=found.flag("forwarded"),
        unread_type=text(kind, 60) if kind == "unknown" else None,
    )
    return Said(_words(kind, words, body), body, _media(kind, file))


def _words(kind: str, words: str, body: InboundContent) -> str:
    """The message as the bot reads it: its parts in words, then what the person wrote with them."""
    if kind in FILE_KINDS:
        return told(body) if body.file is not None else f"[{kind}] {words}".strip()
    parts = told(body)
    if body.product is not None and not parts:
        parts = f"[product] {body.product.title or body.product.id or ''}".strip()
    if not parts:
        return words if kind in _ONLY_TEXT else f"[{text(kind, 60)}] {words}".strip()
    has_own_words = kind in {"location", "product"} and words and words not in parts
    return f"{parts}\n{words}" if has_own_words else parts


def _choice(found: Fields) -> Choice | None:
    kind = found.text("kind")
    id_, title = found.text("id", MAX_NAME_CHARS), found.text("title", MAX_NAME_CHARS)
    if id_ is None and title is None:
        return None
    return Choice(
        kind=cast("_ChoiceKind", kind) if kind in _CHOICES else "button",
        id=id_,
        title=title,
        description=found.text("description", MAX_NAME_CHARS),
    )


def _form(found: Fields) -> Form | None:
    """The answers come as a JSON text; what is none, or too long, is kept as text."""
    raw = found.text("json", MAX_ANSWERS_CHARS + 1)
    if raw is None:
        return None
    name = found.text("name", MAX_NAME_CHARS)
    answers = plain(part(raw.encode(errors="replace"), object)) if len(raw) <= MAX_ANSWERS_CHARS else None
    if isinstance(answers, dict | list):
        return Form(name=name, answers=answers)
    return Form(name=name, text=raw[:MAX_ANSWERS_CHARS])


def _order(found: Fields) -> Order:
    """WhatsApp Web is told only how many items a cart has and what they cost together."""
    count, total = found.number("items"), found.number("total")
    facts = [
        f"{number(count)} items" if count is not None else "",
        f"{number(total)} {found.text('currency', 10) or ''}".strip() if total is not None else "",
        f"order {found.id('id')}" if found.id("id") else "",
    ]
    said = ", ".join(fact for fact in facts if fact)
    return Order(
        text=text(" ".join(one for one in (found.text("text", 3000), f"({said})" if said else "") if one), 4096)
    )


def _location(found: Fields) -> Location | None:
    if not found:
        return None
    latitude, longitude = found.number("latitude"), found.number("longitude")
    return Location(
        latitude=latitude if latitude is not None and abs(latitude) <= 90 else None,
        longitude=longitude if longitude is not None and abs(longitude) <= 180 else None,
        name=found.text("name", MAX_NAME_CHARS),
        address=found.text("address", MAX_NAME_CHARS),
        url=found.text("url", MAX_LINK_CHARS),
        live=found.flag("live"),
    )


def _file(kind: str, words: str, found: Fields) -> File | None:
    if kind not in FILE_KINDS or not found:
        return None
    seconds, size = found.number("seconds"), found.number("size")
    return File(
        kind=cast("FileKind", kind),
        name=found.text("filename"),
        mime_type=found.text("mime"),
        caption=text(words, MAX_WORDS_CHARS) if words.strip() else None,
        duration_s=seconds if seconds and seconds > 0 else None,
        size=int(size) if size is not None and 0 < size < 2**53 else None,
        voice=found.flag("voice"),
    )


def _media(kind: str, found: Fields) -> MediaRef | None:
    id_ = found.id("id")
    if kind not in FILE_KINDS or id_ is None:
        return None
    return MediaRef(
        kind=kind,
        provider_id=id_,
        mime_type=found.text("mime"),
        sha256=found.text("sha256"),
        filename=found.text("filename"),
    )


def _poll(found: Fields) -> Poll | None:
    if not found:
        return None
    return Poll(
        question=found.text("question", MAX_WORDS_CHARS), options=found.texts("options", MAX_OPTIONS, MAX_NAME_CHARS)
    )


def _quoted(reply_to: str | None, found: Fields) -> Quoted | None:
    if not reply_to or not is_id(reply_to):
        return None
    return Quoted(external_id=reply_to, sender=found.id("from"), text=found.text("text", MAX_WORDS_CHARS))


def _referral(found: Fields) -> Referral | None:
    referral = Referral(
        source_type=found.text("source_type"),
        source_id=found.text("source_id"),
        source_url=found.text("source_url", MAX_LINK_CHARS),
        headline=found.text("title", MAX_WORDS_CHARS),
        body=found.text("body", MAX_WORDS_CHARS),
        click_id=found.text("click_id", MAX_NAME_CHARS),
    )
    return None if referral == Referral() else referral


def _product(found: Fields) -> Product | None:
    product = Product(
        catalog_id=found.text("catalog_id"), id=found.text("id"), title=found.text("title", MAX_NAME_CHARS)
    )
    return None if product == Product() else product

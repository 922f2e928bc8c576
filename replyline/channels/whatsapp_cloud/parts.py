"""The parts of Meta's inbound messages as structured content (WhatsApp Cloud API, "messages" webhook; contracts §2.5)."""

from typing import Literal, cast

from replyline.channels.fields import Fields, plain
from replyline.channels.reading import part
from replyline.inbound_content import (
    MAX_ANSWERS_CHARS,
    MAX_CARD_ENTRIES,
    MAX_ITEMS,
    MAX_LINK_CHARS,
    MAX_NAME_CHARS,
    MAX_WORDS_CHARS,
    Card,
    Choice,
    File,
    Form,
    Item,
    Location,
    Order,
    Phone,
    Product,
    Quoted,
    Referral,
)

FileKind = Literal["image", "audio", "video", "document", "sticker"]


def choice_in(
    kind: Literal["button", "list", "template_button"], found: Fields, id_name: str, title_name: str
) -> Choice | None:
    """What was tapped; None where neither its id nor its title can be read."""
    id_, title = found.text(id_name, MAX_NAME_CHARS), found.text(title_name, MAX_NAME_CHARS)
    if id_ is None and title is None:
        return None
    return Choice(kind=kind, id=id_, title=title, description=found.text("description", MAX_NAME_CHARS))


def form_in(found: Fields) -> Form | None:
    """The answers of an `nfm_reply`: its `response_json` is JSON inside a JSON text."""
    raw = found.text("response_json", MAX_ANSWERS_CHARS + 1)
    name = found.text("name", MAX_NAME_CHARS)
    if raw is None:
        answers = plain(part(found.raw("response_json"), object))  # an object in place of the text
        return Form(name=name, answers=answers) if isinstance(answers, dict | list) else None
    if len(raw) <= MAX_ANSWERS_CHARS:
        answers = plain(part(raw.encode(errors="replace"), object))
        if isinstance(answers, dict | list):
            return Form(name=name, answers=answers)
    return Form(name=name, text=raw[:MAX_ANSWERS_CHARS])


def order_in(found: Fields) -> Order:
    """A cart."""
    return Order(
        catalog_id=found.text("catalog_id"),
        text=found.text("text", MAX_WORDS_CHARS),
        items=tuple(
            Item(
                product_id=item.text("product_retailer_id"),
                title=item.text("name", MAX_NAME_CHARS),
                quantity=item.number("quantity"),
                price=item.number("item_price"),
                currency=item.text("currency", 10),
            )
            for item in found.each("product_items", MAX_ITEMS)
        ),
    )


def card_in(found: Fields) -> Card | None:
    """A contact card; None where nothing on it can be read."""
    name = found.fields("name")
    names = (name.text("formatted_name", MAX_NAME_CHARS), name.text("first_name"), name.text("last_name"))
    card = Card(
        name=names[0] or " ".join(each for each in names[1:] if each) or None,
        organization=found.fields("org").text("company", MAX_NAME_CHARS),
        phones=tuple(
            Phone(number=phone.text("phone", 100), wa_id=phone.text("wa_id", 100), kind=phone.text("type", 60))
            for phone in found.each("phones", MAX_CARD_ENTRIES)
        ),
        emails=tuple(
            email for one in found.each("emails", MAX_CARD_ENTRIES) if (email := one.text("email", MAX_NAME_CHARS))
        ),
    )
    return None if card == Card() else card


def location_in(found: Fields) -> Location:
    """A place; degrees that are none are left out."""
    latitude, longitude = found.number("latitude"), found.number("longitude")
    return Location(
        latitude=latitude if latitude is not None and abs(latitude) <= 90 else None,
        longitude=longitude if longitude is not None and abs(longitude) <= 180 else None,
        name=found.text("name", MAX_NAME_CHARS),
        address=found.text("address", MAX_NAME_CHARS),
        url=found.text("url", MAX_LINK_CHARS),
    )


def file_in(kind: str, found: Fields, *, voice: bool) -> File:
    """What a callback says of a file. Meta does not say how long a sound is; others do."""
    duration_s = found.number("duration") or found.number("seconds")
    return File(
        kind=cast("FileKind", kind),
        name=found.text("filename"),
        mime_type=found.text("mime_type"),
        caption=found.text("caption", MAX_WORDS_CHARS),
        duration_s=duration_s if duration_s and duration_s > 0 else None,
        voice=voice,
        animated=found.flag("animated"),
    )


def quoted_in(context: Fields) -> Quoted | None:
    """The message that was replied to."""
    external_id = context.id("id")
    return None if external_id is None else Quoted(external_id=external_id, sender=context.id("from"))


def product_in(found: Fields) -> Product | None:
    """The product that the person asks about (`context.referred_product`)."""
    product = Product(catalog_id=found.text("catalog_id"), id=found.text("product_retailer_id"))
    return None if product == Product() else product


def referral_in(found: Fields) -> Referral | None:
    """The advertisement or post that led the person here."""
    referral = Referral(
        source_type=found.text("source_type"),
        source_id=found.text("source_id"),
        source_url=found.text("source_url", MAX_LINK_CHARS),
        headline=found.text("headline", MAX_WORDS_CHARS),
        body=found.text("body", MAX_WORDS_CHARS),
        media_type=found.text("media_type"),
        media_url=found.text("image_url", MAX_LINK_CHARS) or found.text("video_url", MAX_LINK_CHARS),
        click_id=found.text("ctwa_clid", MAX_NAME_CHARS),
        welcome_text=found.fields("welcome_message").text("text", MAX_WORDS_CHARS),
    )
    return None if referral == Referral() else referral

"""What a person's message holds besides its words: answers to a form, the button they tapped, an order, a card, a place …

It is kept as JSON in `messages.body` of inbound messages, shown by the API and told in `message.received`. Every part is
optional, and every text and list is bounded, because the far end decides what stands in them.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

MAX_CARDS = 20
MAX_CARD_ENTRIES = 10
MAX_ITEMS = 50
MAX_OPTIONS = 30
MAX_ID_CHARS = 512
MAX_NAME_CHARS = 1024
MAX_WORDS_CHARS = 4096
MAX_LINK_CHARS = 2000
MAX_ANSWERS_CHARS = 16_384
"""Of a form's answers, as JSON text. What is longer is kept as its first characters in `Form.text`."""
_MAX_QUOTED_CHARS = 500
_DEEPEST_ANSWER = 16

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
Words: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_WORDS_CHARS)]
Link: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_LINK_CHARS)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What all parts have in common on the wire: camelCase, and nothing that is not set."""


class Choice(_Part, frozen=True, kw_only=True):
    """What the person tapped; `id` is what the business gave the button, row or template button (there: its payload)."""

    kind: Literal["button", "list", "template_button"]
    id: Name | None = None
    title: Name | None = None
    description: Name | None = None


class Form(_Part, frozen=True, kw_only=True):
    """The answers to a form (a WhatsApp Flow, an address message): as JSON, or as `text` where they are no readable JSON."""

    name: Name | None = None
    answers: dict[str, object] | list[object] | None = None
    text: Annotated[str, Meta(min_length=1, max_length=MAX_ANSWERS_CHARS)] | None = None


class Quoted(_Part, frozen=True, kw_only=True):
    """The message that was replied to, by the channel's id; `messages.quotes` is our id of it, where it is known.

    `text` is what the channel says stood in it.
    """

    external_id: Id | None = None
    sender: Id | None = None
    text: Words | None = None


class Referral(_Part, frozen=True, kw_only=True):
    """The advertisement or post that led the person here."""

    source_type: Id | None = None
    source_id: Id | None = None
    source_url: Link | None = None
    headline: Words | None = None
    body: Words | None = None
    media_type: Id | None = None
    media_url: Link | None = None
    click_id: Name | None = None
    """Meta's `ctwa_clid`, which its Conversions API wants back."""
    welcome_text: Words | None = None


class Product(_Part, frozen=True, kw_only=True):
    """A product of a catalogue, which the message is about."""

    catalog_id: Id | None = None
    id: Id | None = None
    title: Name | None = None


class Item(_Part, frozen=True, kw_only=True):
    """One line of an order; `price` is that of one piece, in `currency` (ISO 4217)."""

    product_id: Id | None = None
    title: Name | None = None
    quantity: float | None = None
    price: float | None = None
    currency: Id | None = None


class Order(_Part, frozen=True, kw_only=True):
    """A cart that the person sent."""

    catalog_id: Id | None = None
    text: Words | None = None
    items: Annotated[tuple[Item, ...], Meta(max_length=MAX_ITEMS)] = ()


class Phone(_Part, frozen=True, kw_only=True):
    """A number of a card; `wa_id` is the same as WhatsApp writes it."""

    number: Name | None = None
    wa_id: Id | None = None
    kind: Id | None = None


class Card(_Part, frozen=True, kw_only=True):
    """A contact card; `vcard` is the card as it came, where it came so."""

    name: Name | None = None
    organization: Name | None = None
    phones: Annotated[tuple[Phone, ...], Meta(max_length=MAX_CARD_ENTRIES)] = ()
    emails: Annotated[tuple[Name, ...], Meta(max_length=MAX_CARD_ENTRIES)] = ()
    vcard: Words | None = None


class Location(_Part, frozen=True, kw_only=True):
    """A place, in degrees; `live` where the person goes on telling where they are."""

    latitude: float | None = None
    longitude: float | None = None
    name: Name | None = None
    address: Name | None = None
    url: Link | None = None
    live: bool = False


class File(_Part, frozen=True, kw_only=True):
    """What is known of a file without fetching it; `duration_s` in seconds, `voice` for a recorded voice note."""

    kind: Literal["image", "audio", "video", "document", "sticker"]
    name: Name | None = None
    mime_type: Id | None = None
    caption: Words | None = None
    duration_s: float | None = None
    size: int | None = None
    voice: bool = False
    animated: bool = False


class Reaction(_Part, frozen=True, kw_only=True):
    """An emoji on a message, which the channel names by its own id; without `emoji` it was taken away."""

    external_id: Id
    emoji: Id | None = None


class Poll(_Part, frozen=True, kw_only=True):
    """A poll that the person sent, or what they chose in one (`chosen`)."""

    question: Words | None = None
    options: Annotated[tuple[Name, ...], Meta(max_length=MAX_OPTIONS)] = ()
    chosen: Annotated[tuple[Name, ...], Meta(max_length=MAX_OPTIONS)] = ()


class InboundContent(_Part, frozen=True, kw_only=True):
    """Everything a message of a person holds besides its words."""

    choice: Choice | None = None
    form: Form | None = None
    order: Order | None = None
    contacts: Annotated[tuple[Card, ...], Meta(max_length=MAX_CARDS)] = ()
    location: Location | None = None
    file: File | None = None
    poll: Poll | None = None
    reaction: Reaction | None = None
    quoted: Quoted | None = None
    referral: Referral | None = None
    product: Product | None = None
    forwarded: bool = False
    unread_type: Id | None = None
    """What the channel calls a message that it does not show us, or that is not understood here."""


NOTHING_ELSE = InboundContent()
"""Of a message that holds nothing besides its words."""
_decoder: msgspec.json.Decoder[InboundContent] = msgspec.json.Decoder(InboundContent)


def encode_inbound(content: InboundContent | None) -> bytes | None:
    """The content as it is kept, UTF-8 JSON; None for one that says nothing."""
    return None if content is None or content == NOTHING_ELSE else msgspec.json.encode(content)


def decode_inbound(raw: bytes) -> InboundContent:
    """Read what was kept.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: it is none; the message names the field.
    """
    return _decoder.decode(raw)


def told(content: InboundContent) -> str:
    """The part of it that is a message of its own, in words: empty for a message that has its own text.

    A channel uses it as the message's text, beside or in place of what the person wrote.
    """
    if content.choice is not None:
        return content.choice.title or content.choice.id or ""
    if content.form is not None:
        return _form(content.form)
    if content.order is not None:
        return f"[order] {_order(content.order)}".strip()
    if content.contacts:
        cards = "; ".join(words for card in content.contacts if (words := _card(card)))
        return f"[contacts] {cards}".strip()
    if content.location is not None:
        return _location(content.location)
    if content.poll is not None:
        return _poll(content.poll)
    if content.file is not None:
        return " ".join(part for part in (f"[{content.file.kind}]", content.file.caption or content.file.name) if part)
    if content.reaction is not None:
        return f"[reaction] {content.reaction.emoji}" if content.reaction.emoji else "[no reaction]"
    return ""


def in_words(text: str, content: InboundContent | None, quoted: str | None = None) -> str:
    """A message as a model reads it: its text, and around it what the text does not say.

    `quoted` is the text of the message that was replied to, if we have it; else what the channel says of it.
    """
    if content is None:
        return text if not quoted else f"{_quoted(quoted)}\n{text}"
    before = []
    if words := quoted or (content.quoted.text if content.quoted else None):
        before.append(_quoted(words))
    if content.referral is not None:
        before.append(_referral(content.referral))
    if content.product is not None:
        names = ", ".join(part for part in (content.product.title, content.product.id) if part)
        before.append(f"[about the product {names}]" if names else "")
    if content.forwarded:
        before.append("[forwarded]")
    after = _choice(content.choice, text) if content.choice else _file(content.file) if content.file else ""
    return "\n".join(part for part in (*before, text, after) if part)


def _quoted(words: str) -> str:
    short = " ".join(words.split())
    return f'[in reply to: "{short[:_MAX_QUOTED_CHARS]}{"…" if len(short) > _MAX_QUOTED_CHARS else ""}"]'


def _referral(referral: Referral) -> str:
    words = ". ".join(part for part in (referral.headline, referral.body, referral.source_url) if part)
    return f"[came from an ad: {words}]" if words else "[came from an ad]"


def _choice(choice: Choice, text: str) -> str:
    more = [part for part in (choice.description, choice.id and f"id {choice.id}") if part]
    return f"[chosen from the {choice.kind.replace('_', ' ')}: {', '.join(more)}]" if more and choice.id != text else ""


def _file(file: File) -> str:
    facts = [
        "a voice note" if file.voice else "",
        f"{number(file.duration_s)} seconds" if file.duration_s else "",
        f"file name {file.name}" if file.name and file.caption else "",
    ]
    said = ", ".join(fact for fact in facts if fact)
    return f"[{said}]" if said else ""


def _form(form: Form) -> str:
    if form.text is not None:
        return form.text
    lines: list[str] = []
    left = MAX_ANSWERS_CHARS
    for name, value in _answers("", form.answers, 0):
        lines.append(f"{name}: {value}" if name else value)
        left -= len(lines[-1]) + 1
        if left < 0:
            break
    return "\n".join(lines)[:MAX_ANSWERS_CHARS]


def _answers(name: str, value: object, depth: int) -> Iterator[tuple[str, str]]:
    """Every answer with its name; those inside another are named `outer.inner`. A flow's token says nothing to people."""
    if depth > _DEEPEST_ANSWER:
        return
    if isinstance(value, dict):
        for inner, one in value.items():
            if inner != "flow_token":
                path = f"{name}.{inner}" if name else str(inner)
                yield from _answers(path[:MAX_NAME_CHARS], one, depth + 1)
    elif isinstance(value, list):
        plain = [str(one) for one in value if isinstance(one, str | int | float)]
        if len(plain) < len(value):
            for one in value:
                yield from _answers(name, one, depth + 1)
        elif plain:
            yield name, ", ".join(plain)
    elif value is not None and value != "":
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _order(order: Order) -> str:
    items = ", ".join(_item(item) for item in order.items)
    return ": ".join(part for part in (order.text, items) if part)


def _item(item: Item) -> str:
    name = item.title or item.product_id or "a product"
    if item.title and item.product_id:
        name = f"{item.title} ({item.product_id})"
    price = f" at {number(item.price)} {item.currency or ''}".rstrip() if item.price is not None else ""
    return f"{number(1.0 if item.quantity is None else item.quantity)} x {name}{price}"


def _card(card: Card) -> str:
    numbers = (phone.number or phone.wa_id for phone in card.phones)
    return " ".join(part for part in (card.name, card.organization, *numbers, *card.emails) if part)


def _location(location: Location) -> str:
    place = ", ".join(part for part in (location.name, location.address) if part)
    known = location.latitude is not None and location.longitude is not None
    degrees = f"({location.latitude}, {location.longitude})" if known else ""
    kind = "[live location]" if location.live else "[location]"
    return " ".join(part for part in (kind, place, degrees, "" if place or known else location.url) if part)


def _poll(poll: Poll) -> str:
    options = "; ".join(poll.chosen or poll.options)
    words = ": ".join(part for part in (poll.question, options) if part)
    return f"[poll{' answer' if poll.chosen else ''}] {words}".strip()


def number(value: float) -> str:
    """A number as people write it: 2 for 2.0, never with an exponent."""
    return f"{value:.6f}".rstrip("0").rstrip(".")

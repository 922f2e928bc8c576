"""What the gateway's messages hold besides their text: kept in parts, and told the bot in words."""

import msgspec
import pytest

from replyline.channels import InboundMessage
from replyline.channels.whatsapp_qr.vcard import card_in
from replyline.inbound_content import (
    Card,
    Choice,
    File,
    Form,
    InboundContent,
    Location,
    Order,
    Phone,
    Poll,
    Product,
    Quoted,
    Referral,
)
from replyline.jobs import MediaRef
from tests.channels.contract_suite import assert_can_be_queued
from tests.channels.test_whatsapp_qr import a_message, parse

VCARD = "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Bo Lund\r\nitem1.TEL;waid=46701234567:+46 70 123\r\n  45 67\r\nEND:VCARD"


def message(**more: object) -> InboundMessage:
    """The event's message; it can be queued."""
    (found,) = parse(a_message(**more)).messages
    assert_can_be_queued(found)
    return found


@pytest.mark.parametrize(
    ("more", "words", "body"),
    [
        (
            {"type": "button", "text": "Yes", "content": {"choice": {"kind": "button", "id": "yes", "title": "Yes"}}},
            "Yes",
            InboundContent(choice=Choice(kind="button", id="yes", title="Yes")),
        ),
        (
            {"type": "list", "text": "Row 1", "content": {"choice": {"kind": "list", "id": "r1", "title": "Row 1"}}},
            "Row 1",
            InboundContent(choice=Choice(kind="list", id="r1", title="Row 1")),
        ),
        (
            {"type": "form", "text": "Sent", "content": {"form": {"name": "flow", "json": '{"city":"Recife"}'}}},
            "city: Recife",
            InboundContent(form=Form(name="flow", answers={"city": "Recife"})),
        ),
        (
            {"type": "form", "text": "Sent", "content": {"form": {"name": None, "json": "no JSON"}}},
            "no JSON",
            InboundContent(form=Form(text="no JSON")),
        ),
        (
            {
                "type": "location",
                "text": "on my way",
                "content": {"location": {"latitude": 1.25, "longitude": "103.5", "name": None, "live": True}},
            },
            "[live location] (1.25, 103.5)\non my way",
            InboundContent(location=Location(latitude=1.25, longitude=103.5, live=True)),
        ),
        (
            {"type": "location", "text": "Cafe", "content": {"location": {"latitude": 999, "name": "Cafe"}}},
            "[location] Cafe",
            InboundContent(location=Location(name="Cafe")),
        ),
        (
            {"type": "contacts", "text": "Bo", "content": {"contacts": [{"name": "Bo Lund", "vcard": VCARD}, 7]}},
            "[contacts] Bo Lund +46 70 123 45 67",
            InboundContent(
                contacts=(
                    Card(name="Bo Lund", phones=(Phone(number="+46 70 123 45 67", wa_id="46701234567"),), vcard=VCARD),
                )
            ),
        ),
        (
            {
                "type": "order",
                "text": "These",
                "content": {"order": {"id": "594", "text": "These", "items": 2, "total": 50.5, "currency": "BRL"}},
            },
            "[order] These (2 items, 50.5 BRL, order 594)",
            InboundContent(order=Order(text="These (2 items, 50.5 BRL, order 594)")),
        ),
        (
            {"type": "product", "text": "In 42?", "content": {"product": {"id": "1", "title": "Blue shoe"}}},
            "[product] Blue shoe\nIn 42?",
            InboundContent(product=Product(id="1", title="Blue shoe")),
        ),
        (
            {"type": "poll", "text": "When?", "content": {"poll": {"question": "When?", "options": ["Monday", 7]}}},
            "[poll] When?: Monday",
            InboundContent(poll=Poll(question="When?", options=("Monday",))),
        ),
        (
            {"reply_to": "3EB0Q", "content": {"quoted": {"id": "3EB0Q", "from": "1@lid", "text": "Which?"}}},
            "Hi",
            InboundContent(quoted=Quoted(external_id="3EB0Q", sender="1@lid", text="Which?")),
        ),
        ({"reply_to": "3EB0Q"}, "Hi", InboundContent(quoted=Quoted(external_id="3EB0Q"))),
        (
            {"content": {"ad": {"source_type": "ad", "source_id": "12", "title": "Sale", "click_id": "CL1"}}},
            "Hi",
            InboundContent(referral=Referral(source_type="ad", source_id="12", headline="Sale", click_id="CL1")),
        ),
        ({"content": {"forwarded": True}}, "Hi", InboundContent(forwarded=True)),
        ({"content": {"location": "nowhere", "poll": 7, "choice": [], "ad": None}}, "Hi", InboundContent()),
        ({"content": 7, "media": "x"}, "Hi", InboundContent()),
        ({"type": "invite", "text": "Join us"}, "[invite] Join us", InboundContent()),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_part_of_a_message_is_kept_and_said(more: dict[str, object], words: str, body: InboundContent) -> None:
    found = message(**more)
    assert (found.content, found.body) == (words, body)
    assert found.kind == "message"


@pytest.mark.parametrize(
    ("kind", "caption", "words"),
    [
        ("image", "Is this fresh?", "[image] Is this fresh?"),
        ("document", "", "[document] offer 12.pdf"),
        ("audio", "", "[audio] offer 12.pdf"),
    ],
)
def test_a_file_is_named_and_can_be_fetched(kind: str, caption: str, words: str) -> None:
    facts = {"mime": "x/y", "size": 99, "sha256": "aGFzaA==", "filename": "offer 12.pdf", "seconds": 4, "voice": True}
    found = message(type=kind, text=caption, media={"id": "3EB0A", **facts})
    assert found.content == words
    assert found.media == MediaRef(
        kind=kind, provider_id="3EB0A", mime_type="x/y", sha256="aGFzaA==", filename="offer 12.pdf"
    )
    assert found.body.file == File(
        kind=kind,  # type: ignore[arg-type]
        name="offer 12.pdf",
        mime_type="x/y",
        caption=caption or None,
        duration_s=4.0,
        size=99,
        voice=True,
    )


@pytest.mark.parametrize("media", [{}, {"id": ""}, {"id": "x" * 600}, {"id": None, "size": -1, "seconds": "long"}])
def test_a_file_that_cannot_be_fetched_is_a_message_all_the_same(media: dict[str, object]) -> None:
    found = message(type="image", text="Look", media=media)
    assert (found.content, found.media) == ("[image] Look", None)


def test_every_text_of_a_part_is_bounded() -> None:
    long = "x" * 100_000
    content = {
        "choice": {"id": long, "title": long, "description": long},
        "form": {"name": long, "json": long},
        "order": {"text": long, "currency": long},
        "contacts": [{"name": long, "vcard": f"{VCARD}\nTEL:{long}\nEMAIL:{long}"}] * 100,
        "location": {"name": long, "address": long, "url": long},
        "poll": {"question": long, "options": [long] * 100},
        "quoted": {"from": long, "text": long},
        "ad": dict.fromkeys(("source_type", "source_id", "source_url", "title", "body", "click_id"), long),
        "product": {"id": long, "title": long},
    }
    found = message(content=content, reply_to="Q")
    encoded = msgspec.json.encode(found.body)
    assert msgspec.json.decode(encoded, type=InboundContent) == found.body
    assert len(encoded) < 300_000


@pytest.mark.parametrize("vcard", [None, "", "no card", "BEGIN:VCARD\nEND:VCARD"])
def test_a_card_that_says_nothing_is_none(vcard: str | None) -> None:
    assert card_in(vcard, None) is None


@pytest.mark.parametrize(
    ("vcard", "name", "organization", "emails"),
    [
        ("FN:Ana", "Ana", None, ()),
        (
            "FN:Ana\nORG:Shop;Front desk\nEMAIL;type=WORK:ana@shop.example",
            "Ana",
            "Shop Front desk",
            ("ana@shop.example",),
        ),
        ("FN:Shop\nORG:Shop", "Shop", None, ()),
        (r"FN:Lund\, Bo\nthe second", "Lund, Bo\nthe second", None, ()),
    ],
)
def test_a_card_is_read_without_its_escapes(
    vcard: str, name: str, organization: str | None, emails: tuple[str, ...]
) -> None:
    found = card_in(vcard, None)
    assert found is not None
    assert (found.name, found.organization, found.emails) == (name, organization, emails)

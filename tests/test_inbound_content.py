"""What a message holds besides its words: kept within bounds, and told to a model in words."""

import msgspec
import pytest

from replyline.inbound_content import (
    Card,
    Choice,
    File,
    Form,
    InboundContent,
    Item,
    Location,
    Order,
    Phone,
    Poll,
    Product,
    Quoted,
    Reaction,
    Referral,
    decode_inbound,
    encode_inbound,
    in_words,
    told,
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (InboundContent(choice=Choice(kind="button", id="y", title="Yes")), "Yes"),
        (InboundContent(choice=Choice(kind="template_button", id="STOP")), "STOP"),
        (
            InboundContent(form=Form(answers={"flow_token": "t", "rating": 5, "slot": {"day": "Monday", "at": ["9", "10"]}})),
            "rating: 5\nslot.day: Monday\nslot.at: 9, 10",
        ),
        (InboundContent(form=Form(answers={"agreed": True, "note": "", "more": None})), "agreed: true"),
        (InboundContent(form=Form(answers=["not", "an", "object"])), "not, an, object"),
        (InboundContent(form=Form(text="{broken")), "{broken"),
        (
            InboundContent(order=Order(text="Please", items=(Item(product_id="A", quantity=2, price=99.99, currency="USD"),))),
            "[order] Please: 2 x A at 99.99 USD",
        ),
        (InboundContent(order=Order(items=(Item(product_id="A", title="Loaf", price=1_234_567.5),))),
         "[order] 1 x Loaf (A) at 1234567.5"),
        (InboundContent(order=Order()), "[order]"),
        (
            InboundContent(contacts=(Card(name="Bo", phones=(Phone(number="+1 650"),), emails=("bo@example.com",)), Card())),
            "[contacts] Bo +1 650 bo@example.com",
        ),
        (InboundContent(location=Location(latitude=1.5, longitude=2.0, name="Shop")), "[location] Shop (1.5, 2.0)"),
        (InboundContent(location=Location(latitude=1.5, live=True)), "[live location]"),
        (InboundContent(file=File(kind="document", name="order.pdf")), "[document] order.pdf"),
        (InboundContent(poll=Poll(question="Which?", options=("red", "blue"))), "[poll] Which?: red; blue"),
        (InboundContent(poll=Poll(question="Which?", chosen=("red",))), "[poll answer] Which?: red"),
        (InboundContent(reaction=Reaction(external_id="a", emoji="👍")), "[reaction] 👍"),
        (InboundContent(reaction=Reaction(external_id="a")), "[no reaction]"),
        (InboundContent(quoted=Quoted(external_id="a")), ""),
    ],
)  # fmt: skip
def test_what_stands_for_a_message_is_told_in_words(content: InboundContent, words: str) -> None:
    assert told(content) == words


def test_a_model_reads_what_stands_around_the_words() -> None:
    content = InboundContent(
        quoted=Quoted(external_id="wamid.1", text="what the telephone says"),
        referral=Referral(headline="Summer sale", source_url="https://fb.me/x"),
        product=Product(catalog_id="c", id="SKU-1"),
        forwarded=True,
    )
    assert in_words("Is this still on?", content, "From 7 to 6,\nevery day").splitlines() == [
        '[in reply to: "From 7 to 6, every day"]',
        "[came from an ad: Summer sale. https://fb.me/x]",
        "[about the product SKU-1]",
        "[forwarded]",
        "Is this still on?",
    ]
    assert in_words("Yes", content).startswith('[in reply to: "what the telephone says"]')


def test_a_model_reads_the_id_of_what_was_tapped_and_that_a_sound_is_a_voice_note() -> None:
    tapped = InboundContent(choice=Choice(kind="list", id="plan_basic", title="Basic", description="10 a month"))
    assert in_words("Basic", tapped) == "Basic\n[chosen from the list: 10 a month, id plan_basic]"
    assert in_words("Yes", InboundContent(choice=Choice(kind="button", id="Yes", title="Yes"))) == "Yes"
    sound = InboundContent(file=File(kind="audio", voice=True, duration_s=12))
    assert in_words("[audio]", sound) == "[audio]\n[a voice note, 12 seconds]"


def test_a_message_without_anything_else_is_its_words() -> None:
    assert in_words("Hello", None) == in_words("Hello", InboundContent()) == "Hello"
    assert encode_inbound(None) is None
    assert encode_inbound(InboundContent()) is None


def test_a_long_quotation_is_cut() -> None:
    assert len(in_words("?", InboundContent(), "word " * 1000)) < 600


def test_it_is_kept_in_camel_case_and_read_again() -> None:
    content = InboundContent(
        choice=Choice(kind="button", id="y"), quoted=Quoted(external_id="wamid.1"), contacts=(Card(name="Bo"),)
    )
    raw = encode_inbound(content)
    assert raw is not None
    assert msgspec.json.decode(raw) == {
        "choice": {"kind": "button", "id": "y"},
        "contacts": [{"name": "Bo"}],
        "quoted": {"externalId": "wamid.1"},
    }
    assert decode_inbound(raw) == content


@pytest.mark.parametrize(
    "raw",
    [
        {"choice": {"kind": "button", "id": "x" * 1025}},
        {"contacts": [{}] * 21},
        {"order": {"items": [{}] * 51}},
        {"quoted": {"externalId": ""}},
    ],
    ids=["a long id", "many cards", "many items", "an empty id"],
)
def test_what_is_larger_than_agreed_is_refused(raw: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_inbound(msgspec.json.encode(raw))

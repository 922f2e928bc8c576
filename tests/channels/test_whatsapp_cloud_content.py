"""What Meta's messages hold besides their words, and that an odd field never costs the message it belongs to."""

import copy
from collections.abc import Iterator

import msgspec
import pytest

from replyline.channels import CHANNELS, InboundMessage
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
    Product,
    Quoted,
    Reaction,
    Referral,
    encode_inbound,
)
from replyline.jobs import MediaRef
from tests.channels.graph import TEXT, account_at, change, envelope, read

FULL: dict[str, dict[str, object]] = {
    "text": {"text": {"body": "Hello"}},
    "image": {"image": {"id": "9", "mime_type": "image/jpeg", "sha256": "x", "caption": "Fresh?"}},
    "voice": {"voice": {"id": "9", "mime_type": "audio/ogg; codecs=opus", "file": "/usr/local/x"}},
    "audio": {"audio": {"id": "9", "mime_type": "audio/ogg", "voice": True, "duration": "12"}},
    "document": {"document": {"id": "9", "filename": "order.pdf", "caption": "Mine"}},
    "location": {"location": {"latitude": 1.5, "longitude": 2, "name": "Shop", "address": "Main St 1", "url": "https://x"}},
    "contacts": {
        "contacts": [
            {
                "name": {"formatted_name": "Bo B", "first_name": "Bo"},
                "phones": [{"phone": "+1 650", "wa_id": "1650", "type": "CELL"}],
                "emails": [{"email": "bo@example.com"}],
                "org": {"company": "Bakery"},
            }
        ]
    },
    "button": {"button": {"payload": "YES-1", "text": "Yes please"}},
    "interactive": {"interactive": {"type": "list_reply", "list_reply": {"id": "p1", "title": "Basic", "description": "10"}}},
    "order": {
        "order": {
            "catalog_id": "c",
            "text": "Please",
            "product_items": [{"product_retailer_id": "A", "quantity": 2, "item_price": 9.5, "currency": "EUR"}],
        }
    },
}  # fmt: skip
CONTEXT: dict[str, object] = {
    "context": {
        "from": "15550783881",
        "id": "wamid.0",
        "forwarded": True,
        "referred_product": {"catalog_id": "c", "product_retailer_id": "SKU-1"},
    },
    "referral": {
        "source_url": "https://fb.me/x",
        "source_id": "7",
        "source_type": "ad",
        "headline": "Sale",
        "body": "Summer",
        "media_type": "image",
        "image_url": "https://x/y.jpg",
        "ctwa_clid": "clid",
        "welcome_message": {"text": "Hi"},
    },
}
ODD: tuple[object, ...] = (None, "", "text", 7, -1.5, True, [], [None], {}, {"x": [None]}, "a\x00b", "x" * 5000)


def message(kind: str, **more: object) -> dict[str, object]:
    """A message of that kind with everything it may hold."""
    return {**TEXT, "type": kind, **copy.deepcopy(FULL[kind]), **more}


def body_of(found: InboundMessage) -> InboundContent:
    """Its content, once over the wire."""
    raw = encode_inbound(found.body)
    return InboundContent() if raw is None else msgspec.json.decode(raw, type=InboundContent)


def one(**payload: object) -> InboundMessage:
    (found,) = read(change(messages=[{**TEXT, **payload}]))
    return found


def interactive(**reply: object) -> InboundMessage:
    return one(type="interactive", interactive=reply)


def test_a_form_is_read_with_its_answers() -> None:
    answers = '{"flow_token": "t", "rating": "5", "slot": {"day": "Monday"}}'
    found = interactive(type="nfm_reply", nfm_reply={"name": "flow", "body": "Sent", "response_json": answers})
    assert found.content == "Sent\nrating: 5\nslot.day: Monday"
    assert body_of(found).form == Form(
        name="flow", answers={"flow_token": "t", "rating": "5", "slot": {"day": "Monday"}}
    )


@pytest.mark.parametrize(
    ("raw", "words", "form"),
    [
        ("{broken", "Sent\n{broken", Form(text="{broken")),
        ('["a", "b"]', "Sent\na, b", Form(answers=["a", "b"])),
        ({"rating": 5}, "Sent\nrating: 5", Form(answers={"rating": 5})),
        ('"\\u0000"', 'Sent\n"\\u0000"', Form(text='"\\u0000"')),
        ('{"a\\u0000": "b\\u0000c"}', "Sent\na: bc", Form(answers={"a": "bc"})),
        (None, "Sent", None),
    ],
)
def test_answers_that_are_no_object_are_kept_as_they_are(raw: object, words: str, form: Form | None) -> None:
    found = interactive(type="nfm_reply", nfm_reply={"body": "Sent", "response_json": raw})
    assert (found.content, body_of(found).form) == (words, form)


def test_answers_too_long_to_be_kept_are_cut_as_text() -> None:
    raw = msgspec.json.encode({"essay": "x" * 20_000}).decode()
    found = interactive(type="nfm_reply", nfm_reply={"name": "flow", "response_json": raw})
    assert body_of(found).form == Form(name="flow", text=raw[:16_384])


@pytest.mark.parametrize(
    ("kind", "content", "body"),
    [
        ("text", "Hello", InboundContent()),
        ("image", "[image] Fresh?", InboundContent(file=File(kind="image", mime_type="image/jpeg", caption="Fresh?"))),
        ("voice", "[audio]", InboundContent(file=File(kind="audio", mime_type="audio/ogg; codecs=opus", voice=True))),
        (
            "audio",
            "[audio]",
            InboundContent(file=File(kind="audio", mime_type="audio/ogg", voice=True, duration_s=12)),
        ),
        ("document", "[document] Mine", InboundContent(file=File(kind="document", name="order.pdf", caption="Mine"))),
        (
            "location",
            "[location] Shop, Main St 1 (1.5, 2.0)",
            InboundContent(
                location=Location(latitude=1.5, longitude=2.0, name="Shop", address="Main St 1", url="https://x")
            ),
        ),
        (
            "contacts",
            "[contacts] Bo B Bakery +1 650 bo@example.com",
            InboundContent(
                contacts=(
                    Card(
                        name="Bo B",
                        organization="Bakery",
                        phones=(Phone(number="+1 650", wa_id="1650", kind="CELL"),),
                        emails=("bo@example.com",),
                    ),
                )
            ),
        ),
        (
            "button",
            "Yes please",
            InboundContent(choice=Choice(kind="template_button", id="YES-1", title="Yes please")),
        ),
        (
            "interactive",
            "Basic",
            InboundContent(choice=Choice(kind="list", id="p1", title="Basic", description="10")),
        ),
        (
            "order",
            "[order] Please: 2 x A at 9.5 EUR",
            InboundContent(
                order=Order(
                    catalog_id="c",
                    text="Please",
                    items=(Item(product_id="A", quantity=2, price=9.5, currency="EUR"),),
                )
            ),
        ),
    ],
)
def test_every_kind_is_read_in_full(kind: str, content: str, body: InboundContent) -> None:
    (found,) = read(change(messages=[message(kind)]))
    assert (found.kind, found.content, body_of(found)) == ("message", content, body)


def test_what_stands_beside_a_message_is_read() -> None:
    (found,) = read(change(messages=[message("text", **CONTEXT)]))
    assert body_of(found) == InboundContent(
        quoted=Quoted(external_id="wamid.0", sender="15550783881"),
        referral=Referral(
            source_type="ad",
            source_id="7",
            source_url="https://fb.me/x",
            headline="Sale",
            body="Summer",
            media_type="image",
            media_url="https://x/y.jpg",
            click_id="clid",
            welcome_text="Hi",
        ),
        product=Product(catalog_id="c", id="SKU-1"),
        forwarded=True,
    )


def test_the_old_voice_note_is_fetched_like_a_sound() -> None:
    (found,) = read(change(messages=[message("voice")]))
    assert found.media == MediaRef(kind="audio", provider_id="9", mime_type="audio/ogg; codecs=opus")


def test_a_reaction_names_what_it_is_about() -> None:
    found = one(type="reaction", reaction={"message_id": "wamid.B", "emoji": "👍"})
    assert (found.kind, found.target_id, body_of(found).reaction) == (
        "reaction",
        "wamid.B",
        Reaction(external_id="wamid.B", emoji="👍"),
    )
    assert body_of(one(type="reaction", reaction={"message_id": "wamid.B"})).reaction == Reaction(external_id="wamid.B")


def test_numbers_that_are_written_as_text_are_numbers() -> None:
    place = one(type="location", location={"latitude": "37.7749", "longitude": "-122.4194", "name": None})
    assert body_of(place).location == Location(latitude=37.7749, longitude=-122.4194)
    items = [{"product_retailer_id": 7, "quantity": "2", "item_price": "9.50", "currency": None}, None, "x"]
    order = one(type="order", order={"catalog_id": None, "product_items": items})
    assert body_of(order).order == Order(items=(Item(product_id="7", quantity=2, price=9.5),))
    assert order.content == "[order] 2 x 7 at 9.5"


@pytest.mark.parametrize("degrees", ["north", 91, None, [], True, "1e999", "nan"])
def test_a_place_without_readable_degrees_is_kept(degrees: object) -> None:
    found = one(type="location", location={"latitude": degrees, "longitude": 2, "name": "Shop"})
    assert (found.content, body_of(found).location) == ("[location] Shop", Location(longitude=2, name="Shop"))


@pytest.mark.parametrize("cards", [[{"name": None, "phones": None, "org": None}], [None], [], [7, "x", {"phones": {}}]])
def test_a_card_of_which_nothing_can_be_read_is_still_a_message(cards: object) -> None:
    found = one(type="contacts", contacts=cards)
    assert (found.kind, found.content, body_of(found)) == ("message", "[contacts]", InboundContent())


@pytest.mark.parametrize("order", [{"product_items": None, "text": None}, {"product_items": {}}, {"text": 7}])
def test_an_order_without_readable_items_is_still_a_message(order: object) -> None:
    found = one(type="order", order=order)
    assert found.kind == "message"
    assert found.content.startswith("[order]")


def _fields(node: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The path of every value inside `node`."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in children:
        yield (*path, name)
        yield from _fields(value, (*path, name))


def _holder(root: dict[str, object], path: tuple[object, ...]) -> object:
    node: object = root
    for name in path[:-1]:
        node = node[name]  # type: ignore[index]  # the path was found by walking it
    return node


NEEDED = {("id",), ("type",), ("from",), ("group_id",), ("text",), ("text", "body")}
"""A text without one of these has no content or no sender."""


@pytest.mark.parametrize("kind", sorted(FULL))
def test_an_odd_field_never_costs_the_message(kind: str) -> None:
    """Every optional field once missing, and once as each thing that it should not be."""
    whole = message(kind, **CONTEXT, from_user_id="US.1349", biz="x")
    needed = NEEDED | {(kind,)} | ({("button", "payload"), ("button", "text")} if kind == "button" else set())
    if kind == "interactive":
        needed |= {("interactive", "list_reply")}
    tried = 0
    for path in _fields(whole):
        if path in needed:
            continue
        for odd in ("missing", *ODD):
            changed = copy.deepcopy(whole)
            holder = _holder(changed, path)
            if odd == "missing":
                del holder[path[-1]]  # type: ignore[attr-defined]  # as above
            else:
                holder[path[-1]] = odd  # type: ignore[index]  # as above
            raw = msgspec.json.encode(envelope(change(messages=[changed])))
            callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw)
            assert [found.kind for found in callback.messages] == ["message"], (path, odd)
            assert b"\\u0000" not in (encode_inbound(callback.messages[0].body) or b""), (path, odd)
            body_of(callback.messages[0])  # within its bounds
            assert callback.unread == (), (path, odd)
            tried += 1
    assert tried > 100


@pytest.mark.parametrize("kind", sorted(FULL))
def test_a_kind_of_which_nothing_can_be_read_has_its_place_and_is_kept_as_it_came(kind: str) -> None:
    nothing: tuple[object, ...] = (None, 7, "text", [])
    for odd in nothing:
        if kind == "contacts" and odd == []:
            continue  # an empty list of cards is a message
        raw = msgspec.json.encode(envelope(change(messages=[message(kind) | {kind: odd}, TEXT])))
        callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw)
        assert [found.kind for found in callback.messages] == [
            "note" if kind == "interactive" else "unsupported",
            "message",
        ]
        assert body_of(callback.messages[0]).unread_type == kind
        assert len(callback.unread) == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [("some_future_type", "some_future_type"), ("poll", "poll"), ("unknown", "unknown"), ("revoked", "revoked")],
)
def test_a_type_that_is_not_known_has_its_place_in_the_conversation(kind: str, name: str) -> None:
    raw = msgspec.json.encode(envelope(change(messages=[{**TEXT, "type": kind, kind: {"x": 1}}])))
    callback = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw)
    (found,) = callback.messages
    assert (found.kind, found.content, body_of(found).unread_type) == ("unsupported", f"[{kind}]", name)
    assert len(callback.unread) == 1


@pytest.mark.parametrize(
    "reply",
    [
        {"type": "call_permission_reply", "call_permission_reply": {"response": "accept"}},
        {"type": "call_permission_reply"},
        {"type": "payment_method", "payment_method": {"x": 1}},
        {"type": "button_reply", "button_reply": None},
        {"type": "something_new"},
        {},
    ],
)
def test_an_interactive_that_says_nothing_to_the_bot_is_a_note(reply: dict[str, object]) -> None:
    assert interactive(**reply).kind == "note"


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("edit", "note"),
        ("pin", "note"),
        ("reaction", "note"),
        ("poll_creation", "unsupported"),
        ("view_once", "unsupported"),
        (None, "unsupported"),
        (7, "unsupported"),
    ],
)
def test_what_whatsapp_does_not_show_is_apologised_for_unless_it_changed_an_earlier_message(
    what: object, kind: str
) -> None:
    found = one(type="unsupported", unsupported={"type": what}, errors=[{"code": 131051}])
    assert found.kind == kind

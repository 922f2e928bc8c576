"""Sends to WhatsApp Cloud: what goes over the wire, and what is refused before."""

from dataclasses import replace

import aiohttp
import pytest

from replyline.channels import CHANNELS, Sign
from replyline.channels.whatsapp_cloud import MAX_TEXT_CHARS
from replyline.contents import Button, Buttons, Choices, Content, Media, Row, Section, Template
from replyline.errors import ChannelDown, Permanent, Temporary
from tests.channels.contract_suite import outgoing
from tests.channels.far_end import FarEnd, Say
from tests.channels.graph import NUMBER, SECRETS, accepted, account_at, meta_error


@pytest.mark.parametrize(
    ("to", "recipient"),
    [
        ("16505551234", {"to": "+16505551234"}),
        ("+16505551234", {"to": "+16505551234"}),
        ("US.1349", {"recipient": "US.1349"}),
        ("US.ENT.11", {"recipient": "US.ENT.11"}),
    ],
)
async def test_a_send_names_the_person_as_meta_wants_it(
    to: str, recipient: dict[str, str], http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    far_end.then = [accepted()]
    text = outgoing(to)
    await CHANNELS["WHATSAPP_CLOUD"].send(account_at(far_end.url), text, http)
    (call,) = far_end.calls
    assert (call.method, call.path) == ("POST", f"/v25.0/{NUMBER}/messages")
    assert call.headers["authorization"] == f"Bearer {SECRETS['access_token']}"
    assert call.json() == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **recipient,
        "type": "text",
        "text": {"body": text.text, "preview_url": False},
        "biz_opaque_callback_data": str(text.message_id),
    }


async def test_a_text_too_long_for_whatsapp_is_refused_before_it_is_sent(
    http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    with pytest.raises(Permanent) as raised:
        await CHANNELS["WHATSAPP_CLOUD"].send(
            account_at(far_end.url), outgoing(content="x" * (MAX_TEXT_CHARS + 1)), http
        )
    assert raised.value.reason == "text_too_long"
    assert far_end.calls == []


@pytest.mark.parametrize(
    ("content", "kind", "body"),
    [
        (
            Media(kind="document", link="https://x.y/a.pdf", caption="Menu", filename="menu.pdf"),
            "document",
            {"link": "https://x.y/a.pdf", "caption": "Menu", "filename": "menu.pdf"},
        ),
        (Media(kind="audio", link="https://x.y/a.ogg", caption="unused"), "audio", {"link": "https://x.y/a.ogg"}),
        (
            Buttons(text="Continue?", buttons=(Button(id="y", title="Yes"),), footer="Blum"),
            "interactive",
            {
                "type": "button",
                "body": {"text": "Continue?"},
                "footer": {"text": "Blum"},
                "action": {"buttons": [{"type": "reply", "reply": {"id": "y", "title": "Yes"}}]},
            },
        ),
        (
            Choices(text="Pick", button="Options", sections=(Section(rows=(Row(id="1", title="One"),)),)),
            "interactive",
            {
                "type": "list",
                "body": {"text": "Pick"},
                "action": {"button": "Options", "sections": [{"rows": [{"id": "1", "title": "One"}]}]},
            },
        ),
        (
            Template(name="order_ready", language="en_US", parameters=("Ana\n\tB    C",)),
            "template",
            {
                "name": "order_ready",
                "language": {"code": "en_US"},
                "components": [{"type": "body", "parameters": [{"type": "text", "text": "Ana B C"}]}],
            },
        ),
    ],
)
async def test_every_kind_of_content_is_sent_as_meta_wants_it(
    content: Content, kind: str, body: object, http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    far_end.then = [accepted()]
    message = replace(outgoing(), content=content, quotes="wamid.Q")
    await CHANNELS["WHATSAPP_CLOUD"].send(account_at(far_end.url), message, http)
    sent = far_end.calls[0].json()
    assert (sent["type"], sent[kind], sent["context"]) == (kind, body, {"message_id": "wamid.Q"})


async def test_a_message_that_cannot_go_to_a_user_id_goes_to_the_phone(
    http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    far_end.then = [meta_error(400, 131062), accepted()]
    message = replace(outgoing("US.1349"), also_to="16505551234")
    await CHANNELS["WHATSAPP_CLOUD"].send(account_at(far_end.url), message, http)
    assert [(call.json().get("recipient"), call.json().get("to")) for call in far_end.calls] == [
        ("US.1349", None),
        (None, "+16505551234"),
    ]


async def test_a_sign_of_life_marks_read_and_shows_typing_in_one_call(
    http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    far_end.then = [Say(200, {"success": True})]
    channel = CHANNELS["WHATSAPP_CLOUD"]
    assert await channel.sign(account_at(far_end.url), Sign("16505551234", "wamid.A", typing=True), http)
    assert not await channel.sign(account_at(far_end.url), Sign("16505551234", None, typing=False), http)
    assert [call.json() for call in far_end.calls] == [
        {
            "messaging_product": "whatsapp",
            "status": "read",
            "message_id": "wamid.A",
            "typing_indicator": {"type": "text"},
        }
    ]


@pytest.mark.parametrize(
    ("say", "error"),
    [
        (Say(200, {"status": "CONNECTED"}), None),
        (Say(200, {}), None),
        (Say(200, {"status": "BANNED"}), ChannelDown),
        (meta_error(401, 190), ChannelDown),
        (Say(503, b""), Temporary),
    ],
    ids=str,
)
async def test_a_number_is_asked_how_it_is(
    say: Say, error: type[Exception] | None, http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    far_end.then = [say]
    checking = CHANNELS["WHATSAPP_CLOUD"].check(account_at(far_end.url), http)
    if error is None:
        await checking
    else:
        with pytest.raises(error):
            await checking
    assert (far_end.calls[0].method, far_end.calls[0].path) == ("GET", f"/v25.0/{NUMBER}")


def test_a_long_answer_is_cut_into_messages_that_whatsapp_takes() -> None:
    parts = CHANNELS["WHATSAPP_CLOUD"].render("**Hours**\n\n" + "We are open every day. " * 500)
    assert all(0 < len(part) <= MAX_TEXT_CHARS for part in parts)
    assert parts[0].startswith("*Hours*")
    assert " ".join(parts).count("We are open every day.") == 500

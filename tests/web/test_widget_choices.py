"""The widget's buttons, lists and files: a page gets them as they are, and what it presses comes back as WhatsApp's does."""

import uuid

import pytest

from replyline.inbound_content import InboundContent, Quoted
from replyline.store.database import Database
from tests.make import make_api_key
from tests.store.scene import Scene
from tests.web.conftest import Door
from tests.web.page import Page, make_site, open_page, save_all

BUTTONS: dict[str, object] = {
    "type": "buttons",
    "header": "Your order",
    "text": "Shall we deliver it?",
    "footer": "It takes an hour.",
    "buttons": [{"id": "deliver", "title": "Deliver"}, {"id": "collect", "title": "I collect it"}],
}
LIST: dict[str, object] = {
    "type": "list",
    "text": "Which cake?",
    "button": "Our cakes",
    "sections": [
        {"title": "With fruit", "rows": [{"id": "c1", "title": "Plum cake", "description": "With cinnamon"}]},
        {"title": "With cream", "rows": [{"id": "c2", "title": "Black Forest"}]},
    ],
}
PICTURE: dict[str, object] = {
    "type": "media",
    "kind": "image",
    "link": "https://pictures.example/plum.jpg",
    "caption": "Our plum cake",
    "filename": "plum.jpg",
}


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database)


async def say(door: Door, scene: Scene, page: Page, content: dict[str, object]) -> str:
    """The business sends this; its id, once it is in the log."""
    key = await make_api_key(scene.database, scene.customer.id)
    path = f"/v1/conversations/{page.conversation_id}/messages"
    said = await door.call("POST", path, key=key, json={"content": content, "takeOver": False})
    assert said.status == 202, said.body
    await scene.route()
    return str(said.json["messageId"])


async def asked(door: Door, scene: Scene, content: dict[str, object] = BUTTONS) -> tuple[Page, str]:
    """A visitor who wrote, and the message that they got."""
    page = await open_page(door, scene.channel)
    await page.write("Hello")
    await save_all(scene)
    return page, await say(door, scene, page, content)


async def test_a_page_gets_buttons_and_a_list_as_they_are(door: Door, scene: Scene) -> None:
    page, _ = await asked(door, scene)
    await say(door, scene, page, LIST)
    _, buttons, choices = (await page.call("GET", "/messages")).entries
    assert buttons["content"] == {
        "type": "buttons",
        "text": "Shall we deliver it?",
        "header": "Your order",
        "footer": "It takes an hour.",
        "label": None,
        "sections": [
            {
                "title": None,
                "options": [
                    {"id": "deliver", "title": "Deliver", "description": None},
                    {"id": "collect", "title": "I collect it", "description": None},
                ],
            }
        ],
        "file": None,
    }
    shown = choices["content"]
    assert isinstance(shown, dict)
    assert (shown["type"], shown["label"]) == ("list", "Our cakes")
    assert shown["sections"] == [
        {
            "title": "With fruit",
            "options": [{"id": "c1", "title": "Plum cake", "description": "With cinnamon"}],
        },
        {"title": "With cream", "options": [{"id": "c2", "title": "Black Forest", "description": None}]},
    ]
    assert "1. Deliver" in str(buttons["text"]), "a program that knows no content has the words"


async def test_a_page_gets_a_file_by_its_address_also_in_the_stream(door: Door, scene: Scene) -> None:
    page, _ = await asked(door, scene, PICTURE)
    async with page.stream("?after=1") as stream:
        (event,) = await stream.until("message.created")
    (entry,) = (await page.call("GET", "/messages?after=1")).entries
    assert event.data == entry
    shown = entry["content"]
    assert isinstance(shown, dict)
    assert (shown["type"], shown["text"]) == ("media", "Our plum cake")
    assert shown["file"] == {"kind": "image", "url": "https://pictures.example/plum.jpg", "name": "plum.jpg"}


async def test_what_a_page_cannot_show_it_gets_in_words(door: Door, scene: Scene) -> None:
    template: dict[str, object] = {"type": "template", "name": "welcome", "language": "en", "parameters": ["Ana"]}
    page, _ = await asked(door, scene, template)
    entry = (await page.call("GET", "/messages")).entries[-1]
    assert (entry["text"], entry["content"]) == ("[welcome]\n\nAna", None)


@pytest.mark.parametrize(
    ("content", "kept", "read"),
    [
        (
            BUTTONS,
            {"kind": "button", "id": "collect", "title": "I collect it"},
            "I collect it\n[chosen from the button: id collect]",
        ),
        (
            LIST,
            {"kind": "list", "id": "c1", "title": "Plum cake", "description": "With cinnamon"},
            "Plum cake\n[chosen from the list: With cinnamon, id c1]",
        ),
    ],
)
async def test_a_pressed_option_is_kept_and_read_as_one_of_whatsapp_is(
    door: Door, scene: Scene, content: dict[str, object], kept: dict[str, str], read: str
) -> None:
    page, offer = await asked(door, scene, content)
    written = await page.write("something else", choice={"message_id": offer, "option_id": kept["id"]})
    assert written.status == 202, written.body
    await save_all(scene)
    key = await make_api_key(scene.database, scene.customer.id)
    message = (await door.call("GET", f"/v1/messages/{written.json['id']}", key=key)).json
    assert message["content"] == kept["title"], "in the words of the offer, not of the page"
    assert message["body"] == {"choice": kept, "quoted": {"externalId": offer}}
    assert message["quotes"] == offer
    _, turn = await scene.open_turn()
    assert turn.asked[-1].endswith(read)
    assert turn.asked[-1].startswith("[in reply to: ")
    entry = (await page.call("GET", "/messages")).entries[-1]
    assert entry["choice"] == {"message_id": offer, "option_id": kept["id"]}


async def test_a_choice_needs_no_text_and_is_kept_once(door: Door, scene: Scene) -> None:
    page, offer = await asked(door, scene)
    client_id = str(uuid.uuid4())
    choice = {"message_id": offer, "option_id": "deliver"}
    answers = [await page.write("", client_id, choice=choice) for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 200]
    await save_all(scene)
    assert await scene.value("SELECT count(*) FROM messages WHERE body ? 'choice'") == 1


async def test_an_option_that_was_never_offered_is_refused(door: Door, scene: Scene) -> None:
    page, offer = await asked(door, scene)
    _, of_another = await asked(door, scene)
    own = (await page.call("GET", "/messages")).entries[0]["id"]
    for message_id, option_id in (
        (offer, "free-of-charge"),
        (str(uuid.uuid4()), "deliver"),
        (of_another, "deliver"),
        (own, "deliver"),
    ):
        refused = await page.write("Deliver", choice={"message_id": message_id, "option_id": option_id})
        assert refused.problem == (422, "not_offered"), (message_id, option_id)
    assert await scene.value("SELECT count(*) FROM jobs WHERE queue = 'incoming-messages' AND state = 'WAITING'") == 0


async def test_a_choice_that_cannot_be_one_is_refused(door: Door, scene: Scene) -> None:
    page, offer = await asked(door, scene)
    good = {"message_id": offer, "option_id": "deliver"}
    for more in (
        {"choice": {"message_id": "x", "option_id": "deliver"}},
        {"choice": {"message_id": offer, "option_id": ""}},
        {"choice": {"message_id": offer, "option_id": "x" * 257}},
        {"choice": {**good, "title": "Free"}},
        {"choice": good, "attachments": [f"att_{uuid.uuid4().hex}"]},
    ):
        refused = await page.write("Deliver", **more)
        assert refused.problem == (422, "invalid"), more


async def test_a_message_of_another_conversation_cannot_be_quoted(door: Door, scene: Scene) -> None:
    """A job of another producer may name any message: only one of the same conversation is taken as quoted."""
    page, _ = await asked(door, scene)
    _, of_another = await asked(door, scene)
    conversation = uuid.UUID(page.conversation_id)
    identity = str(await scene.value("SELECT identity FROM visitors WHERE conversation_id = $1", conversation))
    message_id = await scene.hear(
        "that one",
        sender=identity,
        identity_kind="visitor",
        conversation_id=conversation,
        body=InboundContent(quoted=Quoted(external_id=of_another)),
    )
    assert await scene.value("SELECT quotes FROM messages WHERE id = $1", message_id) is None

"""The widget's routes: a visitor writes and reads, on a page that may show the widget."""

import asyncio
import uuid

import pytest

from replyline.store import channels
from replyline.store.database import Database
from tests.make import VAULT, make_channel, make_chatbot, make_webhook_endpoint
from tests.store.scene import Scene
from tests.web.conftest import Door
from tests.web.page import Page, answer_all, make_site, open_page, save_all


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database, title="Blum", greeting="Hello!", color="#0f766e")


async def test_a_page_learns_how_the_site_wants_its_widget(door: Door, scene: Scene) -> None:
    begun = await Page(door, scene.channel.external_id).begin()
    assert begun.status == 201
    assert begun.json["last_event_id"] == "0"
    config = begun.json["config"]
    assert isinstance(config, dict)
    assert (config["title"], config["greeting"], config["color"], config["theme"]) == (
        "Blum",
        "Hello!",
        "#0f766e",
        "auto",
    )


async def test_a_visitor_writes_and_reads_the_answer(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    written = await page.write("Are you open?")
    assert (written.status, written.json["status"]) == (202, "accepted")
    await save_all(scene)
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "From 7 am.")
    assert await page.history() == [("user", "Are you open?")], "an answer is there once it is in the log"
    await scene.route()
    assert await page.history("?after=1") == [("assistant", "From 7 am.")]
    assert str(await scene.value("SELECT id FROM conversations")) == page.conversation_id


async def test_the_page_recognises_its_own_message(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    client_id = str(uuid.uuid4())
    await page.write("hello", client_id)
    await save_all(scene)
    (entry,) = (await page.call("GET", "/messages")).entries
    assert (entry["client_id"], entry["seq"], entry["status"]) == (client_id, 1, "received")


async def test_a_message_repeated_by_its_page_is_stored_once(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    client_id = str(uuid.uuid4())
    answers = await asyncio.gather(*(page.write("hello", client_id) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 200, 202]
    assert len({answer.body for answer in answers}) == 1
    assert await scene.value("SELECT count(*) FROM all_jobs") == 1


async def test_two_visitors_with_the_same_client_ids_do_not_meet(door: Door, scene: Scene) -> None:
    client_id = str(uuid.uuid4())
    ana, ben = await open_page(door, scene.channel), await open_page(door, scene.channel)
    await ana.write("from Ana", client_id)
    await ben.write("from Ben", client_id)
    await save_all(scene)
    assert (await ana.history(), await ben.history()) == ([("user", "from Ana")], [("user", "from Ben")])


async def test_a_visitor_who_comes_back_finds_their_conversation(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await page.write("hello")
    await save_all(scene)
    again = Page(door, scene.channel.external_id, visitor_token=page.visitor_token)
    begun = await again.begin()
    assert (begun.json["visitor_token"], begun.json["last_event_id"]) == (page.visitor_token, "1")
    assert await again.history() == [("user", "hello")]


async def test_an_answer_that_waits_does_not_hide_what_comes_meanwhile(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await page.write("one")
    await save_all(scene)
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "answer")
    await page.write("two")
    await save_all(scene)
    assert await page.history() == [("user", "one"), ("user", "two")]
    await scene.route()
    assert await page.history("?after=2") == [("assistant", "answer")], "who has read the others still gets it"


async def test_history_comes_in_pages(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    for number in range(5):
        await scene.hear(
            f"m{number}",
            sender=await _identity(scene),
            identity_kind="visitor",
            conversation_id=uuid.UUID(page.conversation_id),
        )
    newest = await page.call("GET", "/messages?limit=2")
    assert ([entry["text"] for entry in newest.entries], newest.json["more"]) == (["m3", "m4"], True)
    older = await page.call("GET", "/messages?limit=3&before=4")
    assert ([entry["text"] for entry in older.entries], older.json["more"]) == (["m0", "m1", "m2"], False)
    after = await page.call("GET", "/messages?limit=2&after=1")
    assert [entry["text"] for entry in after.entries] == ["m1", "m2"]
    assert (after.json["more"], after.json["last_event_id"]) == (True, "3")
    assert (await page.call("GET", "/messages?before=1&after=1")).problem == (422, "invalid")


async def test_a_page_without_the_stream_waits_for_the_next_message(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await page.write("hello")
    await save_all(scene)
    waiting = asyncio.create_task(page.call("GET", "/messages?after=1&wait=20"))
    await answer_all(scene, "hi")
    assert [entry["text"] for entry in (await waiting).entries] == ["hi"]


async def test_what_was_read_is_said_once(door: Door, scene: Scene) -> None:
    await make_webhook_endpoint(scene.database, scene.customer.id, events=["message.delivered", "message.read"])
    page = await open_page(door, scene.channel)
    await page.write("hello")
    await save_all(scene)
    await answer_all(scene, "hi")
    assert await scene.outbound() == [("hi", "SENT")]
    assert (await page.call("POST", "/read", json={"up_to": 1})).status == 204
    assert await scene.outbound() == [("hi", "SENT")], "it stands at place 2"
    for state, status in (("delivered", "DELIVERED"), ("read", "READ"), ("delivered", "READ"), ("read", "READ")):
        assert (await page.call("POST", "/read", json={"up_to": 2, "state": state})).status == 204
        assert await scene.outbound() == [("hi", status)]
    events = await scene.fetch("SELECT type FROM webhook_events ORDER BY id")
    assert [row["type"] for row in events] == ["message.delivered", "message.read"]


async def test_a_site_that_is_unknown_or_off_is_not_found(door: Door, scene: Scene) -> None:
    cloud = await make_channel(scene.database, scene.chatbot, "WHATSAPP_CLOUD")
    for key in ("site_unknown", cloud.external_id):
        assert (await Page(door, key).begin()).problem == (404, "not_found")
    await channels.update(
        scene.database, VAULT, scene.channel.id, customer_id=scene.customer.id, changes={"enabled": False}
    )
    assert (await Page(door, scene.channel.external_id).begin()).problem == (404, "not_found")
    assert await scene.value("SELECT count(*) FROM visitors") == 0


@pytest.mark.parametrize(
    "change",
    [
        {"text": "x" * 4001},
        {"text": " \n "},
        {"client_id": "not a uuid"},
        {"attachments": ["att_x"]},
        {"attachments": [f"att_{'0' * 32}"] * 6},
        {"attachments": [f"att_{'0' * 32}"]},
        {"text": "a\0b"},
        {"extra": 1},
    ],
)
async def test_what_does_not_fit_is_refused(door: Door, scene: Scene, change: dict[str, object]) -> None:
    page = await open_page(door, scene.channel)
    body = {"client_id": str(uuid.uuid4()), "text": "hello", **change}
    assert (await page.call("POST", "/messages", json=body)).problem == (422, "invalid")
    assert await scene.value("SELECT count(*) FROM all_jobs") == 0


async def test_a_widget_with_another_chatbot_begins_another_conversation(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    await page.write("to the old bot")
    await save_all(scene)
    other = await make_chatbot(scene.database, scene.customer.id)
    await channels.update(
        scene.database, VAULT, scene.channel.id, customer_id=scene.customer.id, changes={"chatbot_id": other.id}
    )
    first = page.conversation_id
    await page.begin()
    assert page.conversation_id != first
    assert await page.history() == []


async def _identity(scene: Scene) -> str:
    return str(await scene.value("SELECT identity FROM visitors"))

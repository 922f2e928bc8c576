"""The widget's routes: a visitor writes and reads, and nobody reads as somebody else."""

import asyncio

import pytest

from replyline.store import channels
from replyline.store.database import Database
from replyline.store.moves.accept import Accepted
from tests.make import VAULT, make_channel
from tests.store.scene import Scene, make_scene
from tests.web.conftest import Answer, Door


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_scene(database, "WIDGET")


async def _write(door: Door, scene: Scene, text: str, client_id: str, **more: object) -> Answer:
    body = {"siteKey": scene.channel.external_id, "content": text, "clientMessageId": client_id, **more}
    return await door.call("POST", "/widget/v1/messages", json=body)


async def _read(door: Door, scene: Scene, visitor: Answer, *, after: int = 0, token: str | None = None) -> Answer:
    path = (
        f"/widget/v1/messages?siteKey={scene.channel.external_id}&visitorId={visitor.json['visitorId']}&after={after}"
    )
    return await door.call("GET", path, key=str(visitor.json["visitorToken"]) if token is None else token)


async def _save_all(scene: Scene) -> None:
    for row in await scene.fetch(
        "SELECT id, message_id, trace_id FROM jobs WHERE queue = 'incoming-messages' ORDER BY id"
    ):
        await scene.receive(Accepted(row["id"], row["message_id"], row["trace_id"], duplicate=False))


async def test_a_visitor_writes_and_reads_the_answer(door: Door, scene: Scene) -> None:
    visitor = await _write(door, scene, "Are you open?", "m1", visitorName="Ana")
    assert (visitor.status, visitor.json["duplicate"]) == (202, False)
    await _save_all(scene)
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "From 7 am.")
    before = await _read(door, scene, visitor)
    assert [(entry["role"], entry["content"]) for entry in before.entries] == [("user", "Are you open?")]
    assert before.entries[0]["clientMessageId"] == "m1"
    await scene.route()
    after = await _read(door, scene, visitor, after=1)
    assert [(entry["role"], entry["content"], entry["seq"]) for entry in after.entries] == [
        ("assistant", "From 7 am.", 2)
    ]
    assert (after.json["next"], (await _read(door, scene, visitor, after=2)).json) == (2, {"data": [], "next": 2})


async def test_an_answer_on_its_way_is_not_passed_over(door: Door, scene: Scene) -> None:
    visitor = await _write(door, scene, "one", "m1")
    await _save_all(scene)
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "answer")
    again = {"visitorId": visitor.json["visitorId"], "visitorToken": visitor.json["visitorToken"]}
    await _write(door, scene, "two", "m2", **again)
    await _save_all(scene)
    early = await _read(door, scene, visitor, after=1)
    assert early.json == {"data": [], "next": 1}
    await scene.route()
    late = await _read(door, scene, visitor, after=1)
    assert [entry["content"] for entry in late.entries] == ["answer", "two"]


async def test_a_message_repeated_by_its_page_is_stored_once(door: Door, scene: Scene) -> None:
    made = await door.call("POST", "/widget/v1/visitors", json={"siteKey": scene.channel.external_id})
    assert made.status == 201
    visitor = {"visitorId": made.json["visitorId"], "visitorToken": made.json["visitorToken"]}
    answers = await asyncio.gather(*(_write(door, scene, "hello", "m1", **visitor) for _ in range(5)))
    assert [answer.status for answer in answers] == [202] * 5
    assert len({str(answer.json["messageId"]) for answer in answers}) == 1
    assert await scene.value("SELECT count(*) FROM jobs") == 1


async def test_two_visitors_with_the_same_client_ids_do_not_meet(door: Door, scene: Scene) -> None:
    ana, ben = await _write(door, scene, "from Ana", "m1"), await _write(door, scene, "from Ben", "m1")
    await _save_all(scene)
    assert ana.json["visitorId"] != ben.json["visitorId"]
    for visitor, text in ((ana, "from Ana"), (ben, "from Ben")):
        assert [entry["content"] for entry in (await _read(door, scene, visitor)).entries] == [text]


async def test_nobody_reads_or_writes_as_a_visitor_without_their_token(door: Door, scene: Scene) -> None:
    ana, ben = await _write(door, scene, "from Ana", "m1"), await _write(door, scene, "from Ben", "m1")
    await _save_all(scene)
    for token in ("", "x", str(ben.json["visitorToken"])):
        assert (await _read(door, scene, ana, token=token)).problem == (401, "unauthorized")
        forged = await _write(door, scene, "forged", "m2", visitorId=ana.json["visitorId"], visitorToken=token)
        assert forged.problem == (401, "unauthorized")
    assert await scene.value("SELECT count(*) FROM jobs WHERE queue = 'incoming-messages'") == 2


async def test_a_token_is_worth_nothing_on_another_site(door: Door, scene: Scene) -> None:
    visitor = await _write(door, scene, "hello", "m1")
    other = await make_channel(scene.database, scene.chatbot, "WIDGET")
    path = f"/widget/v1/messages?siteKey={other.external_id}&visitorId={visitor.json['visitorId']}"
    assert (await door.call("GET", path, key=str(visitor.json["visitorToken"]))).problem == (401, "unauthorized")


async def test_a_site_that_is_unknown_or_off_is_not_found(door: Door, scene: Scene) -> None:
    await channels.update(
        scene.database, VAULT, scene.channel.id, customer_id=scene.customer.id, changes={"enabled": False}
    )
    assert (await _write(door, scene, "hello", "m1")).problem == (404, "not_found")
    unknown = {"siteKey": "site_unknown", "content": "hello", "clientMessageId": "m1"}
    assert (await door.call("POST", "/widget/v1/messages", json=unknown)).problem == (404, "not_found")
    cloud = await make_channel(scene.database, scene.chatbot, "WHATSAPP_CLOUD")
    answer = await door.call("POST", "/widget/v1/messages", json={**unknown, "siteKey": cloud.external_id})
    assert answer.problem == (404, "not_found")
    assert await scene.value("SELECT count(*) FROM jobs") == 0


@pytest.mark.parametrize("change", [{"content": "x" * 4001}, {"clientMessageId": "a b"}, {"visitorId": "v_guessed"}])
async def test_what_does_not_fit_is_refused(door: Door, scene: Scene, change: dict[str, object]) -> None:
    body = {"siteKey": scene.channel.external_id, "content": "hello", "clientMessageId": "m1", **change}
    assert (await door.call("POST", "/widget/v1/messages", json=body)).problem == (422, "invalid")
    assert await scene.value("SELECT count(*) FROM jobs") == 0


async def test_pages_of_every_site_may_call_and_nothing_else_may_be_called_by_them(door: Door, scene: Scene) -> None:
    preflight = await door.call("OPTIONS", "/widget/v1/messages", headers={"Origin": "https://shop.example"})
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, "*")
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    for answer in (await _write(door, scene, "hello", "m1"), await _write(door, scene, "", "m1")):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
    assert "access-control-allow-origin" not in (await door.call("GET", "/v1/chatbots")).headers

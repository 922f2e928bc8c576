"""The model's words on an open page, as they come although a worker produces them; then the message that is the authority."""

import uuid

import aiohttp
import pytest

from replyline.standins import Standins
from replyline.store import chatbots
from replyline.store.database import Database
from tests.make import VAULT
from tests.store.scene import Scene
from tests.waiting import until
from tests.web.conftest import Door
from tests.web.page import make_site, open_page

ANSWER = "We are open from Tuesday to Saturday, seven to six, and closed on Sundays."


@pytest.fixture
async def scene(database: Database, standins: Standins) -> Scene:
    site = await make_site(database)
    changes: chatbots.ChatbotChanges = {
        "provider": "openai_compatible",
        "model": "demo-model",
        "provider_base_url": f"{standins.urls['openai']}/v1",
    }
    await chatbots.update(database, VAULT, site.chatbot.id, customer_id=site.customer.id, changes=changes)
    return site


@pytest.fixture
async def door(worked: Door) -> Door:
    return worked


async def _tell(standins: Standins, path: str, body: object) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{standins.urls['openai']}/{path}", json=body) as response,
    ):
        assert response.status == 200, await response.text()


async def _calls(standins: Standins) -> list[dict[str, object]]:
    async with aiohttp.ClientSession() as http, http.get(f"{standins.urls['openai']}/_calls") as response:
        calls: list[dict[str, object]] = (await response.json())["calls"]
        return calls


async def test_an_answer_is_seen_while_it_is_written_and_then_stands(
    door: Door, scene: Scene, standins: Standins
) -> None:
    await _tell(standins, "_configure", {"reply": ANSWER, "tokens_per_s": 40})
    page = await open_page(door, scene.channel)
    async with page.stream() as stream:
        written = await page.write("When are you open?")
        (completed,) = await stream.until("message.completed")
        pieces = stream.named("message.delta")
        assert len(pieces) > 3
        assert "".join(str(piece.data["text"]) for piece in pieces) == ANSWER == completed.data["text"]
        assert {piece.data["id"] for piece in pieces} == {completed.data["id"]}
        assert [piece.data["i"] for piece in pieces] == list(range(len(pieces)))
        names = [event.name for event in stream.events if event.name != "message.delta"]
        assert names[:3] == ["message.created", "message.status", "typing"]
        (status,) = stream.named("message.status")
        assert status.data == {"id": written.json["id"], "status": "processing"}
        assert [event.data["on"] for event in await stream.until("typing", 2)] == [True, False]
        assert stream.named("message.failed") == []
    assert await scene.outbound() == [(ANSWER, "SENT")]
    (fact,) = await scene.fetch("SELECT input_tokens, output_tokens FROM usage_logs WHERE kind = 'ai_answer'")
    assert fact["output_tokens"] > 0


async def test_where_nobody_listens_no_stream_is_asked_for(door: Door, scene: Scene, standins: Standins) -> None:
    page = await open_page(door, scene.channel)
    await page.write("When are you open?")

    async def answered() -> bool:
        return bool(await scene.outbound() and (await scene.outbound())[0][1] == "SENT")

    await until(answered)
    (call,) = await _calls(standins)
    body = call["body"]
    assert isinstance(body, dict)
    assert "stream" not in body


async def test_what_was_shown_of_a_call_that_failed_is_taken_back(door: Door, scene: Scene, standins: Standins) -> None:
    await _tell(standins, "_configure", {"reply": ANSWER, "tokens_per_s": 100})
    await _tell(standins, "_faults", {"kind": "cut_mid_stream", "after_chunks": 4, "times": 1})
    page = await open_page(door, scene.channel)
    async with page.stream() as stream:
        await page.write("When are you open?")
        (completed,) = await stream.until("message.completed")
        (failed,) = stream.named("message.failed")
        assert failed.data["id"] != completed.data["id"]
        pieces = [event for event in stream.named("message.delta") if event.data["id"] == completed.data["id"]]
        assert "".join(str(piece.data["text"]) for piece in pieces) == ANSWER
        shown = {event.data["id"] for event in stream.named("message.delta")}
        assert shown <= {failed.data["id"], completed.data["id"]}
    assert await scene.outbound() == [(ANSWER, "SENT")]


async def test_a_page_that_goes_and_comes_back_sees_the_whole_answer_once(
    door: Door, scene: Scene, standins: Standins
) -> None:
    await _tell(standins, "_configure", {"reply": ANSWER, "tokens_per_s": 15})
    page = await open_page(door, scene.channel)
    async with page.stream() as stream:
        await page.write("When are you open?")
        await stream.until("message.delta", 2)
        place = max(event.id or 0 for event in stream.events)
    async with page.stream(f"?after={place}") as stream:
        first = (await stream.until("message.delta"))[0]
        assert first.data["replace"] is True
        (completed,) = await stream.until("message.completed")
        assert "".join(str(piece.data["text"]) for piece in stream.named("message.delta")) == ANSWER
        assert completed.data["text"] == ANSWER
        assert stream.logged == [(place + 1, ANSWER)]


async def test_words_never_stop_a_message_from_coming_when_redis_forgets_them(
    door: Door, scene: Scene, standins: Standins
) -> None:
    await _tell(standins, "_configure", {"reply": ANSWER, "tokens_per_s": 20})
    page = await open_page(door, scene.channel)
    async with page.stream() as stream:
        await page.write("When are you open?")
        await stream.until("message.delta", 2)
        await door.app.broker.live.begin(page.conversation_id, str(uuid.uuid4()))  # another run has taken it over
        (completed,) = await stream.until("message.completed")
        assert completed.data["text"] == ANSWER
    assert await scene.outbound() == [(ANSWER, "SENT")]

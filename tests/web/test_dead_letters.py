"""Dead letters and queues through the API."""

import uuid

import pytest

from replyline.store.database import Database
from tests.make import make_api_key
from tests.store.scene import Scene, make_scene
from tests.waiting import until
from tests.web.conftest import Door, Serve, free_port


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_scene(database, "WHATSAPP_CLOUD")


@pytest.fixture
async def dead(scene: Scene) -> uuid.UUID:
    await scene.say("Are you open?", "From 7 am.")
    await scene.route()
    return await scene.fail_send()


@pytest.fixture
async def key(scene: Scene) -> str:
    return await make_api_key(scene.database, scene.customer.id)


async def test_a_dead_letter_shows_its_reason_and_history(door: Door, dead: uuid.UUID, key: str) -> None:
    one = await door.call("GET", f"/v1/dead-letters/{dead}", key=key)
    assert (one.json["queue"], one.json["reason"], one.json["attempts"]) == ("whatsapp-cloud-send", "undeliverable", 1)
    errors = one.json["errors"]
    assert isinstance(errors, list)
    assert [error["message"] for error in errors] == ["it broke"]
    for query in ("", "?reason=undeliverable", "?queue=whatsapp-cloud-send&reason=undeliverable"):
        assert (await door.call("GET", f"/v1/dead-letters{query}", key=key)).entries == [one.json]
    for query in ("?reason=crashed", "?queue=ai-processing"):
        assert (await door.call("GET", f"/v1/dead-letters{query}", key=key)).entries == []


async def test_the_operator_sees_the_dead_letters_of_all(door: Door, dead: uuid.UUID) -> None:
    assert [entry["id"] for entry in (await door.operator("GET", "/v1/dead-letters")).entries] == [str(dead)]
    other = uuid.uuid4()
    assert (await door.operator("GET", f"/v1/dead-letters?customerId={other}")).entries == []
    assert (await door.operator("POST", f"/v1/dead-letters/{dead}/replay?customerId={other}")).status == 404


async def test_a_replayed_dead_letter_is_the_same_job_waiting_again(
    door: Door, scene: Scene, dead: uuid.UUID, key: str
) -> None:
    answer = await door.call("POST", f"/v1/dead-letters/{dead}/replay", key=key)
    assert (answer.status, answer.json) == (202, {"id": str(dead), "queue": "whatsapp-cloud-send", "state": "WAITING"})
    (row,) = await scene.fetch("SELECT state, generation, attempts FROM all_jobs WHERE id = $1", dead)
    assert (row["state"], row["generation"], row["attempts"]) == ("WAITING", 1, 0)
    assert await scene.outbound() == [("From 7 am.", "QUEUED")]

    async def published() -> bool:
        return (await door.app.broker.states("whatsapp-cloud-send", [f"{dead}-1"])) != [None]

    await until(published, what="the job in BullMQ")
    assert (await door.call("POST", f"/v1/dead-letters/{dead}/replay", key=key)).problem == (404, "not_found")


async def test_one_that_cannot_be_replayed_now_says_why(door: Door, scene: Scene, dead: uuid.UUID, key: str) -> None:
    await scene.value("UPDATE messages SET status = 'DELIVERED' WHERE direction = 'OUTBOUND'")
    answer = await door.call("POST", f"/v1/dead-letters/{dead}/replay", key=key)
    assert answer.problem == (409, "not_replayable")
    assert "delivered" in str(answer.json["detail"])


async def test_a_discarded_dead_letter_is_gone(door: Door, scene: Scene, dead: uuid.UUID, key: str) -> None:
    assert (await door.call("DELETE", f"/v1/dead-letters/{dead}", key=key)).status == 204
    assert await scene.value("SELECT count(*) FROM all_jobs WHERE id = $1", dead) == 0
    assert (await door.call("DELETE", f"/v1/dead-letters/{dead}", key=key)).problem == (404, "not_found")


async def test_dead_letters_are_counted_in_the_metrics(door: Door, dead: uuid.UUID) -> None:
    text = (await door.call("GET", "/metrics")).body.decode()
    assert 'replyline_dead_letters{queue="whatsapp-cloud-send",reason="undeliverable"} 1.0' in text


async def test_a_queue_is_shown_paused_and_resumed(door: Door, scene: Scene) -> None:
    body = {
        "chatbotId": str(scene.chatbot.id),
        "externalUserId": "ana",
        "content": "hello",
        "channel": "WHATSAPP_CLOUD",
        "customerId": str(scene.customer.id),
    }
    assert (await door.operator("POST", "/v1/messages", json=body)).status == 202

    async def waiting() -> bool:
        return (await door.operator("GET", "/v1/queues/incoming-messages")).json["waiting"] == 1

    await until(waiting, what="the job in BullMQ")
    paused = await door.operator("POST", "/v1/queues/incoming-messages/pause")
    assert (paused.status, paused.json["paused"], paused.json["waiting"]) == (200, True, 1)
    resumed = await door.operator("POST", "/v1/queues/incoming-messages/resume")
    assert (resumed.json["paused"], resumed.json["waiting"]) == (False, 1)
    names = [entry["name"] for entry in (await door.operator("GET", "/v1/queues")).entries]
    assert (len(names), names[0], names[-1]) == (8, "incoming-messages", "dead-letter")
    oldest = resumed.json["oldestS"]
    assert isinstance(oldest, float)
    assert 0 <= oldest < 60
    assert (await door.operator("GET", "/v1/queues/none")).problem == (404, "not_found")


async def test_queues_without_redis_say_so(serve: Serve) -> None:
    async with serve(redis_url=f"redis://127.0.0.1:{free_port()}/0") as door:
        answer = await door.operator("GET", "/v1/queues")
        assert answer.problem == (503, "redis_unavailable")
        assert answer.headers["retry-after"] == "1"


async def test_a_dead_letter_is_replayed_while_redis_is_away(serve: Serve, scene: Scene, dead: uuid.UUID) -> None:
    async with serve(redis_url=f"redis://127.0.0.1:{free_port()}/0") as door:
        assert (await door.operator("POST", f"/v1/dead-letters/{dead}/replay")).status == 202
    assert await scene.value("SELECT state FROM all_jobs WHERE id = $1", dead) == "WAITING"

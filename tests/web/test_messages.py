"""The messages API: handing messages in, and following them."""

import asyncio
import json
import uuid

import pytest

from replyline.store.database import Database
from replyline.store.moves.setbacks import Setback
from tests.make import make_api_key, make_channel, make_chatbot, make_customer
from tests.proxy import FaultProxy
from tests.store.scene import Scene, failure, make_scene
from tests.web.conftest import Door, Serve, free_port


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_scene(database, "WIDGET")


@pytest.fixture
async def key(scene: Scene) -> str:
    return await make_api_key(scene.database, scene.customer.id)


def _message(scene: Scene, **more: object) -> dict[str, object]:
    return {
        "chatbotId": str(scene.chatbot.id),
        "externalUserId": "ana",
        "content": "Are you open?",
        "channel": "WIDGET",
        **more,
    }


async def _count(scene: Scene) -> object:
    return await scene.value("SELECT count(*) FROM all_jobs")


async def test_an_accepted_message_is_a_waiting_job(door: Door, scene: Scene, key: str) -> None:
    answer = await door.call("POST", "/v1/messages", key=key, json=_message(scene, contactName="Ana"))
    assert (answer.status, answer.json["duplicate"]) == (202, False)
    (row,) = await scene.fetch("SELECT id, queue, state, priority, message_id, trace_id, customer_id FROM all_jobs")
    assert [str(row["id"]), str(row["message_id"]), str(row["trace_id"])] == [
        answer.json["jobId"],
        answer.json["messageId"],
        answer.json["traceId"],
    ]
    assert (row["queue"], row["state"], row["priority"]) == ("incoming-messages", "WAITING", 3)
    assert row["customer_id"] == scene.customer.id


async def test_the_same_message_sent_five_times_at_once_is_one_job(door: Door, scene: Scene, key: str) -> None:
    body = _message(scene, externalMessageId="order-17")
    answers = await asyncio.gather(*(door.call("POST", "/v1/messages", key=key, json=body) for _ in range(5)))
    assert [answer.status for answer in answers] == [202] * 5
    assert len({str(answer.json["messageId"]) for answer in answers}) == 1
    assert sorted(str(answer.json["duplicate"]) for answer in answers) == ["False", "True", "True", "True", "True"]
    assert await _count(scene) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"content": ""}, "content"),
        ({"content": "x" * 65_537}, "content"),
        ({"content": "a\0b"}, "content"),
        ({"content": None}, "content"),
        ({"channel": "PIGEON"}, "channel"),
        ({"chatbotId": "a\nb"}, "chatbotId"),
        ({"conversationId": "a\tb"}, "conversationId"),
        ({"externalUserId": ""}, "externalUserId"),
        ({"externalMessageId": ""}, "externalMessageId"),
        ({"chatbotid": "misspelt"}, "chatbotid"),
        ({"messageId": str(uuid.uuid4())}, "messageId"),
    ],
)
async def test_a_message_that_does_not_fit_is_refused_by_the_field(
    door: Door, scene: Scene, key: str, change: dict[str, object], field: str
) -> None:
    answer = await door.call("POST", "/v1/messages", key=key, json=_message(scene, **change))
    assert answer.problem == (422, "invalid")
    errors = answer.json["errors"]
    assert isinstance(errors, list)
    assert errors[0]["field"] == field
    assert await _count(scene) == 0


async def test_half_an_emoji_is_replaced(door: Door, scene: Scene, key: str) -> None:
    body = _message(scene, content="cut HERE", contactName="Ana HERE")
    data = json.dumps(body).encode().replace(b"HERE", rb"\ud83d")
    answer = await door.call("POST", "/v1/messages", key=key, data=data, headers={"Content-Type": "application/json"})
    assert answer.status == 202
    (row,) = await scene.fetch("SELECT payload ->> 'content' AS text, payload ->> 'contactName' AS name FROM all_jobs")
    assert tuple(row) == ("cut \ufffd", "Ana \ufffd")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'"\\ud800"', b"[" * 100_000])
async def test_a_body_that_is_no_message_is_refused(door: Door, scene: Scene, key: str, data: bytes) -> None:
    answer = await door.call("POST", "/v1/messages", key=key, data=data, headers={"Content-Type": "application/json"})
    assert answer.status in {400, 422}
    assert answer.problem[0] == answer.status
    assert await _count(scene) == 0


async def test_a_message_needs_a_key_that_is_valid(door: Door, scene: Scene, key: str) -> None:
    for wrong in (None, "", "rk_wrong", key[:-1], f"{key}x", "Ω"):
        answer = await door.call("POST", "/v1/messages", key=wrong, json=_message(scene))
        assert answer.problem == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert await _count(scene) == 0


async def test_a_chatbot_of_another_customer_is_not_found(door: Door, scene: Scene) -> None:
    stranger = await make_api_key(scene.database, (await make_customer(scene.database)).id)
    answer = await door.call("POST", "/v1/messages", key=stranger, json=_message(scene))
    assert answer.problem == (404, "unknown_channel")
    named = await door.call(
        "POST", "/v1/messages", key=stranger, json=_message(scene, customerId=str(scene.customer.id))
    )
    assert named.problem == (404, "not_found")
    assert await _count(scene) == 0


async def test_one_of_several_channels_must_be_named(door: Door, scene: Scene, key: str) -> None:
    other = await make_channel(scene.database, scene.chatbot, "WIDGET")
    assert (await door.call("POST", "/v1/messages", key=key, json=_message(scene))).problem == (404, "unknown_channel")
    named = await door.call("POST", "/v1/messages", key=key, json=_message(scene, channelId=str(other.id)))
    assert named.status == 202


async def test_redis_away_does_not_matter(serve: Serve, scene: Scene, key: str) -> None:
    async with serve(redis_url=f"redis://127.0.0.1:{free_port()}/0") as door:
        assert (await door.call("POST", "/v1/messages", key=key, json=_message(scene))).status == 202
    assert await _count(scene) == 1


async def test_postgres_away_is_said_so(serve: Serve, scene: Scene, key: str, database_url: str) -> None:
    async with FaultProxy(database_url) as proxy, serve(database_url=proxy.url()) as door:
        assert (await door.call("POST", "/v1/messages", key=key, json=_message(scene))).status == 202
        proxy.refuse()
        await proxy.cut()
        for path in ("/v1/messages", "/v1/chatbots"):
            answer = await door.call("POST" if path == "/v1/messages" else "GET", path, key=key, json=_message(scene))
            assert answer.problem == (503, "store_unavailable")
            assert answer.headers["retry-after"] == "1"
    assert await _count(scene) == 1


async def test_messages_are_paged_newest_first(door: Door, scene: Scene, key: str) -> None:
    heard = [str(await scene.hear(f"message {n}")) for n in range(5)]
    first = await door.call("GET", "/v1/messages?limit=2", key=key)
    second = await door.call("GET", f"/v1/messages?limit=2&cursor={first.json['next']}", key=key)
    third = await door.call("GET", f"/v1/messages?limit=2&cursor={second.json['next']}", key=key)
    seen = [entry["id"] for answer in (first, second, third) for entry in answer.entries]
    assert seen == list(reversed(heard))
    assert third.json["next"] is None
    assert (await door.call("GET", "/v1/messages?limit=201", key=key)).problem == (422, "invalid")
    assert (await door.call("GET", "/v1/messages?status=%00", key=key)).problem == (422, "invalid")


async def test_the_timeline_is_there_before_the_message_is_saved(door: Door, scene: Scene, key: str) -> None:
    accepted = await door.call("POST", "/v1/messages", key=key, json=_message(scene))
    path = f"/v1/messages/{accepted.json['messageId']}"
    assert (await door.call("GET", path, key=key)).problem == (404, "not_found")
    answer = await door.call("GET", f"{path}/timeline", key=key)
    assert answer.status == 200
    jobs = answer.json["jobs"]
    assert isinstance(jobs, list)
    assert [(job["queue"], job["state"]) for job in jobs] == [("incoming-messages", "WAITING")]


async def test_stacks_are_shown_to_the_operator_only(door: Door, scene: Scene, key: str) -> None:
    accepted = await scene.accept("hello")
    await scene.moves.put_off(Setback(accepted.job_id, 5, "broken", failure("it broke")))
    path = f"/v1/messages/{accepted.message_id}/timeline"
    for answer, stack in ((await door.call("GET", path, key=key), ""), (await door.operator("GET", path), "stack")):
        jobs = answer.json["jobs"]
        assert isinstance(jobs, list)
        assert [(error["message"], error["stack"]) for error in jobs[0]["errors"]] == [("it broke", stack)]
        assert (jobs[0]["waitReason"], jobs[0]["attempts"]) == ("broken", 1)


async def test_conversations_show_who_wrote(door: Door, scene: Scene, key: str) -> None:
    await scene.hear("one")
    (entry,) = (await door.call("GET", "/v1/conversations", key=key)).entries
    assert (entry["channel"], entry["owner"], entry["lastSeq"]) == ("WIDGET", "BOT", 1)
    one = await door.call("GET", f"/v1/conversations/{entry['id']}", key=key)
    assert one.json == entry
    messages = await door.call("GET", f"/v1/messages?conversationId={entry['id']}", key=key)
    assert [message["content"] for message in messages.entries] == ["one"]
    chatbot = await make_chatbot(scene.database, scene.customer.id)
    assert (await door.call("GET", f"/v1/conversations?chatbotId={chatbot.id}", key=key)).entries == []


async def test_the_operator_names_a_customer_to_read_its_messages(door: Door, scene: Scene) -> None:
    message = await scene.hear("one")
    assert (await door.operator("GET", f"/v1/messages/{message}")).problem == (422, "customer_missing")
    named = await door.operator("GET", f"/v1/messages/{message}?customerId={scene.customer.id}")
    assert (named.status, named.json["content"]) == (200, "one")


async def test_a_server_may_use_its_own_names_for_chatbot_and_conversation(
    door: Door, database: Database, key: str, scene: Scene
) -> None:
    path = f"/v1/chatbots/{scene.chatbot.id}"
    named = await door.call("PATCH", path, key=key, json={"externalReference": "shop-bot"})
    assert (named.status, named.json["externalReference"]) == (200, "shop-bot")
    body = _message(scene, chatbotId="shop-bot", conversationId="cart-17")
    assert (await door.call("POST", "/v1/messages", key=key, json=body)).status == 202
    (row,) = await scene.fetch(
        "SELECT payload ->> 'chatbotId' AS bot, payload ->> 'conversationReference' AS named FROM all_jobs"
    )
    assert (row["bot"], row["named"]) == (str(scene.chatbot.id), "cart-17")

    stranger = await make_customer(database)
    foreign_key = await make_api_key(database, stranger.id)
    assert (await door.call("POST", "/v1/messages", key=foreign_key, json=body)).problem == (404, "unknown_channel")


async def test_a_reference_names_one_chatbot_of_the_deployment_and_can_be_taken_away(
    door: Door, database: Database, key: str, scene: Scene
) -> None:
    other = await make_chatbot(database, scene.customer.id)
    names = {"externalReference": "shop-bot"}
    assert (await door.call("PATCH", f"/v1/chatbots/{scene.chatbot.id}", key=key, json=names)).status == 200
    taken = await door.call("PATCH", f"/v1/chatbots/{other.id}", key=key, json=names)
    assert taken.problem == (409, "taken")
    made = await door.call("POST", "/v1/chatbots", key=key, json={"name": "third", **names})
    assert made.problem == (409, "taken")
    cleared = {"externalReference": None}
    assert (await door.call("PATCH", f"/v1/chatbots/{scene.chatbot.id}", key=key, json=cleared)).status == 200
    assert (await door.call("PATCH", f"/v1/chatbots/{other.id}", key=key, json=names)).status == 200


async def test_a_reference_with_control_characters_is_refused(door: Door, key: str, scene: Scene) -> None:
    for reference in ("", "a\nb", "a\0b", "x" * 256):
        answer = await door.call(
            "PATCH", f"/v1/chatbots/{scene.chatbot.id}", key=key, json={"externalReference": reference}
        )
        assert answer.problem == (422, "invalid")


async def test_an_id_used_again_for_another_content_is_a_conflict_and_never_a_lie(
    door: Door, scene: Scene, key: str
) -> None:
    first = await door.call("POST", "/v1/messages", key=key, json=_message(scene, externalMessageId="order-17"))
    body = _message(scene, externalMessageId="order-17", content="Something else")
    assert (await door.call("POST", "/v1/messages", key=key, json=body)).problem == (409, "taken")
    again = await door.call("POST", "/v1/messages", key=key, json=_message(scene, externalMessageId="order-17"))
    assert (again.status, again.json["messageId"]) == (202, first.json["messageId"])
    assert await _count(scene) == 1


async def test_an_empty_text_is_said_to_be_empty(door: Door, scene: Scene, key: str) -> None:
    answer = await door.call("POST", "/v1/messages", key=key, json=_message(scene, content=""))
    assert (answer.problem, answer.json["detail"]) == ((422, "invalid"), "content: must not be empty")


async def test_a_body_without_its_type_is_answered_by_what_to_send(door: Door, scene: Scene, key: str) -> None:
    body = json.dumps(_message(scene)).encode()
    answer = await door.call("POST", "/v1/messages", key=key, data=body, headers={"Content-Type": "text/plain"})
    assert answer.problem == (415, "unsupported_type")
    assert "Content-Type: application/json" in str(answer.json["detail"])

"""Callbacks: their signatures, their retries and what faults do to them, as our door gets them."""

import asyncio
import hashlib
import hmac

import msgspec
import pytest

from replyline.standins.callbacks import Callback, Callbacks
from replyline.standins.faults import Faults, read_faults
from tests.channels.far_end import Call, FarEnd, Hang, Say, closed_port
from tests.standins.side import APP_SECRET, GATEWAY_SECRET, NUMBER, SESSION, Side
from tests.waiting import until


def _statuses(call: Call) -> list[str]:
    body = msgspec.json.decode(call.body)
    values = [change["value"] for entry in body["entry"] for change in entry["changes"]]
    return [status["status"] for value in values for status in value["statuses"]]


def _texts(call: Call) -> list[str]:
    body = msgspec.json.decode(call.body)
    values = [change["value"] for entry in body["entry"] for change in entry["changes"]]
    return [message["text"]["body"] for value in values for message in value["messages"]]


async def _until_quiet(side: Side) -> None:
    async def quiet() -> bool:
        return (await side.counts()).waiting == 0

    await until(quiet, what="that no callback waits")


async def test_meta_signs_the_bytes_with_the_app_secret(cloud: Side, door: FarEnd) -> None:
    await cloud.tell("/_inbound", {"phone_number_id": NUMBER, "from": "16505551234", "text": "Grüße 👋"})
    (call,) = door.calls
    wanted = hmac.new(APP_SECRET.encode(), call.body, hashlib.sha256).hexdigest()
    assert call.headers["x-hub-signature-256"] == f"sha256={wanted}"
    assert call.headers["content-type"] == "application/json"
    assert call.body.isascii()


async def test_the_gateway_signs_the_time_and_the_bytes(qr: Side, door: FarEnd) -> None:
    await qr.tell("/_inbound", {"session": SESSION, "from": "16505551234", "text": "Grüße 👋"})
    (call,) = door.calls
    signed = call.headers["x-gateway-timestamp"].encode() + b"." + call.body
    wanted = hmac.new(GATEWAY_SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert call.headers["x-gateway-signature"] == f"v1={wanted}"


async def test_statuses_of_a_send_come_in_order(cloud: Side, door: FarEnd) -> None:
    await cloud.tell("/_configure", {"statuses": ["sent", "delivered", "read"]})
    await cloud.send_by_cloud()
    await until(lambda: len(door.calls) == 3)
    assert [_statuses(call) for call in door.calls] == [["sent"], ["delivered"], ["read"]]


async def test_a_callback_is_posted_again_until_it_is_taken(cloud: Side, door: FarEnd) -> None:
    door.then = [Say(503), Say(302, headers={"Location": f"{door.url}/elsewhere"}), Say(200)]
    await cloud.tell("/_configure", {"statuses": ["sent"], "retry": {"first_wait_s": 0.01}})
    await cloud.send_by_cloud()
    await _until_quiet(cloud)
    assert len(door.calls) == 3
    assert len({(call.path, call.body, call.headers["x-hub-signature-256"]) for call in door.calls}) == 1
    assert (await cloud.counts()).given_up == 0


async def test_each_wait_is_twice_the_one_before(cloud: Side, door: FarEnd) -> None:
    door.then = [Say(500)]
    await cloud.tell("/_configure", {"statuses": ["sent"], "retry": {"tries": 4, "first_wait_s": 0.1}})
    before = asyncio.get_running_loop().time()
    await cloud.send_by_cloud()
    await _until_quiet(cloud)
    assert asyncio.get_running_loop().time() - before >= 0.1 + 0.2 + 0.4
    assert len(door.calls) == 4


async def test_a_callback_that_is_never_taken_is_given_up(cloud: Side, door: FarEnd) -> None:
    door.then = [Say(500)]
    await cloud.tell("/_configure", {"statuses": ["sent"], "retry": {"first_wait_s": 0.01}})
    await cloud.send_by_cloud()
    await _until_quiet(cloud)
    counts = await cloud.counts()
    assert (len(door.calls), counts.posted, counts.given_up) == (5, 5, 1)


async def test_callbacks_survive_that_nobody_is_there(cloud: Side) -> None:
    async with closed_port() as url:
        number = {NUMBER: {"callback_url": f"{url}/cloud"}}
        await cloud.tell("/_configure", {"numbers": number, "retry": {"tries": 2, "first_wait_s": 0.01}})
        written = {"phone_number_id": NUMBER, "from": "16505551234", "text": "Hi", "id": "w"}
        said = await cloud.tell("/_inbound", written)
        await _until_quiet(cloud)
    assert said.json() == {"status": 0, "ids": ["w"]}
    counts = await cloud.counts()
    assert (counts.posted, counts.given_up) == (2, 1)


async def test_inbound_says_what_the_door_answered_and_tries_again(cloud: Side, door: FarEnd) -> None:
    door.then = [Say(503), Say(200)]
    await cloud.tell("/_configure", {"retry": {"first_wait_s": 0.01}})
    said = await cloud.tell("/_inbound", {"phone_number_id": NUMBER, "from": "16505551234", "text": "Hi", "id": "w"})
    assert said.json() == {"status": 503, "ids": ["w"]}
    await until(lambda: len(door.calls) == 2)
    assert door.calls[0].body == door.calls[1].body


async def test_inbound_can_come_several_times(cloud: Side, door: FarEnd) -> None:
    body = {"phone_number_id": NUMBER, "from": "16505551234", "text": "Hi", "times": 5}
    await cloud.tell("/_inbound", body)
    await until(lambda: len(door.calls) == 5)
    assert len({call.body for call in door.calls}) == 1


async def test_a_repeated_callback_is_the_same_bytes(cloud: Side, door: FarEnd) -> None:
    await cloud.tell("/_configure", {"statuses": ["sent"]})
    await cloud.fault("callback_repeat", repeat=4)
    await cloud.send_by_cloud()
    await _until_quiet(cloud)
    assert len(door.calls) == 4
    assert len({call.body for call in door.calls}) == 1


async def test_reordered_callbacks_come_last_first(cloud: Side, door: FarEnd) -> None:
    await cloud.tell("/_configure", {"statuses": ["sent", "delivered", "read"]})
    await cloud.fault("callback_reorder", size=3, within_s=60)
    await cloud.send_by_cloud()
    await until(lambda: len(door.calls) == 3)
    assert [_statuses(call) for call in door.calls] == [["read"], ["delivered"], ["sent"]]


async def test_batched_callbacks_come_in_one(cloud: Side, door: FarEnd) -> None:
    await cloud.fault("callback_batch", size=4, within_s=60)
    await cloud.send_by_cloud("one")
    await cloud.send_by_cloud("two")
    await until(lambda: door.calls)
    await _until_quiet(cloud)
    assert [_statuses(call) for call in door.calls] == [["sent", "delivered", "sent", "delivered"]]


async def test_a_batch_that_is_not_full_goes_when_its_time_is_up(cloud: Side, door: FarEnd) -> None:
    await cloud.fault("callback_batch", size=1000, within_s=0.1)
    await cloud.send_by_cloud()
    await _until_quiet(cloud)
    assert [_statuses(call) for call in door.calls] == [["sent", "delivered"]]


async def test_a_batch_of_two_accounts_keeps_them_apart(cloud: Side, door: FarEnd) -> None:
    other = {"access_token": "t2", "app_secret": APP_SECRET, "callback_url": f"{door.url}/cloud", "waba_id": "2"}
    await cloud.tell("/_configure", {"numbers": {"1002": other}})
    await cloud.fault("callback_batch", size=2, within_s=60)
    await cloud.tell("/_configure", {"statuses": ["sent"]})
    await cloud.send_by_cloud()
    await cloud.call(
        "POST",
        "/v25.0/1002/messages",
        {"messaging_product": "whatsapp", "to": "+16505551234", "text": {"body": "b"}},
        headers={"Authorization": "Bearer t2"},
    )
    await until(lambda: door.calls)
    entries = msgspec.json.decode(door.calls[0].body)["entry"]
    found = [(entry["id"], entry["changes"][0]["value"]["metadata"]["phone_number_id"]) for entry in entries]
    assert found == [("102290129340398", NUMBER), ("2", "1002")]


async def test_a_batch_is_of_one_secret(cloud: Side, door: FarEnd) -> None:
    other = {"access_token": "t2", "app_secret": "another app", "callback_url": f"{door.url}/cloud"}
    await cloud.tell("/_configure", {"numbers": {"1002": other}})
    await cloud.fault("callback_batch", size=100, within_s=0.1)
    written = {"from": "16505551234", "times": 2}
    await asyncio.gather(
        cloud.tell("/_inbound", {"phone_number_id": NUMBER, "text": "one", **written}),
        cloud.tell("/_inbound", {"phone_number_id": "1002", "text": "two", **written}),
    )
    await _until_quiet(cloud)
    secrets = {"one": APP_SECRET, "two": "another app"}
    for call in door.calls:
        wanted = hmac.new(secrets[_texts(call)[0]].encode(), call.body, hashlib.sha256).hexdigest()
        assert call.headers["x-hub-signature-256"] == f"sha256={wanted}"
    assert sorted(_texts(call) for call in door.calls) == [["one", "one"], ["two", "two"]]


async def test_a_delayed_callback_is_overtaken(cloud: Side, door: FarEnd) -> None:
    await cloud.fault("callback_delay", seconds=0.2, match={"contains": '"status":"sent"'})
    await cloud.send_by_cloud()
    await until(lambda: len(door.calls) == 2)
    assert [_statuses(call) for call in door.calls] == [["delivered"], ["sent"]]


async def test_a_dropped_callback_never_comes(cloud: Side, door: FarEnd) -> None:
    await cloud.fault("callback_drop", match={"contains": '"status":"sent"'})
    await cloud.send_by_cloud()
    await _until_quiet(cloud)
    assert [_statuses(call) for call in door.calls] == [["delivered"]]


async def test_faults_bend_what_people_write_too(cloud: Side, door: FarEnd) -> None:
    await cloud.fault("callback_drop", times=1)
    body = {"phone_number_id": NUMBER, "from": "16505551234", "text": "Hi"}
    assert (await cloud.tell("/_inbound", body)).json()["status"] == 0
    assert door.calls == []
    assert (await cloud.tell("/_inbound", body)).json()["status"] == 200


async def test_several_messages_of_people_come_in_one_callback(cloud: Side, door: FarEnd) -> None:
    messages = [{"from": "16505551234", "text": "one"}, {"from": "16505559999", "text": "two"}]
    said = await cloud.tell("/_inbound", {"phone_number_id": NUMBER, "messages": messages})
    assert [_texts(call) for call in door.calls] == [["one", "two"]]
    assert (said.json()["status"], len(msgspec.convert(said.json()["ids"], list[str]))) == (200, 2)


async def test_the_gateway_brings_several_messages_one_by_one(qr: Side, door: FarEnd) -> None:
    messages = [{"from": "16505551234", "text": "one"}, {"from": "16505559999", "text": "two"}]
    await qr.tell("/_inbound", {"session": SESSION, "messages": messages})
    events = [msgspec.json.decode(call.body) for call in door.calls]
    assert [(event["type"], event["session"], event["data"]["text"]) for event in events] == [
        ("message", SESSION, "one"),
        ("message", SESSION, "two"),
    ]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"phone_number_id": "9", "from": "1", "text": "Hi"}, "no such number"),
        ({"phone_number_id": NUMBER, "from": "1"}, "a message has a text"),
        ({"phone_number_id": NUMBER, "text": "Hi"}, "a message has a text, and `from` or `user_id`"),
        ({"phone_number_id": NUMBER, "from": "1", "text": "Hi", "times": 0}, "$.times"),
        ({"phone_number_id": NUMBER, "body": "Hi"}, "unknown field `body`"),
    ],
)
async def test_inbound_that_cannot_be_is_refused(cloud: Side, body: object, wrong: str) -> None:
    said = await cloud.call("POST", "/_inbound", body)
    assert said.status == 400
    assert wrong in str(said.json()["error"])


async def test_more_callbacks_than_may_wait_are_not_posted(door: FarEnd) -> None:
    door.then = [Hang()]
    callbacks: Callbacks[bytes] = Callbacks(Faults(), lambda items: items[0], lambda _, __: {}, most_waiting=2)
    for _ in range(3):
        callbacks.later(Callback(door.url, "", (b"{}",)))
    await until(lambda: len(door.calls) == 2)
    assert await callbacks.now(Callback(door.url, "", (b"{}",))) == 0
    assert (callbacks.counts().waiting, callbacks.counts().no_room) == (2, 2)
    await callbacks.close()
    assert callbacks.counts().waiting == 0


async def test_after_the_end_nothing_is_posted(door: FarEnd) -> None:
    callbacks: Callbacks[bytes] = Callbacks(Faults(), lambda items: items[0], lambda _, __: {})
    await callbacks.close()
    assert await callbacks.now(Callback(door.url, "", (b"{}",))) == 0
    assert (door.calls, callbacks.counts().waiting) == ([], 0)


async def test_who_waits_for_an_answer_hears_of_the_end(door: FarEnd) -> None:
    door.then = [Hang()]
    callbacks: Callbacks[bytes] = Callbacks(Faults(), lambda items: items[0], lambda _, __: {})
    waiting = asyncio.create_task(callbacks.now(Callback(door.url, "", (b"{}",))))
    await until(lambda: door.calls)
    await callbacks.close()
    assert await asyncio.wait_for(waiting, 5) == 0


async def test_who_waits_for_a_delayed_callback_hears_of_the_end(door: FarEnd) -> None:
    faults = Faults()
    faults.add(read_faults(b'{"kind": "callback_delay", "seconds": 60}'))
    callbacks: Callbacks[bytes] = Callbacks(faults, lambda items: items[0], lambda _, __: {})
    waiting = asyncio.create_task(callbacks.now(Callback(door.url, "", (b"{}",))))
    await until(lambda: callbacks.counts().waiting == 1)
    await callbacks.close()
    assert await asyncio.wait_for(waiting, 5) == 0
    assert door.calls == []

"""The stand-in for Meta answers as Meta does, and tells of its sends."""

import aiohttp
import msgspec
import pytest
from aiohttp import web

from replyline.standins.messaging import MAX_SENT, Sent
from replyline.standins.whatsapp_cloud import WhatsAppCloudStandin
from tests.channels.far_end import FarEnd, Say
from tests.standins.side import NUMBER, TOKEN, VERIFY_TOKEN, Side
from tests.waiting import until

_MESSAGES = f"/v25.0/{NUMBER}/messages"
_AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
_BODY = {"messaging_product": "whatsapp", "to": "+16505551234", "type": "text", "text": {"body": "Hi"}}


def _value(door: FarEnd, number: int = 0) -> dict[str, object]:
    body = msgspec.json.decode(door.calls[number].body)
    return msgspec.convert(body["entry"][0]["changes"][0]["value"], dict[str, object])


async def test_a_send_is_answered_as_meta_answers(cloud: Side) -> None:
    said = await cloud.send_by_cloud("Hi")
    (sent,) = await cloud.sent()
    assert (said.status, said.json()) == (
        200,
        {
            "messaging_product": "whatsapp",
            "contacts": [{"input": "+16505551234", "wa_id": "16505551234"}],
            "messages": [{"id": sent.id}],
        },
    )
    assert sent.id.startswith("wamid.")


async def test_people_see_messages_in_the_order_they_were_sent(cloud: Side) -> None:
    for text in ("one", "two", "three"):
        await cloud.send_by_cloud(text, biz_opaque_callback_data=f"id-{text}")
    seen = await cloud.sent()
    assert [(sent.to, sent.text, sent.our_id) for sent in seen] == [
        ("16505551234", text, f"id-{text}") for text in ("one", "two", "three")
    ]
    assert [sent.at for sent in seen] == sorted(sent.at for sent in seen)


async def test_what_people_have_seen_can_be_forgotten(cloud: Side) -> None:
    await cloud.send_by_cloud()
    await cloud.call("DELETE", "/_sent")
    assert await cloud.sent() == []


async def test_of_more_messages_than_may_be_kept_the_newest_stay(http: aiohttp.ClientSession) -> None:
    meta = WhatsAppCloudStandin()
    await meta.start("127.0.0.1", 0)
    for number in range(MAX_SENT + 1):
        meta.deliver(Sent(0.0, "1", str(number), "wamid", None))
    seen = await Side(meta.url, http).sent()
    await meta.close()
    assert (len(seen), seen[0].text, seen[-1].text) == (MAX_SENT, "1", str(MAX_SENT))


async def test_a_repeated_send_is_a_second_message(cloud: Side) -> None:
    for _ in range(2):
        await cloud.send_by_cloud("Hi", biz_opaque_callback_data="same")
    assert [sent.our_id for sent in await cloud.sent()] == ["same", "same"]


async def test_a_status_brings_our_own_id_back(cloud: Side, door: FarEnd) -> None:
    await cloud.send_by_cloud(biz_opaque_callback_data="msg-1")
    await until(lambda: door.calls)
    (sent,) = await cloud.sent()
    (status,) = msgspec.convert(_value(door)["statuses"], list[dict[str, object]])
    assert (status["id"], status["status"], status["recipient_id"]) == (sent.id, "sent", "16505551234")
    assert status["biz_opaque_callback_data"] == "msg-1"
    assert status["pricing"] == {"billable": True, "pricing_model": "PMP", "type": "regular", "category": "service"}
    assert str(status["timestamp"]).isdecimal()


async def test_a_status_without_our_id_has_none(cloud: Side, door: FarEnd) -> None:
    await cloud.send_by_cloud()
    await until(lambda: door.calls)
    assert b"biz_opaque_callback_data" not in door.calls[0].body


async def test_an_accepted_send_may_fail_later(cloud: Side, door: FarEnd) -> None:
    await cloud.fault("status_failed", code=131047)
    assert (await cloud.send_by_cloud(biz_opaque_callback_data="msg-1")).status == 200
    await until(lambda: door.calls)
    (status,) = msgspec.convert(_value(door)["statuses"], list[dict[str, object]])
    (error,) = msgspec.convert(status["errors"], list[dict[str, object]])
    assert (status["status"], status["biz_opaque_callback_data"]) == ("failed", "msg-1")
    assert (error["code"], error["title"]) == (131047, "Re-engagement message")
    assert await cloud.sent() == []


async def test_a_person_without_a_phone_number_can_be_written_to(cloud: Side, door: FarEnd) -> None:
    said = await cloud.send_by_cloud(to=None, recipient="US.13491208655302741918")
    await until(lambda: door.calls)
    (status,) = msgspec.convert(_value(door)["statuses"], list[dict[str, object]])
    assert said.json()["contacts"] == [{"input": "US.13491208655302741918", "user_id": "US.13491208655302741918"}]
    assert status["recipient_user_id"] == "US.13491208655302741918"


async def test_what_a_person_writes_is_in_metas_envelope(cloud: Side, door: FarEnd) -> None:
    written = {"phone_number_id": NUMBER, "from": "16505551234", "text": "Hi", "id": "wamid.1", "name": "Ana"}
    await cloud.tell("/_inbound", written)
    value = _value(door)
    (message,) = msgspec.convert(value["messages"], list[dict[str, object]])
    assert value["metadata"] == {"display_phone_number": "15550783881", "phone_number_id": NUMBER}
    assert value["contacts"] == [{"profile": {"name": "Ana"}, "wa_id": "16505551234"}]
    assert (message["from"], message["id"], message["type"], message["text"]) == (
        "16505551234",
        "wamid.1",
        "text",
        {"body": "Hi"},
    )


async def test_a_person_may_have_only_a_user_id(cloud: Side, door: FarEnd) -> None:
    await cloud.tell("/_inbound", {"phone_number_id": NUMBER, "user_id": "US.1349", "text": "Hi"})
    (message,) = msgspec.convert(_value(door)["messages"], list[dict[str, object]])
    assert (message.get("from"), message["from_user_id"]) == (None, "US.1349")


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        ({"messaging_product": None}, 100, 400),
        ({"messaging_product": "sms"}, 100, 400),
        ({"to": None}, 131008, 400),
        ({"to": "Ana"}, 131009, 400),
        ({"to": None, "recipient": "Ana"}, 131009, 400),
        ({"text": None}, 131008, 400),
        ({"text": {}}, 131008, 400),
        ({"text": {"body": ""}}, 100, 400),
        ({"text": {"body": "a" * 4097}}, 100, 400),
        ({"text": {"body": 1}}, 100, 400),
        ({"type": "image"}, 131008, 400),
        ({"type": "telegram"}, 100, 400),
        ({"recipient_type": "crowd"}, 100, 400),
        ({"biz_opaque_callback_data": "a" * 513}, 100, 400),
        ({"status": "read", "type": "text"}, 131008, 400),
    ],
    ids=str,
)
async def test_a_body_that_meta_refuses_is_refused(
    cloud: Side, change: dict[str, object], code: int, status: int
) -> None:
    said = await cloud.call("POST", _MESSAGES, {**_BODY, **change}, headers=_AUTHORIZED)
    assert (said.status, said.error()["code"]) == (status, code)
    assert await cloud.sent() == []


async def test_the_longest_text_is_taken(cloud: Side) -> None:
    assert (await cloud.send_by_cloud("ü" * 4096)).status == 200


async def test_a_required_field_that_is_not_there_is_named(cloud: Side) -> None:
    body = {"to": "+16505551234", "text": {"body": "Hi"}}
    error = (await cloud.call("POST", _MESSAGES, body, headers=_AUTHORIZED)).error()
    assert error["code"] == 131008
    assert "messaging_product" in str(error["error_data"])


async def test_a_body_that_is_not_json_is_refused(cloud: Side) -> None:
    said = await cloud.call("POST", _MESSAGES, b"to=1", headers=_AUTHORIZED)
    assert (said.status, said.error()["code"]) == (400, 100)


async def test_a_wrong_token_is_refused(cloud: Side) -> None:
    said = await cloud.send_by_cloud(token="stolen")
    assert (said.status, said.error()["code"], said.error()["type"]) == (401, 190, "OAuthException")


async def test_no_token_is_refused(cloud: Side) -> None:
    said = await cloud.call("POST", _MESSAGES, _BODY)
    assert (said.status, said.error()["code"]) == (403, 200)


async def test_a_token_of_another_number_does_not_reach_this_one(cloud: Side) -> None:
    await cloud.tell("/_configure", {"numbers": {"1002": {"access_token": "t2"}}})
    said = await cloud.send_by_cloud(token="t2")
    assert (said.status, said.error()["code"], said.error()["error_subcode"]) == (400, 100, 33)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v25.0/1/messages"),
        ("POST", f"/{NUMBER}/messages"),
        ("GET", f"/v25.0/{NUMBER}/messages"),
        ("DELETE", f"/v25.0/{NUMBER}"),
    ],
)
async def test_an_object_that_is_not_there_is_said_so(cloud: Side, method: str, path: str) -> None:
    said = await cloud.call(method, path, _BODY, headers=_AUTHORIZED)
    assert (said.status, said.error()["code"], said.error()["error_subcode"]) == (400, 100, 33)


async def test_a_message_can_be_marked_as_read(cloud: Side) -> None:
    body = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.1"}
    said = await cloud.call("POST", _MESSAGES, body, headers=_AUTHORIZED)
    assert (said.status, said.json()) == (200, {"success": True})
    assert await cloud.sent() == []


async def test_the_state_of_a_number_can_be_asked(cloud: Side) -> None:
    said = await cloud.call("GET", f"/v25.0/{NUMBER}?fields=status,display_phone_number", headers=_AUTHORIZED)
    assert said.json() == {"status": "CONNECTED", "display_phone_number": "15550783881", "id": NUMBER}


async def test_a_callback_url_that_gives_the_challenge_back_is_verified(cloud: Side, door: FarEnd) -> None:
    door.then = [Say(200, b"no challenge")]
    said = await cloud.tell("/_verify", {"phone_number_id": NUMBER})
    (call,) = door.calls
    assert (call.method, said.json()) == ("GET", {"status": 200, "verified": False})


async def test_the_verify_token_goes_along(cloud: Side) -> None:
    asked: list[dict[str, str]] = []

    async def challenged(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        return web.Response(text=request.query["hub.challenge"])

    server = web.Application()
    server.router.add_get("/door", challenged)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/door"
    await cloud.tell("/_configure", {"numbers": {NUMBER: {"callback_url": url}}})
    said = await cloud.tell("/_verify", {"phone_number_id": NUMBER})
    await runner.cleanup()
    (query,) = asked
    assert (query["hub.mode"], query["hub.verify_token"]) == ("subscribe", VERIFY_TOKEN)
    assert said.json() == {"status": 200, "verified": True}

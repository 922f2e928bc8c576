"""The stand-in for the QR gateway keeps our own contract."""

import aiohttp
import msgspec
import pytest

from tests.channels.far_end import FarEnd
from tests.standins.side import GATEWAY_TOKEN, SESSION, Side
from tests.waiting import until

_MESSAGES = "/v1/sessions/shop%2F1/messages"
_BODY = {"to": "16505551234@s.whatsapp.net", "type": "text", "text": "Hi"}
_AUTHORIZED = {"Authorization": f"Bearer {GATEWAY_TOKEN}", "Idempotency-Key": "m-1"}


def _event(door: FarEnd, number: int = 0) -> dict[str, object]:
    return msgspec.json.decode(door.calls[number].body, type=dict[str, object])


async def test_a_send_is_accepted_and_its_statuses_follow(qr: Side, door: FarEnd) -> None:
    said = await qr.send_by_qr("Hi", key="m-1")
    await until(lambda: len(door.calls) == 2)
    (sent,) = await qr.sent()
    assert (said.status, said.json()) == (202, {"message_id": "m-1", "wa_id": sent.id})
    assert (sent.to, sent.text, sent.our_id) == ("16505551234@s.whatsapp.net", "Hi", "m-1")
    statuses = [msgspec.convert(_event(door, number)["data"], dict[str, object]) for number in range(2)]
    assert [(status["wa_id"], status["message_id"], status["status"]) for status in statuses] == [
        (sent.id, "m-1", "sent"),
        (sent.id, "m-1", "delivered"),
    ]
    assert {key: _event(door)[key] for key in ("type", "session")} == {"type": "status", "session": SESSION}


async def test_a_repeated_send_is_one_message(qr: Side) -> None:
    first = await qr.send_by_qr("Hi", key="m-1")
    again = await qr.send_by_qr("Hi", key="m-1")
    assert (again.status, again.json()) == (200, first.json())
    assert len(await qr.sent()) == 1


async def test_a_send_whose_answer_was_lost_is_recognised(qr: Side) -> None:
    await qr.fault("cut_after_accept", times=1)
    with pytest.raises(aiohttp.ClientError):
        await qr.send_by_qr("Hi", key="m-1")
    again = await qr.send_by_qr("Hi", key="m-1")
    assert (again.status, len(await qr.sent())) == (200, 1)


async def test_an_accepted_send_may_fail_later(qr: Side, door: FarEnd) -> None:
    await qr.fault("status_failed")
    assert (await qr.send_by_qr()).status == 202
    await until(lambda: door.calls)
    status = msgspec.convert(_event(door)["data"], dict[str, object])
    assert (status["status"], status["error"]) == ("failed", {"code": "131026", "message": "told to fail"})
    assert await qr.sent() == []


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"to": None}, 422, "invalid"),
        ({"to": "Ana"}, 422, "invalid"),
        ({"type": "image"}, 422, "invalid"),
        ({"text": ""}, 422, "invalid"),
        ({"text": 1}, 422, "invalid"),
        ({"text": "a" * 65_537}, 422, "invalid"),
        ({"typing_ms": -1}, 422, "invalid"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_body_against_the_contract_is_refused(
    qr: Side, change: dict[str, object], status: int, code: str
) -> None:
    said = await qr.call("POST", _MESSAGES, {**_BODY, **change}, headers=_AUTHORIZED)
    assert (said.status, said.error()["code"], said.error()["retryable"]) == (status, code, False)
    assert await qr.sent() == []


async def test_a_send_without_an_id_is_refused(qr: Side) -> None:
    said = await qr.call("POST", _MESSAGES, _BODY, headers={"Authorization": f"Bearer {GATEWAY_TOKEN}"})
    assert (said.status, said.error()["code"]) == (422, "invalid")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer stolen"}], ids=str)
async def test_a_wrong_token_is_refused(qr: Side, headers: dict[str, str]) -> None:
    said = await qr.call("POST", _MESSAGES, _BODY, headers={**headers, "Idempotency-Key": "m-1"})
    assert (said.status, said.error()["code"]) == (401, "unauthorized")


async def test_a_session_that_is_not_there_is_said_so(qr: Side) -> None:
    said = await qr.call("POST", "/v1/sessions/other/messages", _BODY, headers=_AUTHORIZED)
    assert (said.status, said.error()["code"]) == (404, "unknown_session")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v2/sessions"), ("PATCH", "/v1/sessions/shop%2F1"), ("GET", _MESSAGES)]
)
async def test_a_route_that_is_not_there_is_said_so(qr: Side, method: str, path: str) -> None:
    said = await qr.call(method, path, headers=_AUTHORIZED)
    assert (said.status, said.error()["code"]) == (404, "not_found")


@pytest.mark.parametrize("state", ["logged_out", "banned"])
async def test_a_session_without_a_telephone_takes_nothing(qr: Side, state: str) -> None:
    await qr.tell("/_configure", {"sessions": {SESSION: {"state": state}}})
    said = await qr.send_by_qr()
    assert (said.status, said.error()["code"], said.error()["retryable"]) == (410, state, False)


async def test_a_key_is_for_one_message_only(qr: Side) -> None:
    await qr.send_by_qr("Hi", key="m-1")
    said = await qr.send_by_qr("Something else", key="m-1")
    assert (said.status, said.error()["code"], len(await qr.sent())) == (422, "key_reused", 1)


async def test_a_paced_session_tells_each_who_comes_too_early_its_time(qr: Side) -> None:
    await qr.tell("/_configure", {"sessions": {SESSION: {"pace_ms": 60_000}}})
    assert (await qr.send_by_qr(key="m-1")).status == 202
    said = await qr.send_by_qr(key="m-2")
    wait_ms = said.error()["retry_after_ms"]
    assert (said.status, said.error()["code"]) == (429, "paced")
    assert isinstance(wait_ms, int)
    assert 0 < wait_ms <= 60_000


async def test_a_session_is_made_paired_and_let_go(qr: Side, door: FarEnd) -> None:
    made = await qr.call(
        "PUT", "/v1/sessions/new", {"webhook_url": f"{door.url}/hook", "webhook_secret": "s" * 16, "label": "Shop"}
    )
    assert (made.status, made.json()["state"], made.json()["label"]) == (200, "qr", "Shop")
    code = made.json()["qr"]
    assert isinstance(code, dict)
    assert str(code["code"]).startswith("2@")
    paired = await qr.call("POST", "/v1/sessions/new/pair", {"phone": "4915112345678"})
    assert paired.json()["pairing_code"] is not None
    await qr.tell("/_scan", {"session": "new"})
    assert (await qr.call("POST", "/v1/sessions/new/pair", {"phone": "4915112345678"})).error()[
        "code"
    ] == "already_open"
    assert (await qr.call("POST", "/v1/sessions/new/logout")).json()["state"] == "logged_out"
    assert (await qr.call("DELETE", "/v1/sessions/new")).status == 204
    assert (await qr.call("GET", "/v1/sessions/new")).status == 404
    await until(lambda: len(door.calls) == 4)
    states = [msgspec.convert(_event(door, number)["data"], dict[str, object])["state"] for number in range(4)]
    assert sorted(map(str, states)) == ["logged_out", "open", "qr", "qr"]


@pytest.mark.parametrize("state", ["qr", "connecting", "closed"])
async def test_a_session_that_is_not_open_takes_nothing(qr: Side, state: str) -> None:
    await qr.tell("/_configure", {"sessions": {SESSION: {"state": state}}})
    said = await qr.send_by_qr()
    assert (said.status, said.error()["code"], said.error()["retry_after_ms"]) == (409, "not_connected", 1000)
    assert await qr.sent() == []


async def test_a_session_that_logs_out_says_so(qr: Side) -> None:
    await qr.call("POST", "/v1/sessions/shop%2F1/logout", headers=_AUTHORIZED)
    said = await qr.call("GET", "/v1/sessions/shop%2F1", headers=_AUTHORIZED)
    assert (said.json()["id"], said.json()["state"], said.json()["phone"]) == (SESSION, "logged_out", None)


@pytest.mark.parametrize("what", ["read", "typing"])
async def test_signs_of_life_are_taken(qr: Side, what: str) -> None:
    body = {"to": "1", "message_ids": ["3EB0A"]} if what == "read" else {"to": "1", "on": True}
    said = await qr.call("POST", f"/v1/sessions/shop%2F1/{what}", body, headers=_AUTHORIZED)
    assert said.status == 202
    (sign,) = msgspec.json.decode((await qr.call("GET", "/_presence")).raw, type=list[dict[str, object]])
    assert (sign["session"], sign["kind"], sign["to"]) == (SESSION, what, "1")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"session": "other", "from": "1", "text": "Hi"}, "no such session"),
        ({"session": SESSION, "from": "1"}, "a message has `from` and `text`"),
        ({"session": SESSION, "messages": [{"text": "Hi"}]}, "missing required field `from`"),
    ],
)
async def test_inbound_that_cannot_be_is_refused(qr: Side, body: object, wrong: str) -> None:
    said = await qr.call("POST", "/_inbound", body)
    assert said.status == 400
    assert wrong in str(said.json()["error"])

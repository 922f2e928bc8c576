"""Files, limits, the window and raw posts of Meta's stand-in: what the tests of the channels lean on."""

import base64
import time

import msgspec

from tests.channels.far_end import FarEnd
from tests.standins.side import APP_SECRET, NUMBER, TOKEN, Side
from tests.waiting import until

_AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


async def _described(cloud: Side, media_id: object) -> str:
    said = await cloud.call("GET", f"/v25.0/{media_id}?phone_number_id={NUMBER}", headers=_AUTHORIZED)
    assert said.status == 200
    return str(said.json()["url"]).removeprefix(cloud.url)


async def test_a_file_is_had_at_an_address_that_wants_the_token(cloud: Side) -> None:
    put = await cloud.tell(
        "/_media",
        {"phone_number_id": NUMBER, "mime_type": "image/jpeg", "data": base64.b64encode(b"picture").decode()},
    )
    first, second = [await _described(cloud, put.json()["id"]) for _ in range(2)]
    for address in (first, second):
        assert (await cloud.call("GET", address, headers=_AUTHORIZED)).raw == b"picture"
    assert (await cloud.call("GET", first)).status == 401
    assert (await cloud.call("GET", "/files/elsewhere", headers=_AUTHORIZED)).status == 404


async def test_a_number_and_a_pair_are_limited(cloud: Side) -> None:
    numbers = {NUMBER: {"messages_per_second": 3, "pair": {"burst": 1, "every_s": 60}}}
    await cloud.tell("/_configure", {"numbers": numbers})
    codes = []
    for number in range(5):
        said = await cloud.send_by_cloud(to=f"+1650555123{number % 2}")
        codes.append(said.error()["code"] if said.status != 200 else None)
    assert codes == [None, None, 131056, 130429, 130429]
    (refused,) = msgspec.json.decode((await cloud.call("GET", "/_limits")).raw, type=dict[str, dict[str, int]]).values()
    assert refused == {"throughput_refused": 2, "pair_refused": 1}


async def test_free_text_after_24_hours_of_silence_fails_and_a_template_does_not(cloud: Side, door: FarEnd) -> None:
    await cloud.tell("/_configure", {"statuses": ["sent"], "numbers": {NUMBER: {"window": True}}})
    inbound = {"phone_number_id": NUMBER, "from": "16505551234", "text": "Hi", "timestamp": time.time() - 90_000}
    await cloud.tell("/_inbound", inbound)
    await cloud.send_by_cloud()
    await until(lambda: len(door.calls) == 2)
    assert b"131047" in door.calls[1].body
    assert await cloud.sent() == []
    template = {"type": "template", "template": {"name": "hello", "language": {"code": "en_US"}}}
    body = {"messaging_product": "whatsapp", "to": "+16505551234", **template}
    assert (await cloud.call("POST", f"/v25.0/{NUMBER}/messages", body, headers=_AUTHORIZED)).status == 200
    assert [sent.text for sent in await cloud.sent()] == ["hello"]


async def test_anything_can_be_posted_signed_or_not(cloud: Side, door: FarEnd) -> None:
    for sign in ("right", "wrong", "none"):
        await cloud.tell("/_post", {"phone_number_id": NUMBER, "body": {"object": "x"}, "sign": sign})
    signatures = [call.headers.get("x-hub-signature-256") for call in door.calls]
    assert len({call.body for call in door.calls}) == 1
    assert signatures[2] is None
    assert signatures[0] != signatures[1]
    assert APP_SECRET not in str(signatures)


async def test_statuses_may_come_before_the_sends_own_answer(cloud: Side, door: FarEnd) -> None:
    await cloud.fault("status_first")
    await cloud.send_by_cloud()
    assert len(door.calls) == 2

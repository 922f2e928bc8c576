"""Mutated callbacks of real shape, rightly signed, through the door and the workers: none fails, none hides a good neighbour."""

import asyncio
import time
import uuid

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.channels.graph import change, envelope
from tests.channels.mutations import mutated
from tests.channels.test_whatsapp_cloud_content import CONTEXT, FULL
from tests.web.signed import post_cloud, post_qr
from tests.whatsapp.street import Open, Street

EDITED: dict[str, object] = {"type": "text", "text": {"body": "Hi there"}}
_UNANSWERABLE = {("whatsapp-cloud-send", "invalid_parameter"), ("whatsapp-cloud-send", "recipient_form_not_supported")}
"""What a mutated sender may well come to: a name that is no address of a person, which Meta refuses to send to."""


@pytest.fixture
def payloads(request: pytest.FixtureRequest) -> int:
    """How many mutations of a payload come in: more with `make chaos-channels`."""
    return 1000 if request.config.getoption("--chaos-full") else 100


def _payloads(original: object, count: int) -> list[bytes]:
    """So many mutations of one payload, as the library draws them."""
    found: list[bytes] = []

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(original))
    def collect(raw: bytes) -> None:
        found.append(raw)

    collect()
    return found


def _cloud_payload(number: str) -> dict[str, object]:
    """Something of every kind."""
    common: dict[str, object] = {"from": "16505551234", "from_user_id": "US.1349", "timestamp": str(int(time.time()))}
    messages = [
        common | {"id": "wamid.1", "type": "text", "text": {"body": "Hi"}, "context": {"id": "wamid.0"}},
        common | {"id": "wamid.2", "type": "image", "image": {"id": "9", "mime_type": "image/jpeg", "sha256": "x"}},
        common | {"id": "wamid.3", "type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": "👍"}},
        common | {"id": "wamid.4", "type": "revoke", "revoke": {"original_message_id": "wamid.1"}},
        common | {"id": "wamid.5", "type": "system", "system": {"type": "user_changed_number", "wa_id": "1650"}},
        common | {"id": "wamid.6", "type": "unsupported", "errors": [{"code": 131051}]},
        *(common | {"id": f"wamid.{kind}", "type": kind, **FULL[kind], **CONTEXT} for kind in sorted(FULL)),
        common | {"id": "wamid.7", "type": "edit", "edit": {"original_message_id": "wamid.text", "message": EDITED}},
    ]
    status = {
        "id": "wamid.9",
        "status": "failed",
        "timestamp": str(int(time.time())),
        "biz_opaque_callback_data": str(uuid.uuid4()),
        "errors": [{"code": 131026, "title": "t", "error_data": {"details": "d"}}],
        "pricing": {"category": "service", "type": "regular"},
    }
    contacts = [{"profile": {"name": "Ana"}, "wa_id": "16505551234", "user_id": "US.1349"}]
    echo: dict[str, object] = {"to": "16505551234", "id": "wamid.8", "timestamp": str(int(time.time())), "type": "edit"}
    echo |= {"edit": {"original_message_id": "wamid.0", "message": EDITED}}
    wish = {"wa_id": "16505551234", "category": "marketing_messages", "value": "stop", "timestamp": 1764000000}
    update = [{"user_id": {"previous": "US.1", "current": "US.2"}}]
    return envelope(
        change(number=number, contacts=contacts, messages=messages, statuses=[status]),
        change(number=number, field="user_id_update", user_id_update=update),
        change(number=number, field="smb_message_echoes", message_echoes=[echo]),
        change(number=number, field="user_preferences", contacts=contacts, user_preferences=[wish]),
        {"field": "account_update", "value": {"event": "ACCOUNT_RESTRICTION", "restriction_info": [{"expiration": 1}]}},
        {"field": "message_template_status_update", "value": {"event": "REJECTED", "message_template_id": 1}},
    )


async def test_no_mutated_callback_of_meta_fails_or_hides_what_is_good_beside_it(street: Open, payloads: int) -> None:
    async with street("WHATSAPP_CLOUD", config={"signs_of_life": "off", "waba_id": "102290129340398"}) as here:
        good: list[str] = []
        bodies: list[bytes] = []
        for number, raw in enumerate(_payloads(_cloud_payload(here.channel.external_id), payloads)):
            bodies.append(_with_neighbour(here, raw, number, good))
        answers = await asyncio.gather(*(post_cloud(here.door, here.channel, body) for body in bodies))
        assert {answer.status for answer in answers} == {200}
        assert len(good) > payloads / 4
        await _assert_all_came_through(here, good)


async def test_no_mutated_event_of_the_gateway_fails(street: Open, payloads: int) -> None:
    async with street("WHATSAPP_QR", config={"signs_of_life": "off"}) as here:
        data = {"id": "3EB0A", "from": "4917012345@s.whatsapp.net", "alt": "99@lid", "from_me": False, "type": "text"}
        data |= {"text": "Hi", "name": "Ana", "timestamp": time.time(), "target": None}
        event = {"id": "evt_1", "type": "message", "session": here.channel.external_id, "ts": 1.0, "data": data}
        answers = await asyncio.gather(*(post_qr(here.door, here.channel, raw) for raw in _payloads(event, payloads)))
        assert {answer.status for answer in answers} == {200}
        await here.until_at_rest(timeout_s=60)
        assert await here.dead() == []


def _with_neighbour(here: Street, raw: bytes, number: int, good: list[str]) -> bytes:
    """The mutated callback with a good change at its end, where it still has a place for one."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw
    if not isinstance(body, dict) or not isinstance(body.get("entry"), list) or not isinstance(body.get("object"), str):
        return raw
    text = {"from": f"49{number:010}", "id": f"wamid.good.{number}", "timestamp": str(int(time.time())), "type": "text"}
    message = text | {"text": {"body": f"good {number}"}}
    body["entry"].append({"id": "1", "changes": [change(number=here.channel.external_id, messages=[message])]})
    try:
        whole = msgspec.json.encode(body)
    except (ValueError, RecursionError):
        return raw
    good.append(f"good {number}")
    return whole


async def _assert_all_came_through(here: Street, good: list[str]) -> None:
    await here.until_at_rest(timeout_s=120)
    dead = {letter for letter in await here.dead() if letter[0] != "media-fetch"}
    assert dead <= _UNANSWERABLE, dead
    seen = await here.texts()
    assert sorted(text for text in seen if text.startswith("Echo: good")) == sorted(f"Echo: {text}" for text in good)


@pytest.mark.parametrize("kind", ["WHATSAPP_CLOUD", "WHATSAPP_QR"])
async def test_a_callback_too_large_is_refused_and_stored_nowhere(street: Open, kind: str) -> None:
    async with street(kind, settings={"max_body_bytes": 100_000}) as here:
        path = f"/callbacks/{kind.lower().replace('_', '-')}/{here.channel.channel_key}"
        assert (await here.door.call("POST", path, data=b"x" * 100_001)).status == 413
        assert await here.value("SELECT count(*) FROM unread_callbacks") == 0
        assert await here.value("SELECT count(*) FROM all_jobs") == 0

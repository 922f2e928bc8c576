"""What Evolution's webhook tells that the adapter must take for what it is, as its versions really post it."""

import io

import aiohttp
import msgspec
import pytest

from replyline.evolution.api import EvolutionApi, Unknown
from replyline.evolution.refusal import Refusal
from tests.channels.far_end import FarEnd, Say
from tests.evolution.scene import ANA, JID, Scene
from tests.waiting import until

OWN = "4915100000001@s.whatsapp.net"


async def told(scene: Scene) -> list[dict[str, object]]:
    """Everything that was told of messages, after one more that ends it."""
    assert await scene.hear(**{"from": JID}, text="the end", id="END") == 200
    await until(lambda: [one for one in scene.hook.of("message") if one["id"] == "END"])
    return [one for one in scene.hook.of("message") if one["id"] != "END"]


async def upsert(
    scene: Scene, message: dict[str, object], *, key: dict[str, object] | None = None, **more: object
) -> None:
    """A message as Evolution posts it."""
    data = {"key": {"remoteJid": JID, "fromMe": False, "id": "M1", **(key or {})}, "message": message, **more}
    assert await scene.hear(event="messages.upsert", data=data) == 200


async def post(scene: Scene, event: str, data: object) -> None:
    """An event that the stand-in would not take for one."""
    url, headers = await scene.webhook()
    body = io.BytesIO(msgspec.json.encode({"event": event, "instance": "shop", "data": data}))
    async with scene.http.post(url, data=body, headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "message",
    [
        {"reactionMessage": {"key": {"id": "T0"}, "text": "👍"}},
        {"pinInChatMessage": {"type": 1}},
        {"somethingNewMessage": {}},
        {"editedMessage": {"message": {"protocolMessage": {"type": 14, "key": {"id": "T0"}, "editedMessage": {}}}}},
    ],
    ids=lambda message: next(iter(message)),
)
async def test_what_the_business_does_on_its_own_telephone_is_not_the_persons(
    scene: Scene, message: dict[str, object]
) -> None:
    await upsert(scene, message, key={"fromMe": True})
    assert await told(scene) == []


async def test_whatsapps_own_notices_are_nobodys(scene: Scene) -> None:
    await upsert(scene, {"conversation": "Your security code changed"}, key={"remoteJid": "0@s.whatsapp.net"})
    assert await told(scene) == []


@pytest.mark.parametrize("where", ["key", "data"])
@pytest.mark.parametrize("name", ["senderPn", "participantPn", "remoteJidAlt"])
async def test_a_hidden_number_and_its_telephone_are_told_as_one_person(scene: Scene, name: str, where: str) -> None:
    key: dict[str, object] = {"remoteJid": "123@lid"}
    beside: dict[str, object] = {"sender": OWN}
    (key if where == "key" else beside)[name] = JID
    await upsert(scene, {"conversation": "Hi"}, key=key, **beside)
    (message,) = await told(scene)
    assert (message["from"], message["alt"]) == ("123@lid", JID)


async def test_an_edit_that_comes_as_if_it_were_ours_is_the_persons_whose_message_it_was(scene: Scene) -> None:
    await upsert(scene, {"conversation": "three"}, key={"remoteJid": "123@lid", "remoteJidAlt": JID, "id": "M1"})
    key = {"remoteJid": OWN, "fromMe": True, "id": "M1"}
    for words, at in (("two", "1"), ("two", "1"), ("one", "2")):
        data = {"key": key, "type": "MESSAGE_EDIT", "editedMessage": {"conversation": words}, "timestampMs": at}
        await scene.hear(event="messages.edited", data=data)
    edits = [one for one in await told(scene) if one["type"] == "edit"]
    assert [(one["from"], one["alt"], one["target"], one["text"]) for one in edits] == [
        ("123@lid", JID, "M1", "two"),
        ("123@lid", JID, "M1", "two"),
        ("123@lid", JID, "M1", "one"),
    ]
    assert edits[0]["id"] == edits[1]["id"] != edits[2]["id"], "the same edit again is one, another is another"


@pytest.mark.parametrize(
    "data",
    [
        {"key": {"remoteJid": OWN, "fromMe": True, "id": "M1"}, "type": "REVOKE"},
        {"type": "EPHEMERAL_SETTING", "ephemeralExpiration": 86400},
        {"type": "HISTORY_SYNC_NOTIFICATION"},
        {"key": {"remoteJid": JID, "fromMe": True, "id": "OURS"}, "type": 14, "editedMessage": {"conversation": "x"}},
        {"key": {"remoteJid": OWN, "fromMe": True, "id": "NEVER"}, "type": 14, "editedMessage": {"conversation": "x"}},
        {"key": {"remoteJid": JID, "fromMe": False, "id": "M1"}, "type": 14, "editedMessage": {"imageMessage": {}}},
    ],
    ids=["revoke", "timer", "history", "ours", "of an unknown message", "without words"],
)
async def test_what_comes_as_edited_and_is_no_persons_edit_is_nothing(scene: Scene, data: dict[str, object]) -> None:
    await upsert(scene, {"conversation": "Hi"})
    await upsert(scene, {"conversation": "From the telephone"}, key={"fromMe": True, "id": "OURS"})
    await scene.hear(event="messages.edited", data=data)
    assert [one["type"] for one in await told(scene)] == ["text", "text"]


@pytest.mark.parametrize(
    ("data", "revoked"),
    [
        ({"remoteJid": JID, "fromMe": False, "id": "M1"}, ["M1"]),
        ({"id": "db-row", "key": {"remoteJid": JID, "fromMe": False, "id": "M1"}, "status": "DELETED"}, ["M1"]),
        ({"id": "db-row", "key": {"remoteJid": JID, "fromMe": True, "id": "M1"}, "status": "DELETED"}, []),
        ({"remoteJid": "1203@g.us", "id": "M1", "participant": JID}, []),
    ],
)
async def test_a_person_takes_a_message_back(scene: Scene, data: dict[str, object], revoked: list[str]) -> None:
    await scene.hear(event="messages.delete", data=data)
    assert [one["target"] for one in await told(scene)] == revoked


@pytest.mark.parametrize(
    "update",
    [
        {"keyId": "ID", "fromMe": True, "status": "READ"},
        {"key": {"remoteJid": JID, "fromMe": True, "id": "ID"}, "update": {"status": 4}},
        [{"key": {"remoteJid": JID, "fromMe": True, "id": "ID"}, "update": {"status": 5}}],
    ],
    ids=["2.3", "older", "a list"],
)
async def test_a_status_is_read_in_the_words_of_every_version(scene: Scene, update: object) -> None:
    _, sent = await scene.send("Hello", "k1", to=ANA)
    data = str(sent["wa_id"])
    await post(scene, "messages.update", _named(update, data))
    await until(lambda: [one for one in scene.hook.of("status") if one["status"] == "read"])
    (read,) = [one for one in scene.hook.of("status") if one["status"] == "read"]
    assert (read["wa_id"], read["message_id"]) == (data, "k1")


def _named(update: object, wa_id: str) -> object:
    if isinstance(update, list):
        return [_named(one, wa_id) for one in update]
    if isinstance(update, dict):
        return {name: _named(one, wa_id) for name, one in update.items()}
    return wa_id if update == "ID" else update


async def test_a_code_that_stands_by_itself_is_shown(scene: Scene) -> None:
    await scene.hear(event="qrcode.updated", data={"code": "2@flat", "pairingCode": None, "base64": "data:,"})

    def shown() -> bool:
        codes = [one["qr"] for one in scene.hook.of("session") if isinstance(one["qr"], dict)]
        return any(code["code"] == "2@flat" for code in codes)

    await until(shown)


async def test_a_webhook_with_a_whole_file_in_it_is_taken(scene: Scene) -> None:
    key = {"remoteJid": JID, "fromMe": False, "id": "M1"}
    await post(scene, "messages.upsert", {"key": key, "message": {"imageMessage": {}, "base64": "A" * 6_000_000}})
    (message,) = await told(scene)
    assert message["type"] == "image"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (429, b"Too Many Requests", "paced"),
        (301, b"", "unavailable"),
        (408, b"", "unknown"),
        (502, b"<html>", "unknown"),
        (400, {"response": {"message": ["C"]}}, "unknown"),
        (400, {"response": {"message": ["Error: Timed Out"]}}, "unknown"),
        (400, {"response": {"message": [['instance requires property "number"']]}}, "invalid"),
    ],
)
async def test_what_a_proxy_or_a_cut_error_says_is_not_for_ever(status: int, body: object, code: str) -> None:
    async with FarEnd() as server, aiohttp.ClientSession() as http:
        server.then = [Say(status, body)]
        api = EvolutionApi(http, server.url, "k", timeout_s=5)
        with pytest.raises((Refusal, Unknown)) as raised:
            await api.send("shop", ANA, "Hi", reply_to=None, typing_ms=0)
    assert (raised.value.code if isinstance(raised.value, Refusal) else "unknown") == code

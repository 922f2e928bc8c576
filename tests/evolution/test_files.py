"""Files both ways through Evolution: whole, in base64, without ever handing Evolution an address of a customer's."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import msgspec
import pytest

from replyline.channels import CHANNELS, Outgoing
from replyline.contents import Media, MediaKind
from replyline.errors import Permanent, Temporary
from replyline.evolution.links import fetch_link
from replyline.evolution.refusal import Refusal
from replyline.ids import new_id
from replyline.jobs import MediaRef
from replyline.webhooks import open_webhook_session
from tests.channels.far_end import FarEnd, Say
from tests.evolution.scene import JID, Scene
from tests.waiting import until

PICTURE = bytes(range(256)) * 500


@pytest.fixture
async def shop() -> AsyncIterator[FarEnd]:
    """The customer's web server."""
    async with FarEnd() as server:
        server.then = [Say(200, PICTURE, {"Content-Type": "image/png"})]
        yield server


def fetched(scene: Scene, media_id: str) -> AsyncIterator[bytes]:
    """The file, as the queue of files asks for it."""
    return CHANNELS["WHATSAPP_QR"].fetch_media(scene.account, MediaRef(kind="image", provider_id=media_id), scene.http)


@dataclass
class Calls:
    """Whom Evolution was asked for a file."""

    by_id: int = 0
    whole: int = 0


async def calls(scene: Scene) -> Calls:
    """How often, by what."""
    found = Calls()
    for call in (await scene.evolution.calls()).calls:
        if "getBase64FromMediaMessage" in call.path:
            message = msgspec.convert(msgspec.convert(call.body, dict[str, object])["message"], dict[str, object])
            found.whole += "message" in message
            found.by_id += "message" not in message
    return found


async def hear_a_picture(scene: Scene, **instance: object) -> dict[str, object]:
    """Somebody sends a picture, which Evolution has."""
    files = {"P1": base64.b64encode(PICTURE).decode()}
    await scene.evolution.tell("/_configure", {"instances": {"shop": {"files": files, **instance}}})
    message = {
        "imageMessage": {"mimetype": "image/png", "caption": "Look", "mediaKey": "a2V5", "jpegThumbnail": "AAAA"}
    }
    data = {"key": {"remoteJid": JID, "fromMe": False, "id": "P1"}, "message": message}
    await scene.hear(event="messages.upsert", data=data)
    await until(lambda: scene.hook.of("message"))
    (told,) = scene.hook.of("message")
    return told


@pytest.mark.parametrize("keeps_messages", [True, False])
async def test_a_picture_is_fetched_by_its_id_or_by_the_whole_message(scene: Scene, keeps_messages: bool) -> None:
    told = await hear_a_picture(scene, keeps_messages=keeps_messages)
    assert told["media"] == {
        "id": "P1",
        "mime": "image/png",
        "size": None,
        "sha256": None,
        "filename": None,
        "seconds": None,
        "voice": False,
    }
    assert b"".join([chunk async for chunk in fetched(scene, "P1")]) == PICTURE
    assert await calls(scene) == Calls(1, 0 if keeps_messages else 1)


async def test_a_file_that_is_gone_or_was_never_sent_is_given_up(scene: Scene) -> None:
    await hear_a_picture(scene)
    await scene.evolution.tell("/_configure", {"instances": {"shop": {"files": {}}}})
    for media_id in ("P1", "NEVER"):
        with pytest.raises(Permanent) as raised:
            assert [chunk async for chunk in fetched(scene, media_id)] == []
        assert raised.value.reason == "unknown_media"


async def test_a_file_that_evolution_cannot_fetch_now_is_asked_for_again(scene: Scene) -> None:
    await hear_a_picture(scene)
    await scene.evolution.fault("error", code="socket hang up", status=400, match={"path": "/getBase64"}, times=2)
    with pytest.raises(Temporary):
        assert [chunk async for chunk in fetched(scene, "P1")] == []
    assert b"".join([chunk async for chunk in fetched(scene, "P1")]) == PICTURE


@pytest.mark.parametrize(
    ("kind", "mime", "caption"),
    [
        ("image", "image/png", "Our menu"),
        ("video", "video/mp4", "A film"),
        ("document", "application/pdf", "The offer"),
        ("audio", "audio/mpeg", ""),
        ("sticker", "image/webp", ""),
    ],
)
async def test_a_file_is_sent_once_and_evolution_is_given_its_bytes(
    kind: MediaKind, mime: str, caption: str, scene: Scene, shop: FarEnd
) -> None:
    shop.then = [Say(200, PICTURE, {"Content-Type": mime})]
    content = Media(kind=kind, link=f"{shop.url}/files/menu.x", caption="Our menu" if caption else None)
    if caption:
        content = Media(kind=kind, link=content.link, caption=caption)
    message = Outgoing(new_id(), JID, "in words", content, quotes="3EB0Q")
    accepted = await CHANNELS["WHATSAPP_QR"].send(scene.account, message, scene.http)
    assert await CHANNELS["WHATSAPP_QR"].send(scene.account, message, scene.http) == accepted
    (sent,) = await scene.evolution.sent()
    assert (sent.type, sent.text, sent.id, sent.context) == (kind, caption, accepted.external_id, "3EB0Q")
    assert msgspec.convert(sent.body, dict[str, object])["size"] == len(PICTURE)
    assert len(shop.calls) == 1
    await until(lambda: [one for one in scene.hook.of("status") if one["message_id"] == str(message.message_id)])


async def test_a_file_whose_send_was_not_answered_is_recognised_in_evolutions_report(
    scene: Scene, shop: FarEnd
) -> None:
    await scene.evolution.fault("cut_after_accept", match={"path": "/sendMedia"}, times=1)
    body = {"to": JID, "type": "media", "kind": "image", "link": f"{shop.url}/a.png", "caption": "Look"}
    status, _ = await scene.call("POST", "/messages", body, "k1")
    assert status == 409

    async def known() -> bool:
        return (await scene.call("POST", "/messages", body, "k1"))[0] == 200

    await until(known)
    assert len(await scene.evolution.sent()) == 1


@pytest.mark.parametrize(
    ("say", "code"),
    [
        (Say(404), "bad_link"),
        (Say(200, b"<html>", {"Content-Type": "text/html"}), "bad_link"),
        (Say(200, b"", {"Content-Type": "image/png"}), "bad_link"),
        (Say(302, headers={"Location": "/on"}), "bad_link"),
        (Say(200, b"x", {"Content-Type": "image/png", "Content-Length": "99000000"}), "too_large"),
        (Say(503), "unavailable"),
    ],
)
async def test_a_link_that_is_no_such_file_is_refused_and_nothing_is_sent(
    say: Say, code: str, scene: Scene, shop: FarEnd
) -> None:
    shop.then = [say]
    body = {"to": JID, "type": "media", "kind": "image", "link": f"{shop.url}/a.png"}
    _, answer = await scene.call("POST", "/messages", body, "k1")
    assert msgspec.convert(answer["error"], dict[str, object])["code"] == code
    assert await scene.evolution.sent() == []
    shop.then = [Say(200, PICTURE, {"Content-Type": "image/png"})]
    assert (await scene.call("POST", "/messages", body, "k1"))[0] == 202, "the key is free again"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_link_inside_the_network_is_not_followed(host: str, shop: FarEnd) -> None:
    port = shop.url.rpartition(":")[2]
    async with open_webhook_session(allow_private=False, timeout_s=5) as http:
        with pytest.raises(Refusal) as raised:
            await fetch_link(http, f"http://{host}:{port}/a.png", "image")
    assert raised.value.code == "bad_link"
    assert shop.calls == []


@pytest.mark.parametrize(
    "more", [{"kind": "poem"}, {"link": "file:///etc/passwd"}, {"caption": "x" * 1025}, {"type": "x"}]
)
async def test_what_is_no_file_is_invalid(scene: Scene, more: dict[str, object]) -> None:
    body = {"to": JID, "type": "media", "kind": "image", "link": "https://shop.example/a", **more}
    assert (await scene.call("POST", "/messages", body, "k1"))[0] == 422


async def test_no_file_is_handed_over_without_the_token(scene: Scene) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{scene.adapter_url}/v1/sessions/shop/media/P1") as response:
        assert response.status == 401

"""Files both ways through the real gateway: from WhatsApp into our store, and from a customer's link to WhatsApp."""

import base64
import hashlib
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from tests.channels.far_end import FarEnd, Say
from tests.gateway.conftest import JID, Shop
from tests.waiting import until

PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 800
SHA256 = hashlib.sha256(PICTURE)


@pytest.fixture
async def web_server() -> AsyncIterator[FarEnd]:
    """Where the customer keeps files."""
    async with FarEnd() as server:
        server.then = [Say(200, PICTURE, {"Content-Type": "image/png"})]
        yield server


async def hear_a_picture(shop: Shop, message_id: str) -> None:
    """Somebody sends a picture, which WhatsApp has."""
    file = {
        "url": "https://mmg.whatsapp.net/v/a.enc",
        "directPath": "/v/a.enc",
        "mediaKey": base64.b64encode(bytes(32)).decode(),
        "mimetype": "image/jpeg",
        "caption": "Is this fresh?",
        "fileLength": len(PICTURE),
        "fileSha256": base64.b64encode(SHA256.digest()).decode(),
    }
    encoded = base64.b64encode(PICTURE).decode()
    await shop.gateway.script(shop.door.http, shop.session, "file", id=message_id, base64=encoded)
    await shop.gateway.hear_message(
        shop.door.http, shop.session, {"imageMessage": file}, jid=JID, message_id=message_id
    )


async def test_a_picture_comes_from_whatsapp_into_our_store(shop: Shop) -> None:
    await shop.pair()
    await hear_a_picture(shop, "A1")

    async def stored() -> bool:
        return await shop.value("SELECT state FROM media") == "STORED"

    await until(stored, timeout_s=20)
    media_id = await shop.value("SELECT id FROM media")
    fetched = await shop.door.call("GET", f"/v1/media/{media_id}", key=shop.key)
    assert (fetched.status, fetched.body) == (200, PICTURE)
    assert await shop.value("SELECT content FROM messages WHERE direction = 'INBOUND'") == "[image] Is this fresh?"
    assert [line.id for line in shop.folder.lines("download")] == ["A1"]


async def test_a_picture_is_had_from_the_gateway_that_took_the_session_over(shop: Shop) -> None:
    await shop.pair()
    await hear_a_picture(shop, "A1")
    await until(lambda: _state(shop, "STORED"), timeout_s=20)
    shop.gateway.kill()
    await shop.move_to(await shop.folder.start())
    await shop.hear_when_open()
    await hear_a_picture(shop, "A2")
    await until(lambda: _state(shop, "STORED", count=2), timeout_s=20)


async def _state(shop: Shop, state: str, count: int = 1) -> bool:
    return await shop.value(f"SELECT count(*) FROM media WHERE state = '{state}'") == count  # noqa: S608  a word of ours


async def test_a_file_goes_from_a_customers_link_to_whatsapp(shop: Shop, web_server: FarEnd) -> None:
    await shop.pair()
    await shop.hear("Hello", message_id="A1")
    await until(lambda: len(shop.arrived()) == 1, timeout_s=20)
    conversation = await shop.value("SELECT id FROM conversations")
    assert isinstance(conversation, UUID)
    content = {"type": "media", "kind": "image", "link": f"{web_server.url}/menu.png", "caption": "Our menu"}
    body = {"content": content}
    answer = await shop.door.call("POST", f"/v1/conversations/{conversation}/messages", key=shop.key, json=body)
    assert answer.status in {200, 201, 202}, answer.body
    await until(lambda: len(shop.arrived()) == 2, timeout_s=20)
    sent = shop.folder.lines("send")[-1]
    assert (sent.kind, sent.text, sent.sha256) == ("image", "Our menu", SHA256.hexdigest())

    async def delivered() -> bool:
        return await shop.value("SELECT status FROM messages WHERE role = 'agent'") == "DELIVERED"

    await until(delivered)
    assert len(web_server.calls) == 1

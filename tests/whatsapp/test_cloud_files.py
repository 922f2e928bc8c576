"""Files over WhatsApp Cloud from end to end: fetched, checked, kept, shown to the model, and what cannot be read."""

import base64

import msgspec
import pytest

from tests.waiting import until
from tests.whatsapp.street import Open, Street

CLOUD = "WHATSAPP_CLOUD"
PICTURE = b"\xff\xd8\xff\xe0 not much of a picture"


async def test_a_file_is_fetched_checked_and_kept_for_its_customer_alone(street: Open) -> None:
    async with street(CLOUD) as here:
        image = await _put(here, PICTURE)
        await here.do({"type": "image", "image": {**image, "mime_type": "image/jpeg", "caption": "Is this fresh?"}})
        await here.until_seen("Echo: \\[image] Is this fresh?".replace("\\", ""))
        await here.until_at_rest()
        (row,) = await here.rows("SELECT id, message_id, state, size, path FROM media")
        assert (row["state"], row["size"]) == ("STORED", len(PICTURE))
        listed = await here.call("GET", f"/v1/messages/{row['message_id']}/media")
        assert [one["state"] for one in msgspec.json.decode(listed.body, type=list[dict[str, object]])] == ["STORED"]
        fetched = await here.call("GET", f"/v1/media/{row['id']}")
        assert (fetched.status, fetched.body) == (200, PICTURE)
        assert fetched.headers["content-disposition"].startswith("attachment")
        assert (here.app.settings.data / "media" / row["path"]).read_bytes() == PICTURE


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"file_size": 50_000_000}, "media_too_large"),
        ({"mime_type": "application/x-msdownload"}, "media_type"),
        ({"sha256": "00" * 32}, "attempts_exhausted"),
        ({"expired": True}, "attempts_exhausted"),
    ],
)
async def test_a_file_that_is_not_what_it_was_said_to_be_is_not_kept(
    street: Open, lie: dict[str, object], reason: str
) -> None:
    settings = {"queues": {"media-fetch": {"waits_s": [0.01, 0.01], "jitter": 0}}}
    async with street(CLOUD, settings=settings) as here:
        image = await _put(here, PICTURE, **lie)
        await here.do({"type": "image", "image": {"id": image["id"], "caption": "Look"}})

        async def failed() -> bool:
            return await here.value("SELECT state FROM media") == "FAILED"

        await until(failed)
        assert await here.value("SELECT error_reason FROM media") == reason
        assert ("media-fetch", reason) in await here.dead()
        assert not list((here.app.settings.data / "media").rglob("*")) or not any(
            path.is_file() for path in (here.app.settings.data / "media").rglob("*")
        )
        await here.until_seen("Echo: [image] Look")


async def test_a_file_is_fetched_again_after_trouble(street: Open) -> None:
    settings = {"queues": {"media-fetch": {"waits_s": [0.05] * 5, "jitter": 0}}}
    async with street(CLOUD, settings=settings) as here:
        await here.fault(kind="error", status=503, body="<html>", times=1, match={"path": "/files/"})
        await here.fault(kind="cut_before", times=1, match={"path": "/files/"})
        image = await _put(here, PICTURE, redirect=True)
        await here.do({"type": "image", "image": {"id": image["id"]}})

        async def stored() -> bool:
            return await here.value("SELECT state FROM media") == "STORED"

        await until(stored)


async def test_a_model_that_can_look_is_shown_the_picture(street: Open) -> None:
    async with street(CLOUD, bot={"vision": True}) as here:
        image = await _put(here, PICTURE)
        await here.do({"type": "image", "image": {"id": image["id"], "mime_type": "image/jpeg", "caption": "Fresh?"}})
        await here.until_at_rest()
        calls = await _openai(here)
        shown = base64.b64encode(PICTURE).decode()
        assert f"data:image/jpeg;base64,{shown}" in msgspec.json.encode(calls[-1]["body"]).decode()


async def test_a_turn_does_not_wait_long_for_a_picture_that_does_not_come(street: Open) -> None:
    async with street(CLOUD, bot={"vision": True}, settings={"media_wait_s": 0.6}) as here:
        await here.fault(kind="slow", seconds=5, match={"path": "/files/"})
        image = await _put(here, PICTURE)
        await here.do({"type": "image", "image": {"id": image["id"], "caption": "Fresh?"}})
        await here.until_seen("Echo: [image] Fresh?", timeout_s=4)
        assert await here.value("SELECT state FROM media") == "PENDING"


async def _openai(here: Street) -> list[dict[str, object]]:
    async with here.door.http.get(f"{here.standins.urls['openai']}/_calls") as response:
        page = msgspec.json.decode(await response.read(), type=dict[str, object])
    return msgspec.convert(page["calls"], list[dict[str, object]])


async def _put(here: Street, data: bytes, **lies: object) -> dict[str, object]:
    body = {
        "phone_number_id": here.channel.external_id,
        "mime_type": "image/jpeg",
        "data": base64.b64encode(data).decode(),
        **lies,
    }
    return msgspec.convert(await here.tell("_media", body), dict[str, object])

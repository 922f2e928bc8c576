"""What a deleted customer or channel leaves elsewhere goes too: files, and sessions at the gateway."""

import base64

import msgspec
import pytest

from replyline.app import open_app
from replyline.store import deletions
from replyline.store.channel_forms import ChannelTaken
from replyline.store.database import Database
from replyline.worker.deletions import delete_left_behind
from tests.make import make_channel, make_chatbot, make_customer
from tests.running import settings_for
from tests.waiting import until
from tests.whatsapp.street import Open, Street

PICTURE = b"\xff\xd8\xff a picture"


async def _session_status(here: Street) -> int:
    url = f"{here.standins.urls['qr_gateway']}/v1/sessions/{here.channel.external_id}"
    headers = {"Authorization": "Bearer qr-gateway-token"}
    async with here.door.http.get(url, headers=headers) as response:
        return response.status


@pytest.mark.parametrize("through", ["channel", "chatbot", "customer"])
async def test_a_session_is_deleted_at_its_gateway_with_its_channel_although_the_gateway_was_away(
    street: Open, through: str
) -> None:
    """Failed before: the session stayed at the gateway, its telephone paired, for whoever named it next."""
    async with street("WHATSAPP_QR") as here:
        assert await _session_status(here) == 200
        await here.fault(kind="error", status=503, body="{}", times=1, match={"path": here.channel.external_id})
        if through == "customer":
            answer = await here.door.operator("DELETE", f"/v1/customers/{here.chatbot.customer_id}")
        else:
            id_ = here.channel.id if through == "channel" else here.chatbot.id
            answer = await here.call("DELETE", f"/v1/{through}s/{id_}")
        assert answer.status == 204

        async def tried() -> bool:
            return await here.value("SELECT last_error FROM sessions_to_delete") is not None

        await until(tried)
        assert await _session_status(here) == 200
        other = await make_chatbot(here.database, (await make_customer(here.database)).id)
        with pytest.raises(ChannelTaken, match="still being deleted"):
            await make_channel(here.database, other, "WHATSAPP_QR", external_id=here.channel.external_id)
        await here.rows("UPDATE sessions_to_delete SET try_at = now()")

        async def forgotten() -> bool:
            return await here.value("SELECT count(*) FROM sessions_to_delete") == 0

        await until(forgotten)
        assert await _session_status(here) == 404


async def test_the_files_of_a_deleted_customer_are_deleted(street: Open) -> None:
    """Failed before: rows went, and what people had sent stayed on disk."""
    async with street("WHATSAPP_CLOUD") as here:
        body = {
            "phone_number_id": here.channel.external_id,
            "mime_type": "image/jpeg",
            "data": base64.b64encode(PICTURE).decode(),
        }
        image = msgspec.convert(await here.tell("_media", body), dict[str, object])
        await here.do({"type": "image", "image": {"id": image["id"]}})

        async def stored() -> bool:
            return await here.value("SELECT state FROM media") == "STORED"

        await until(stored)
        file = here.app.settings.data / "media" / str(await here.value("SELECT path FROM media"))
        assert file.read_bytes() == PICTURE
        await here.until_at_rest()
        answer = await here.door.operator("DELETE", f"/v1/customers/{here.chatbot.customer_id}")
        assert answer.status == 204

        async def gone() -> bool:
            return await here.value("SELECT count(*) FROM files_to_delete") == 0 and not file.exists()

        await until(gone, timeout_s=40)


async def test_a_file_that_cannot_be_deleted_now_is_deleted_later(
    database: Database, database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("media")
    (place / "a").write_text("in the way: a file where a folder should be")
    async with open_app(settings_for(valkey_url, database_url, media_url=str(place))) as app:
        await deletions.note_file(database, "a/b/c")
        await delete_left_behind(app)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT tries FROM files_to_delete WHERE try_at > now()") == 1
            (place / "a").unlink()
            (place / "a" / "b").mkdir(parents=True)
            (place / "a" / "b" / "c").write_text("x")
            await connection.execute("UPDATE files_to_delete SET try_at = now()")
        await delete_left_behind(app)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM files_to_delete") == 0
        assert not (place / "a" / "b" / "c").exists()


async def test_a_file_that_cannot_be_deleted_keeps_no_other_from_it(
    database: Database, database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("media")
    (place / "a").write_text("in the way: a file where a folder should be")
    async with open_app(settings_for(valkey_url, database_url, media_url=str(place))) as app:
        await deletions.note_file(database, "a/b/c")
        for number in range(40):
            await deletions.note_file(database, f"gone-{number}")
        async with database.connection() as connection:
            await connection.execute("UPDATE files_to_delete SET tries = 3 WHERE path = 'a/b/c'")
        await delete_left_behind(app)
    async with database.connection() as connection:
        left = await connection.fetch(
            "SELECT path, try_at > now() + interval '10 minutes' AS late FROM files_to_delete"
        )
    assert [tuple(row) for row in left] == [("a/b/c", True)]

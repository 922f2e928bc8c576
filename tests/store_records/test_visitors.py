"""Visitors and their tokens: kept as long as they are used, and no longer."""

import uuid

from replyline.store import media, visitors
from replyline.store.database import Database
from replyline.store.media import Upload
from replyline.store.visitors import Visitor, VisitorKind
from tests.store.scene import Scene, make_scene


async def _arrive(scene: Scene, *, kind: VisitorKind, identity: str) -> tuple[Visitor, str]:
    visitor, token = await visitors.arrive(scene.database, channel_id=scene.channel.id, kind=kind, identity=identity)
    assert visitor is not None
    return visitor, token


async def test_a_token_is_good_as_long_as_it_is_used(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    visitor, token = await _arrive(scene, kind="visitor", identity="v_1")
    await scene.fetch("UPDATE visitor_tokens SET expires_at = now() + interval '1 hour'")
    again = await visitors.come_back(database, visitor)
    assert again == visitor
    left = await scene.value("SELECT extract(epoch FROM expires_at - now())::float8 FROM visitor_tokens")
    assert isinstance(left, float)
    assert left > visitors.KEPT_S - 60
    await scene.fetch("UPDATE visitor_tokens SET expires_at = now() - interval '1 second'")
    assert await visitors.by_token(database, token, channel_id=scene.channel.id) is None
    assert await visitors.by_token_id(database, visitor.token_id) is None


async def test_a_visitor_has_a_bounded_number_of_tokens(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    made = [await _arrive(scene, kind="external", identity="u1") for _ in range(visitors.MOST_TOKENS + 3)]
    assert len({visitor.id for visitor, _ in made}) == 1
    good = [await visitors.by_token(database, token, channel_id=scene.channel.id) is not None for _, token in made]
    assert good == [False] * 3 + [True] * visitors.MOST_TOKENS


async def test_what_is_over_is_cleared_away(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    old, _ = await _arrive(scene, kind="visitor", identity="v_old")
    new, token = await _arrive(scene, kind="visitor", identity="v_new")
    await scene.fetch("UPDATE visitors SET created_at = now() - interval '200 days' WHERE id = $1", old.id)
    await scene.fetch("UPDATE visitor_tokens SET expires_at = now() - interval '1 day' WHERE visitor_id = $1", old.id)
    async with database.connection() as connection:
        assert await visitors.purge(connection) == 2
    assert await visitors.by_token(database, token, channel_id=scene.channel.id) == new
    assert await scene.value("SELECT count(*) FROM visitors") == 1


async def test_a_server_of_the_customer_and_the_widget_meet_in_one_conversation(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    await scene.hear("from the server", sender="u1", identity_kind="external")
    visitor, _ = await _arrive(scene, kind="external", identity="u1")
    assert visitor.begun
    assert visitor.conversation_id == await scene.value("SELECT id FROM conversations")


async def test_a_file_that_no_message_came_for_is_forgotten_after_a_day(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    kept, gone = (
        Upload(uuid.uuid4(), scene.customer.id, scene.channel.id, "v_1", "image", "image/png", "a.png", "0" * 64, 9)
        for _ in range(2)
    )
    for one in (kept, gone):
        await media.keep_upload(database, one)
    await scene.fetch("UPDATE media SET created_at = now() - interval '25 hours' WHERE id = $1", gone.id)
    async with database.connection() as connection:
        assert await media.forget_old(connection, keep_s=30 * 86400) == 1
    assert [row["path"] for row in await scene.fetch("SELECT path FROM files_to_delete")] == [gone.path]
    assert [row["id"] for row in await scene.fetch("SELECT id FROM media")] == [kept.id]

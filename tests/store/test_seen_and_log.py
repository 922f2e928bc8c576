"""The log that pages read: places in the order in which they became visible, and what pages say of them."""

import asyncio

from replyline.store import conversation_log
from replyline.store.conversation_log import LogPlace
from replyline.store.database import Database
from replyline.store.moves.dead_letters import replay
from replyline.store.moves.seen import Seen, see
from replyline.store.outbox import Outbox
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, make_scene


async def _log(scene: Scene, after: int = 0) -> list[tuple[int, str]]:
    (row,) = await scene.fetch("SELECT id FROM conversations")
    found = await scene.reads.log(LogPlace(row["id"], scene.customer.id, after, 100))
    return [(entry.seq, entry.content) for entry in found]


async def _see(scene: Scene, up_to: int, status: str) -> int:
    (row,) = await scene.fetch("SELECT id FROM conversations")
    seen = Seen(row["id"], scene.customer.id, up_to, status)  # type: ignore[arg-type]
    async with scene.database.transaction() as connection:
        return await see(connection, seen, Outbox())


async def test_a_message_gets_its_place_when_it_becomes_visible(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    await scene.say("q1", "a1")
    await scene.hear("q2")
    assert await _log(scene) == [(1, "q1"), (2, "q2")]
    await scene.route()
    assert await _log(scene) == [(1, "q1"), (2, "q2"), (3, "a1")]
    assert await _log(scene, after=2) == [(3, "a1")]
    heads = await conversation_log.heads(database, scene.grown)
    assert [(head.last, head.owner) for head in heads.values()] == [(3, "BOT")]


async def test_every_growth_is_told_and_only_a_widgets(database: Database) -> None:
    scene, cloud = await make_scene(database, "WIDGET"), await make_scene(database)
    await scene.say("q1", "a1")
    assert len(scene.grown) == 1, "the question; the answer is not visible yet"
    await scene.route()
    assert len(scene.grown) == 2
    await cloud.say("q1", "a1")
    await cloud.route()
    assert cloud.grown == []
    assert (
        await cloud.value(
            "SELECT count(*) FROM messages WHERE log_seq IS NOT NULL AND channel_id = $1", cloud.channel.id
        )
        == 0
    )


async def test_an_answer_replayed_days_later_comes_at_the_end_of_the_log(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    await scene.say("q1", "a1")
    dead = await scene.fail_send("outgoing-messages")
    await scene.say("q2", "a2")
    await scene.route()
    assert [content for _, content in await _log(scene)] == ["q1", "q2", "a2"]
    outbox = Outbox()
    async with database.transaction() as connection:
        await replay(connection, dead, customer_id=scene.customer.id, outbox=outbox)
    await scene.route()
    assert await _log(scene, after=3) == [(4, "a1")], "a page that has read all the rest still gets it"


async def test_places_are_given_once_under_concurrent_writers(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    await scene.hear("first")
    people = [await scene.accept(f"n{number}") for number in range(30)]
    await asyncio.gather(*(scene.receive(one) for one in people))
    places = [seq for seq, _ in await _log(scene)]
    assert places == sorted(set(places))
    assert len(places) == 31


async def test_what_a_page_has_lifts_every_message_up_to_there_once(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    await make_webhook_endpoint(database, scene.customer.id, events=["message.delivered", "message.read"])
    for number in range(3):
        await scene.say(f"q{number}", f"a{number}")
        await scene.route()
    assert [content for _, content in await _log(scene)] == ["q0", "a0", "q1", "a1", "q2", "a2"]
    assert await _see(scene, 4, "READ") == 2
    assert await _see(scene, 6, "DELIVERED") == 1, "what was read stays read"
    assert await scene.outbound() == [("a0", "READ"), ("a1", "READ"), ("a2", "DELIVERED")]
    assert await _see(scene, 99, "READ") == 1
    assert await _see(scene, 99, "READ") == 0
    types = [row["type"] for row in await scene.fetch("SELECT type FROM webhook_events ORDER BY id")]
    assert types == ["message.read"] * 2 + ["message.delivered"] + ["message.read"]


async def test_a_page_of_another_customer_lifts_nothing(database: Database) -> None:
    scene, other = await make_scene(database, "WIDGET"), await make_scene(database, "WIDGET")
    await scene.say("q1", "a1")
    await scene.route()
    (row,) = await scene.fetch("SELECT id FROM conversations")
    async with database.transaction() as connection:
        assert await see(connection, Seen(row["id"], other.customer.id, 99, "READ"), Outbox()) == 0
    assert await scene.outbound() == [("a1", "SENT")]

"""Accepting and receiving: once, in order, in the right place."""

import asyncio

from replyline.store.database import Database
from replyline.store.moves.receive import Received
from tests.store.scene import make_scene


async def test_a_repeated_message_is_accepted_once_and_answers_with_the_first_ids(database: Database) -> None:
    scene = await make_scene(database)
    results = await asyncio.gather(*(scene.accept("hello", external_id="wamid.1") for _ in range(5)))
    assert len({result.job_id for result in results}) == 1
    assert sorted(result.duplicate for result in results) == [False, True, True, True, True]
    assert await scene.value("SELECT count(*) FROM all_jobs") == 1
    assert len(scene.published) == 1


async def test_a_message_received_twice_is_saved_once(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await scene.accept("hello")
    results = await asyncio.gather(*(scene.receive(accepted) for _ in range(3)))
    assert results.count(Received.SAVED) == 1
    assert results.count(Received.ALREADY_DONE) == 2
    assert await scene.value("SELECT count(*) FROM messages") == 1
    assert await scene.value("SELECT count(*) FROM usage_logs WHERE kind = 'message_received'") == 1


async def test_racing_first_messages_of_one_person_make_one_contact_and_one_conversation(database: Database) -> None:
    scene = await make_scene(database)
    accepted = [await scene.accept(f"m{number}") for number in range(10)]
    await asyncio.gather(*(scene.receive(one) for one in accepted))
    assert await scene.value("SELECT count(*) FROM contacts") == 1
    assert await scene.value("SELECT count(*) FROM conversations") == 1


async def test_another_person_does_not_wait_for_the_first(database: Database) -> None:
    scene = await make_scene(database)
    await scene.accept("from ana")
    other = await scene.accept("from bob", sender="bob")
    assert await scene.receive(other) is Received.SAVED


async def test_several_messages_make_one_turn(database: Database) -> None:
    scene = await make_scene(database)
    for number in range(4):
        await scene.hear(f"m{number}")
    _, turn = await scene.open_turn()
    assert turn.asked == ("m0", "m1", "m2", "m3")


async def test_a_newer_message_extends_the_quiet_window_up_to_its_maximum(database: Database) -> None:
    scene = await make_scene(database, quiet_window_s=4)
    await scene.hear("one")
    await scene.value("UPDATE jobs SET created_at = now() - interval '3 s', run_at = now() + interval '1 s'")
    await scene.hear("two")
    _, turn = await scene.open_turn()
    assert 3.5 < turn.due_in_s <= 4.0
    await scene.value("UPDATE jobs SET created_at = now() - interval '8 s' WHERE queue = 'ai-processing'")
    await scene.hear("three")
    _, turn = await scene.open_turn()
    assert turn.due_in_s <= 4.0
    await scene.value(
        "UPDATE jobs SET created_at = now() - interval '9 s', run_at = now() WHERE queue = 'ai-processing'"
    )
    await scene.hear("four")
    _, turn = await scene.open_turn()
    assert turn.due_in_s <= 1.0


async def test_a_conversation_that_a_human_owns_gets_no_turn(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("hello")
    await scene.value("UPDATE conversations SET owner = 'HUMAN', owner_epoch = owner_epoch + 1")
    await scene.value("DELETE FROM jobs WHERE queue = 'ai-processing'")
    await scene.hear("are you there?")
    assert await scene.waiting("ai-processing") == []
    assert await scene.value("SELECT count(*) FROM messages") == 2


async def test_a_named_conversation_of_another_customer_is_not_entered(database: Database) -> None:
    scene, other = await make_scene(database), await make_scene(database)
    await other.hear("secret")
    theirs = await other.value("SELECT id FROM conversations")
    accepted = await scene.accept("hello")
    await scene.value(
        "UPDATE jobs SET payload = payload || jsonb_build_object('conversationId', $1::text) WHERE id = $2",
        str(theirs),
        accepted.job_id,
    )
    await scene.receive(accepted)
    rows = await scene.fetch("SELECT content FROM messages WHERE conversation_id = $1", theirs)
    assert [row["content"] for row in rows] == ["secret"]


async def test_a_message_that_postgres_cannot_take_hurts_only_itself(database: Database) -> None:
    scene = await make_scene(database)
    accepted = [await scene.accept(f"m{number}", sender=f"p{number}") for number in range(12)]
    await scene.value(
        "UPDATE jobs SET payload = jsonb_set(payload, '{messageId}', 'null') WHERE id = $1", accepted[5].job_id
    )
    results = await asyncio.gather(*(scene.receive(one) for one in accepted), return_exceptions=True)
    failed = [number for number, result in enumerate(results) if isinstance(result, Exception)]
    assert failed == [5]
    assert await scene.value("SELECT count(*) FROM messages") == 11

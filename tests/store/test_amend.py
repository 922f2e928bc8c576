"""Edits, revokes, reactions and what cannot be read: kept, never answered by themselves, and taken note of by an answer."""

import pytest

from replyline.store.database import Database
from replyline.store.moves.answer import Answered
from replyline.store.sweep import purge_callbacks
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, make_scene


async def test_an_edited_message_is_answered_as_edited(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("Open at 6?", external_id="wamid.1")
    job_id, before = await scene.open_turn()
    await scene.hear("Open at 7?", external_id="wamid.2", kind="edit", target_id="wamid.1")
    assert await scene.answer(job_id, before, "Not at 6.") is Answered.SUPERSEDED
    job_id, after = await scene.open_turn()
    assert after.asked == ("Open at 7?",)
    assert await scene.answer(job_id, after, "Yes, at 7.") is Answered.COMMITTED
    assert await scene.outbound() == [("Yes, at 7.", "QUEUED")]


async def test_an_edit_of_an_answered_message_changes_the_record_and_asks_nothing(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await scene.accept("Open at 6?", external_id="wamid.1")
    await scene.receive(accepted)
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "No.")
    await scene.hear("Open at 7?", external_id="wamid.2", kind="edit", target_id="wamid.1")
    assert await scene.waiting("ai-processing") == []
    (row,) = await scene.fetch(
        "SELECT content, edited_at IS NOT NULL AS edited FROM messages WHERE direction = 'INBOUND'"
    )
    assert (row["content"], row["edited"]) == ("Open at 7?", True)


async def test_a_message_taken_back_while_it_is_answered_is_not_answered(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("My card is 4111…", external_id="wamid.1")
    job_id, turn = await scene.open_turn()
    await scene.hear("[deleted]", external_id="wamid.2", kind="revoke", target_id="wamid.1")
    assert await scene.answer(job_id, turn, "Thanks for your card number.") is Answered.SUPERSEDED
    job_id, nothing = await scene.open_turn()
    assert nothing.asked == ()
    assert await scene.answer(job_id, nothing) is Answered.COMMITTED
    assert await scene.outbound() == []
    assert await scene.waiting("ai-processing") == []
    (row,) = await scene.fetch("SELECT content, deleted_at IS NOT NULL AS gone FROM messages")
    assert (row["content"], row["gone"]) == ("", True)


async def test_what_remains_of_a_turn_is_answered_when_one_message_is_taken_back(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("one", external_id="wamid.1")
    await scene.hear("two", external_id="wamid.2")
    await scene.hear("[deleted]", external_id="wamid.3", kind="revoke", target_id="wamid.1")
    _, turn = await scene.open_turn()
    assert turn.asked == ("two",)


@pytest.mark.parametrize("kind", ["edit", "revoke"])
async def test_nobody_changes_what_another_person_wrote(database: Database, kind: str) -> None:
    scene = await make_scene(database)
    await scene.hear("mine", external_id="wamid.1")
    await scene.hear("changed", sender="mallory", external_id="wamid.2", kind=kind, target_id="wamid.1")
    assert await scene.value("SELECT content FROM messages WHERE external_id = 'wamid.1'") == "mine"


async def test_a_reaction_is_kept_and_not_answered(database: Database) -> None:
    scene = await make_scene(database)
    await scene.say("Open?", "From 7.")
    await scene.hear("[reaction] 👍", external_id="wamid.9", kind="reaction", target_id="wamid.1")
    assert await scene.waiting("ai-processing") == []
    assert await scene.value("SELECT count(*) FROM messages WHERE content = '[reaction] 👍'") == 1
    await scene.hear("And on Sunday?")
    _, turn = await scene.open_turn()
    assert turn.asked == ("And on Sunday?",)
    assert "[reaction] 👍" not in [said.text for said in turn.history]


async def test_what_cannot_be_read_is_apologised_for_once_an_hour(database: Database) -> None:
    scene = await make_scene(database)
    for number in range(3):
        await scene.hear("[unsupported]", external_id=f"wamid.{number}", kind="unsupported")
    assert await scene.outbound() == [(scene.chatbot.unsupported_text, "QUEUED")]
    assert await scene.waiting("ai-processing") == []
    await scene.fetch("UPDATE conversations SET unsupported_at = now() - interval '61 minutes'")
    await scene.hear("[unsupported]", external_id="wamid.9", kind="unsupported")
    assert len(await scene.outbound()) == 2


async def _content(scene: Scene, external_id: str) -> tuple[object, ...]:
    (row,) = await scene.fetch(
        "SELECT content, edited_at IS NOT NULL AS edited, deleted_at IS NOT NULL AS deleted FROM messages WHERE external_id = $1",
        external_id,
    )
    return tuple(row)


async def test_an_edit_that_comes_before_its_message_waits_for_it(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("Open at 7?", external_id="wamid.2", kind="edit", target_id="wamid.1")
    assert await scene.value("SELECT count(*) FROM messages") == 0
    await scene.hear("Open at 6?", external_id="wamid.1")
    assert await _content(scene, "wamid.1") == ("Open at 7?", True, False)
    _, turn = await scene.open_turn()
    assert turn.asked == ("Open at 7?",)
    assert await scene.value("SELECT count(*) FROM parked_amendments") == 0


async def test_of_the_changes_that_came_first_the_last_edit_counts_and_a_deletion_stands(database: Database) -> None:
    scene = await make_scene(database)
    for number, (text, kind, target) in enumerate(
        [
            ("one", "edit", "wamid.A"),
            ("two", "edit", "wamid.A"),
            ("[deleted]", "revoke", "wamid.B"),
            ("back again", "edit", "wamid.B"),
        ]
    ):
        await scene.hear(text, external_id=f"wamid.{number}", kind=kind, target_id=target)
    await scene.hear("first", external_id="wamid.A")
    await scene.hear("my card is 4111", external_id="wamid.B")
    assert await _content(scene, "wamid.A") == ("two", True, False)
    assert await _content(scene, "wamid.B") == ("", False, True)
    _, turn = await scene.open_turn()
    assert turn.asked == ("two",)


async def test_a_change_that_waits_is_the_persons_own(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("changed", sender="mallory", external_id="wamid.2", kind="edit", target_id="wamid.1")
    await scene.hear("mine", external_id="wamid.1")
    assert await _content(scene, "wamid.1") == ("mine", False, False)


async def test_an_edit_of_a_known_message_does_not_wait(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("[deleted]", external_id="wamid.2", kind="revoke", target_id="wamid.1")
    await scene.hear("one", external_id="wamid.1")
    await scene.hear("two", external_id="wamid.3", kind="edit", target_id="wamid.1")
    assert await _content(scene, "wamid.1") == ("", False, True)
    assert await scene.value("SELECT count(*) FROM parked_amendments") == 0


async def test_the_webhook_tells_the_words_as_they_were_changed(database: Database) -> None:
    scene = await make_scene(database)
    await make_webhook_endpoint(database, scene.customer.id, events=("message.received",))
    await scene.hear("Open at 7?", external_id="wamid.2", kind="edit", target_id="wamid.1")
    await scene.hear("Open at 6?", external_id="wamid.1")
    assert await scene.value("SELECT payload -> 'data' ->> 'content' FROM webhook_events") == "Open at 7?"


async def test_changes_of_messages_that_never_came_are_forgotten_after_the_days_meta_repeats_callbacks(
    database: Database,
) -> None:
    scene = await make_scene(database)
    for number in (1, 2):
        await scene.hear("x", external_id=f"wamid.{number}", kind="edit", target_id=f"wamid.T{number}")
    await scene.fetch(
        "UPDATE parked_amendments SET parked_at = now() - interval '8 days 1 hour' WHERE external_id = 'wamid.T1'"
    )
    async with database.connection() as connection:
        await purge_callbacks(connection, parked_s=600, unread_s=600)
    assert await scene.value("SELECT string_agg(external_id, ',') FROM parked_amendments") == "wamid.T2"

"""Edits, revokes, reactions and what cannot be read: kept, never answered by themselves, and taken note of by an answer."""

import pytest

from replyline.store.database import Database
from replyline.store.moves.answer import Answered
from tests.store.scene import make_scene


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

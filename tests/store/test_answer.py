"""Turns: answered once, superseded by what comes meanwhile, and never over a human's head."""

import asyncio

from replyline.store.database import Database
from replyline.store.moves.answer import Answered
from replyline.store.moves.give_up import Consequence, GivenUp, TurnGivenUp
from tests.store.scene import Scene, failure, make_scene, run_of


async def test_a_turn_answered_by_five_runs_is_said_once(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("hello")
    job_id, turn = await scene.open_turn()
    results = await asyncio.gather(*(scene.answer(job_id, turn, f"answer {number}") for number in range(5)))
    assert results.count(Answered.COMMITTED) == 1
    assert results.count(Answered.ALREADY_DONE) == 4
    assert len(await scene.outbound()) == 1
    assert await scene.value("SELECT count(*) FROM usage_logs WHERE kind = 'ai_answer'") == 5, "each call was paid for"


async def test_an_answer_overtaken_by_a_newer_message_is_asked_again_with_both(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("one")
    job_id, turn = await scene.open_turn()
    await scene.hear("two")
    assert await scene.answer(job_id, turn, "about one") is Answered.SUPERSEDED
    assert await scene.outbound() == []
    again, turn = await scene.open_turn()
    assert again == job_id
    assert turn.asked == ("one", "two")
    assert await scene.answer(job_id, turn, "about both") is Answered.COMMITTED
    assert await scene.outbound() == [("about both", "QUEUED")]


async def test_a_turn_superseded_twice_is_sent_anyway_and_the_rest_is_the_next_turn(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("one")
    for number in range(2):
        job_id, turn = await scene.open_turn()
        await scene.hear(f"more {number}")
        assert await scene.answer(job_id, turn, "late") is Answered.SUPERSEDED
    job_id, turn = await scene.open_turn()
    await scene.hear("and more")
    assert await scene.answer(job_id, turn, "said at last") is Answered.COMMITTED
    _, rest = await scene.open_turn()
    assert rest.asked == ("and more",)


async def test_every_provider_call_that_was_paid_for_is_billed_also_an_unused_one(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("one")
    job_id, turn = await scene.open_turn()
    await scene.hear("two")
    await scene.answer(job_id, turn, "unused")
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "used")
    assert await scene.value("SELECT count(*) FROM usage_logs WHERE kind = 'ai_answer'") == 2


async def test_an_answer_under_an_old_owner_epoch_is_not_said(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("hello")
    job_id, turn = await scene.open_turn()
    await scene.value("UPDATE conversations SET owner = 'HUMAN', owner_epoch = owner_epoch + 1")
    assert await scene.answer(job_id, turn, "too late") is Answered.OWNER_CHANGED
    assert await scene.outbound() == []
    assert await scene.waiting("ai-processing") == []


async def test_the_model_is_shown_what_was_said_but_never_our_fallback_texts(database: Database) -> None:
    scene = await make_scene(database)
    await scene.say("first question", "first answer")
    await scene.hear("second question")
    await _give_turn_up(scene)
    await scene.hear("third question")
    _, turn = await scene.open_turn()
    assert [said.text for said in turn.history] == ["first question", "first answer", "second question"]
    assert turn.asked == ("third question",)


async def test_a_turn_given_up_says_the_fallback_text_once_an_incident(database: Database) -> None:
    scene = await make_scene(database)
    for question in ("one", "two", "three"):
        await scene.hear(question)
        await _give_turn_up(scene)
    said = [content for content, _ in await scene.outbound()]
    assert said == [scene.chatbot.fallback_text]
    assert await scene.value("SELECT count(*) FROM all_jobs WHERE queue = 'ai-processing' AND state = 'DEAD'") == 3
    assert [job.queue for job in scene.published].count("dead-letter") == 3


async def test_an_incident_long_ago_is_another_one(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("one")
    await _give_turn_up(scene)
    await scene.value("UPDATE conversations SET fallback_at = now() - interval '11 minutes'")
    await scene.hear("two")
    await _give_turn_up(scene)
    assert len(await scene.outbound()) == 2


async def test_messages_that_came_while_a_turn_was_given_up_are_the_next_turn(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("one")
    job_id, turn = await scene.open_turn()
    await scene.hear("two")
    consequence = Consequence(
        conversation_id=turn.conversation_id, turn=TurnGivenUp(turn.after_seq, turn.through_seq, "sorry")
    )
    assert await scene.moves.give_up(GivenUp(run_of(job_id), "attempts_exhausted", failure(), consequence))
    _, following = await scene.open_turn()
    assert following.asked == ("two",)


async def _give_turn_up(scene: Scene) -> None:
    job_id, turn = await scene.open_turn()
    consequence = Consequence(
        conversation_id=turn.conversation_id,
        turn=TurnGivenUp(turn.after_seq, turn.through_seq, say=turn.fallback_text),
    )
    assert await scene.moves.give_up(GivenUp(run_of(job_id), "attempts_exhausted", failure(), consequence))


async def test_the_call_of_a_run_that_came_too_late_is_metered_too(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("q")
    job_id, turn = await scene.open_turn()
    assert await scene.answer(job_id, turn, "a") is Answered.COMMITTED
    assert await scene.answer(job_id, turn, "b") is Answered.ALREADY_DONE
    assert await scene.outbound() == [("a", "QUEUED")]
    assert await scene.value("SELECT count(*) FROM usage_logs WHERE kind = 'ai_answer'") == 2

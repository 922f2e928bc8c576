"""The timeline of a message: every step it caused, and why what waits does."""

import pytest

from replyline.ids import new_id
from replyline.store import timeline
from replyline.store.database import Database
from replyline.store.moves.give_up import Consequence, GivenUp, TurnGivenUp
from replyline.store.moves.setbacks import Setback
from replyline.store.timeline import Timeline
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, failure, make_scene, run_of


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_scene(database, "WHATSAPP_CLOUD")


async def _of(scene: Scene, message_id: object) -> Timeline:
    found = await timeline.trace(scene.database, message_id, customer_id=scene.customer.id)  # type: ignore[arg-type]
    assert found is not None
    return found


def _states(found: Timeline) -> list[tuple[str, str]]:
    return [(job.queue, job.state) for job in found.jobs]


async def test_a_message_is_followed_from_the_door_to_its_delivery(scene: Scene) -> None:
    await make_webhook_endpoint(scene.database, scene.customer.id, events=["message.sent"])
    accepted = await scene.accept("Are you open?")
    assert _states(await _of(scene, accepted.message_id)) == [("incoming-messages", "WAITING")]
    await scene.receive(accepted)
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "From 7 am.")
    await scene.route()
    await scene.send("wamid.1")
    found = await _of(scene, accepted.message_id)
    assert _states(found) == [
        ("incoming-messages", "DONE"),
        ("ai-processing", "DONE"),
        ("outgoing-messages", "DONE"),
        ("whatsapp-cloud-send", "DONE"),
        ("webhook-delivery", "WAITING"),
    ]
    assert [job.parent_id for job in found.jobs[1:4]] == [job.id for job in found.jobs[:3]]
    assert all(job.worker == "test-worker" and (job.run_s or 0) >= 0 for job in found.jobs[:4])
    assert [(message.direction, message.status) for message in found.messages] == [
        ("INBOUND", "RECEIVED"),
        ("OUTBOUND", "SENT"),
    ]
    assert [(event.type, event.status, event.attempts) for event in found.webhook_events] == [
        ("message.sent", "PENDING", 0)
    ]
    assert {found.trace_id} == {accepted.trace_id}


async def test_the_answer_has_the_same_timeline(scene: Scene) -> None:
    heard = await scene.hear("Are you open?")
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "From 7 am.")
    answer = await scene.value("SELECT id FROM messages WHERE direction = 'OUTBOUND'")
    assert _states(await _of(scene, answer)) == _states(await _of(scene, heard))


async def test_a_message_answered_together_with_others_shows_the_turn(scene: Scene) -> None:
    await scene.hear("Are you open?")
    second = await scene.hear("On Sundays, I mean.")
    waiting = await _of(scene, second)
    assert ("ai-processing", "WAITING") in _states(waiting)
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "No.")
    answered = await _of(scene, second)
    assert ("outgoing-messages", "WAITING") in _states(answered)
    assert [message.direction for message in answered.messages] == ["INBOUND", "INBOUND", "OUTBOUND"]
    third = await scene.hear("And today?")
    assert [message.direction for message in (await _of(scene, third)).messages] == ["INBOUND"]


async def test_a_turn_given_up_without_an_apology_is_shown_too(scene: Scene) -> None:
    await scene.hear("one")
    second = await scene.hear("two")
    job_id, turn = await scene.open_turn()
    await scene.value("UPDATE conversations SET fallback_at = now()")  # an apology was made a moment ago
    fate = Consequence(turn.conversation_id, turn=TurnGivenUp(turn.after_seq, turn.through_seq, "sorry"))
    assert await scene.moves.give_up(GivenUp(run_of(job_id), "attempts_exhausted", failure(), fate))
    found = await _of(scene, second)
    dead = [job for job in found.jobs if job.state == "DEAD"]
    assert [(job.queue, job.reason, job.errors[0].message) for job in dead] == [
        ("ai-processing", "attempts_exhausted", "it broke")
    ]


async def test_what_waits_says_why_and_since_when(scene: Scene) -> None:
    accepted = await scene.accept("hello")
    await scene.moves.put_off(Setback(accepted.job_id, 60, "rate_limited", failure("too fast")))
    (job,) = (await _of(scene, accepted.message_id)).jobs
    assert (job.wait_reason, job.attempts, job.wait_s, job.run_s) == ("rate_limited", 1, 0, None)
    assert job.run_at is not None
    assert 50 < (job.run_at - job.created_at).total_seconds() < 70
    await scene.value("UPDATE jobs SET run_at = now() - interval '5 seconds'")
    (job,) = (await _of(scene, accepted.message_id)).jobs
    assert 5 <= job.wait_s < 30


async def test_a_job_held_behind_another_has_no_time(scene: Scene) -> None:
    accepted = await scene.accept("hello")
    await scene.value("UPDATE jobs SET run_at = 'infinity', wait_reason = 'behind_earlier'")
    (job,) = (await _of(scene, accepted.message_id)).jobs
    assert (job.run_at, job.wait_reason) == (None, "behind_earlier")


async def test_a_dead_letter_of_the_door_is_found_by_its_message(scene: Scene) -> None:
    accepted = await scene.accept("hello")
    fate = Consequence()
    assert await scene.moves.give_up(GivenUp(run_of(accepted.job_id), "unreadable", failure(), fate))
    assert _states(await _of(scene, accepted.message_id)) == [("incoming-messages", "DEAD")]
    operator = await timeline.trace(scene.database, accepted.message_id, customer_id=None)
    assert operator is not None
    assert operator.customer_id == scene.customer.id


async def test_another_customers_message_has_no_timeline(scene: Scene) -> None:
    accepted = await scene.accept("hello")
    heard = await scene.hear("hello again", sender="ben")
    for message_id in (accepted.message_id, heard, new_id()):
        assert await timeline.trace(scene.database, message_id, customer_id=new_id()) is None


async def test_what_a_job_waited_for_is_kept_when_it_ends(database: Database) -> None:
    scene = await make_scene(database, quiet_window_s=3)
    heard = await scene.hear("hello")
    (turn,) = [job for job in (await _of(scene, heard)).jobs if job.queue == "ai-processing"]
    assert (turn.wait_reason, list(turn.waits)) == ("quiet_window", [])
    await scene.value("UPDATE jobs SET run_at = run_at - interval '4 s', wait_since = wait_since - interval '4 s'")
    for _ in range(2):
        await scene.moves.put_off(Setback(turn.id, 8, "retry", failure("too fast")))
        await scene.value("UPDATE jobs SET run_at = run_at - interval '9 s', wait_since = wait_since - interval '9 s'")
    job_id, opened = await scene.open_turn()
    await scene.answer(job_id, opened, "From 7 am.")
    (turn,) = [job for job in (await _of(scene, heard)).jobs if job.queue == "ai-processing"]
    assert (turn.state, turn.wait_reason, turn.wait_since) == ("DONE", None, None)
    assert [(wait.reason, round(wait.seconds), wait.times) for wait in turn.waits] == [
        ("quiet_window", 3, 1),
        ("retry", 16, 2),
    ]


async def test_of_the_waits_of_a_job_the_newest_ten_are_kept(scene: Scene) -> None:
    accepted = await scene.accept("hello")
    for number in range(13):
        await scene.moves.put_off(Setback(accepted.job_id, 0, f"reason {number}", None))
    (job,) = (await _of(scene, accepted.message_id)).jobs
    assert [wait.reason for wait in job.waits] == [f"reason {number}" for number in range(2, 12)]
    assert job.wait_reason == "reason 12"


async def test_a_message_is_found_by_every_id_that_people_meet(scene: Scene) -> None:
    heard = await scene.hear("Are you open?", external_id="wamid.in")
    job_id, opened = await scene.open_turn()
    await scene.answer(job_id, opened, "From 7 am.")
    await scene.route()
    await scene.send("wamid.out")
    found = await _of(scene, heard)
    reply = found.messages[1].id
    for wanted, message in (
        (str(heard), heard),
        (str(found.trace_id), heard),
        (str(found.jobs[0].id), heard),
        (f"{found.jobs[0].id}-0", heard),
        (f"{found.jobs[-1].id}-12", reply),
        ("wamid.in", heard),
        ("wamid.out", reply),
    ):
        assert await timeline.find_message(scene.database, wanted) == message, wanted
    for wanted in (str(new_id()), "wamid.other", ""):
        assert await timeline.find_message(scene.database, wanted) is None

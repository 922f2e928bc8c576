"""Only what waits is in `jobs`: what ended is kept apart, once, and known to the door and to whoever asks."""

import asyncio
from collections import Counter

import pytest

from replyline.store.database import Database
from replyline.store.moves import Moves
from replyline.store.moves.accept import Accept
from replyline.store.moves.dead_letters import replay
from replyline.store.moves.inbound_lane import Receive
from replyline.store.moves.receive import Received
from replyline.store.moves.setbacks import Setback
from replyline.store.outbox import Outbox
from tests.store.scene import Scene, failure, make_scene, run_of

_BATCH = 40


@pytest.fixture
async def scene(database: Database) -> Scene:
    """A customer with a widget's channel."""
    return await make_scene(database)


async def test_a_finished_job_is_kept_as_it_was_and_leaves_the_waiting_ones(scene: Scene) -> None:
    await scene.hear("hello", external_id="a")
    (turn_id, turn) = await scene.open_turn()
    before = (await scene.fetch("SELECT * FROM jobs WHERE id = $1", turn_id))[0]
    assert await scene.moves.put_off(Setback(turn_id, 0, "retry", failure()))
    await scene.answer(turn_id, turn, "hi")
    assert await scene.value("SELECT count(*) FROM jobs WHERE id = $1", turn_id) == 0
    (kept,) = await scene.fetch("SELECT * FROM finished_jobs WHERE id = $1", turn_id)
    same = ("queue", "name", "payload", "customer_id", "conversation_id", "message_id", "trace_id", "parent_id")
    assert [kept[name] for name in same] == [before[name] for name in same]
    assert (kept["attempts"], kept["worker"]) == (1, "test-worker")
    assert "retry" in kept["waits"]
    assert "it broke" in kept["errors"]
    assert kept["finished_at"] >= kept["created_at"]
    row = await scene.reads.job(turn_id)
    assert row is not None
    assert row.state == "DONE"


async def test_of_two_runs_that_finish_a_job_at_the_same_time_one_does(scene: Scene) -> None:
    for number in range(20):
        accepted = await scene.accept(f"m{number}", sender=f"s{number}")
        job = await scene.job(accepted.job_id)
        others = [Moves(scene.database, scene.published_by) for _ in range(3)]
        results = await asyncio.gather(
            *(moves.receive(Receive(run_of(accepted.job_id), job)) for moves in others)  # type: ignore[arg-type]
        )
        assert Counter(results) == {Received.SAVED: 1, Received.ALREADY_DONE: 2}
    assert await scene.value("SELECT count(*) FROM finished_jobs WHERE queue = 'incoming-messages'") == 20
    assert await scene.value("SELECT count(*) FROM messages") == 20


async def test_a_repeated_message_is_known_by_a_job_that_ended(scene: Scene) -> None:
    first = await scene.accept("hello", external_id="once")
    await scene.receive(first)
    again = await scene.accept("hello", external_id="once")
    assert (again.job_id, again.message_id, again.trace_id, again.duplicate) == (
        first.job_id,
        first.message_id,
        first.trace_id,
        True,
    )
    assert await scene.value("SELECT count(*) FROM all_jobs WHERE queue = 'incoming-messages'") == 1


async def test_a_repeated_message_is_known_by_its_dead_letter_and_what_came_with_it_goes_on(scene: Scene) -> None:
    first = await scene.accept("hello", external_id="once")
    await scene.value("UPDATE jobs SET state = 'DEAD', reason = 'broken' WHERE id = $1", first.job_id)
    scene.published.clear()
    again, new = await asyncio.gather(
        scene.accept("hello", external_id="once"), scene.accept("more", external_id="twice")
    )
    assert (again.job_id, again.duplicate, new.duplicate) == (first.job_id, True, False)
    (published,) = scene.published
    assert published.id == new.job_id


async def test_no_message_is_doubled_that_is_repeated_while_its_job_is_finished(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    batches = 100 if request.config.getoption("--chaos-full") else 8
    doors = [Moves(scene.database, scene.published_by) for _ in range(3)]
    workers = Moves(scene.database, scene.published_by)

    async def finish(row: Accept) -> None:
        accepted = await doors[0].accept(row)
        assert await workers.receive(Receive(run_of(accepted.job_id), row.job)) is Received.SAVED

    async def repeat(door: Moves, external_id: str, sender: str, times: int) -> None:
        for _ in range(times):
            await door.accept(scene.row("hello", sender=sender, external_id=external_id))

    for batch in range(batches):
        rows = [
            scene.row("hello", sender=f"s{batch}-{number}", external_id=f"{batch}-{number}") for number in range(_BATCH)
        ]
        await asyncio.gather(
            *(finish(row) for row in rows),
            *(
                repeat(door, str(row.job.external_message_id), row.job.external_user_id, 4)
                for door in doors[1:]
                for row in rows
            ),
        )
    keys = await scene.fetch(
        "SELECT count(*) AS jobs FROM all_jobs WHERE dedupe_key IS NOT NULL GROUP BY dedupe_key HAVING count(*) > 1"
    )
    assert keys == []
    assert await scene.value("SELECT count(*) FROM messages") == batches * _BATCH


async def test_a_replayed_job_that_was_held_for_too_long_gets_its_whole_time_again(scene: Scene) -> None:
    accepted = await scene.accept("hello")
    await scene.value(
        "UPDATE jobs SET held_by = $2, held_at = now() - interval '2 days', state = 'DEAD' WHERE id = $1",
        accepted.job_id,
        scene.channel.id,
    )

    outbox = Outbox()
    async with scene.database.transaction() as connection:
        await replay(connection, accepted.job_id, customer_id=scene.customer.id, outbox=outbox)
    (row,) = await scene.fetch("SELECT held_by, held_at, generation FROM jobs WHERE id = $1", accepted.job_id)
    assert (row["held_by"], row["held_at"], row["generation"]) == (None, None, 1)
    assert await scene.value("SELECT count(*) FROM dead_jobs") == 0
    assert [job.bullmq_id for job in outbox.jobs] == [f"{accepted.job_id}-1"]

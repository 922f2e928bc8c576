"""A send is claimed before its call: by one run, until that run says that it sent nothing, or its outcome stayed unknown."""

import asyncio
import uuid
from dataclasses import replace

import msgspec
import pytest

from replyline.store.database import Database
from replyline.store.moves.claim import Claim, Outbound, claim_repeat, mark_unknown
from replyline.store.moves.dead_letters import replay
from replyline.store.moves.health import Hold
from replyline.store.moves.setbacks import Setback
from replyline.store.moves.work import Run
from replyline.store.outbox import Outbox
from tests.store.scene import Scene, failure, make_scene, run_of


async def _sending(database: Database) -> tuple[Scene, uuid.UUID]:
    scene = await make_scene(database)
    await scene.say("q", "a")
    await scene.route()
    (job_id,) = await scene.waiting("whatsapp-cloud-send")
    return scene, job_id


async def _claim(scene: Scene, run: Run, *, repeat_is_safe: bool = False) -> Outbound:
    found = await scene.moves.claim(Claim(run, repeat_is_safe))
    assert found is not None
    return found


async def test_of_many_runs_at_once_one_may_send(database: Database) -> None:
    scene, job_id = await _sending(database)
    runs = [run_of(job_id) for _ in range(10)]
    found = await asyncio.gather(*(_claim(scene, run) for run in runs))
    assert sum(message.claimed for message in found) == 1
    (winner,) = (run for run, message in zip(runs, found, strict=True) if message.claimed)
    assert await scene.value("SELECT send_run FROM all_jobs WHERE id = $1", job_id) == winner.id
    later = await _claim(scene, run_of(job_id))
    assert (later.claimed, later.claimed_before) == (False, winner.id)


async def test_where_a_repeat_is_safe_the_claim_is_taken_over(database: Database) -> None:
    scene, job_id = await _sending(database)
    assert (await _claim(scene, run_of(job_id), repeat_is_safe=True)).claimed
    assert (await _claim(scene, run_of(job_id), repeat_is_safe=True)).claimed


async def test_a_run_whose_claim_was_committed_unheard_still_has_it(database: Database) -> None:
    scene, job_id = await _sending(database)
    run = run_of(job_id)
    assert [(await _claim(scene, run)).claimed for _ in range(2)] == [True, True]
    assert not (await _claim(scene, run_of(job_id))).claimed


async def test_a_failure_that_was_written_unheard_uses_one_attempt(database: Database) -> None:
    scene, job_id = await _sending(database)
    once = failure()
    for same in (once, once, msgspec.structs.replace(once, at="2026-11-24T10:00:00+00:00")):
        await scene.moves.put_off(Setback(job_id, 0, "retry", same))
    (row,) = await scene.fetch("SELECT attempts, jsonb_array_length(errors) FROM all_jobs WHERE id = $1", job_id)
    assert tuple(row) == (2, 2)


async def test_a_run_of_an_older_generation_gets_nothing(database: Database) -> None:
    scene, job_id = await _sending(database)
    await scene.fetch("UPDATE jobs SET generation = 2 WHERE id = $1", job_id)
    assert await scene.moves.claim(Claim(replace(run_of(job_id), generation=1), repeat_is_safe=True)) is None
    assert await scene.value("SELECT send_run FROM all_jobs WHERE id = $1", job_id) is None
    assert (await _claim(scene, replace(run_of(job_id), generation=2))).claimed


async def test_a_claim_ends_with_the_word_of_its_own_run_only(database: Database) -> None:
    scene, job_id = await _sending(database)
    first, second = run_of(job_id), run_of(job_id)
    assert (await _claim(scene, first)).claimed
    await scene.moves.put_off(Setback(job_id, 0, "outcome_unknown", None, None))
    await scene.moves.put_off(Setback(job_id, 0, "retry", None, second.id))
    assert not (await _claim(scene, second)).claimed
    await scene.moves.put_off(Setback(job_id, 0, "retry", None, first.id))
    assert (await _claim(scene, second)).claimed


@pytest.mark.parametrize("own", [True, False])
async def test_a_held_job_is_free_again_if_the_run_that_holds_it_had_claimed_it(database: Database, own: bool) -> None:
    scene, job_id = await _sending(database)
    first, second = run_of(job_id), run_of(job_id)
    await _claim(scene, first)
    await scene.fall_ill("token_invalid")
    await scene.moves.hold(Hold(first if own else second, scene.channel.id, "ill"))
    (row,) = await scene.fetch(
        "SELECT j.send_run IS NULL AS free, m.status FROM all_jobs j JOIN messages m ON m.id = j.message_id WHERE j.id = $1",
        job_id,
    )
    assert tuple(row) == ((True, "QUEUED") if own else (False, "SENDING"))


async def test_runs_that_waited_for_the_same_outcome_repeat_it_once(database: Database) -> None:
    scene, job_id = await _sending(database)
    message = await _claim(scene, run_of(job_id))
    async with database.connection() as connection:
        await mark_unknown(connection, message.message_id, customer_id=scene.customer.id)
    runs = [run_of(job_id) for _ in range(6)]
    seen = [await _claim(scene, run) for run in runs]

    async def repeat(run: Run, message: Outbound) -> bool:
        async with database.connection() as connection:
            return await claim_repeat(connection, run, message)

    assert sum(await asyncio.gather(*map(repeat, runs, seen))) == 1
    assert await scene.outbound() == [("a", "SENDING")]


async def test_a_status_that_came_first_leaves_nothing_to_repeat(database: Database) -> None:
    scene, job_id = await _sending(database)
    message = await _claim(scene, run_of(job_id))
    async with database.connection() as connection:
        await mark_unknown(connection, message.message_id, customer_id=scene.customer.id)
    later = run_of(job_id)
    found = await _claim(scene, later)
    assert await scene.report("wamid.1", "DELIVERED", message_id=message.message_id)
    async with database.connection() as connection:
        assert not await claim_repeat(connection, later, found)
    assert await scene.outbound() == [("a", "DELIVERED")]


async def test_a_replay_may_send_again(database: Database) -> None:
    scene, job_id = await _sending(database)
    await _claim(scene, run_of(job_id))
    dead = await scene.fail_send()
    assert dead == job_id
    async with database.transaction() as connection:
        await replay(connection, job_id, customer_id=scene.customer.id, outbox=Outbox())
    assert (await _claim(scene, replace(run_of(job_id), generation=1))).claimed


async def test_what_an_external_worker_was_given_is_not_free_until_its_outcome_stayed_unknown(
    database: Database,
) -> None:
    scene, job_id = await _sending(database)
    await scene.fetch("UPDATE jobs SET handed_over_at = now() WHERE id = $1", job_id)
    run = run_of(job_id)
    message = await _claim(scene, run)
    assert (message.claimed, message.handed_over) == (False, True)
    async with database.connection() as connection:
        await mark_unknown(connection, message.message_id, customer_id=message.customer_id)
        assert await claim_repeat(connection, run, message)
    await scene.moves.put_off(Setback(job_id, 0, "pace", None, nothing_sent_by=run.id))
    assert (await _claim(scene, run_of(job_id))).claimed, "its repeat sent nothing, and nobody else has it"

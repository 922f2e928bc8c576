"""A channel that is down holds its messages, tells its customer once, and sends them when it works again."""

import uuid

from replyline.store.database import Database
from replyline.store.moves.health import Held, Hold, due_patients, hold, overdue, release_forgotten, send_on_trial
from replyline.store.outbox import Outbox
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, make_scene, run_of


async def _hold(scene: Scene) -> Held:
    (job_id,) = await scene.waiting("whatsapp-cloud-send")
    async with scene.database.transaction() as connection:
        return (await hold(connection, [Hold(run_of(job_id), scene.channel.id, "token_invalid")], Outbox()))[0]


async def _sending(database: Database) -> Scene:
    scene = await make_scene(database)
    await scene.say("q", "a")
    await scene.route()
    return scene


async def test_a_held_message_waits_without_an_attempt_and_goes_on_when_the_channel_is_well(database: Database) -> None:
    scene = await _sending(database)
    assert await scene.fall_ill("token_invalid")
    assert await _hold(scene) is Held.HELD
    (row,) = await scene.fetch(
        "SELECT j.id, j.attempts, j.run_at = 'infinity' AS put_by, j.wait_reason, m.status, j.generation FROM all_jobs j "
        "JOIN messages m ON m.id = j.message_id WHERE j.queue = 'whatsapp-cloud-send'"
    )
    assert (row["attempts"], row["put_by"], row["status"]) == (0, True, "QUEUED")
    assert "token_invalid" in row["wait_reason"]
    (released,) = await scene.get_well()
    assert (released.id, released.generation) == (row["id"], row["generation"] + 1)
    assert await scene.send("wamid.1")
    assert await scene.outbound() == [("a", "SENT")]


async def test_a_channel_that_falls_ill_again_and_again_is_announced_once(database: Database) -> None:
    scene = await make_scene(database)
    await make_webhook_endpoint(database, scene.customer.id)
    assert [await scene.fall_ill("token_invalid") for _ in range(3)] == [True, False, False]
    await scene.get_well()
    rows = await scene.fetch("SELECT type, payload -> 'data' ->> 'error_reason' AS why FROM webhook_events ORDER BY id")
    assert [tuple(row) for row in rows] == [("channel.unhealthy", "token_invalid"), ("channel.healthy", None)]


async def test_no_job_is_held_by_a_channel_that_is_well_again(database: Database) -> None:
    scene = await _sending(database)
    assert await _hold(scene) is Held.CHANNEL_IS_WELL
    assert await scene.value("SELECT count(*) FROM all_jobs WHERE held_by IS NOT NULL") == 0


async def test_looks_at_a_channel_are_further_and_further_apart(database: Database) -> None:
    scene = await make_scene(database)
    await scene.fall_ill("payment_problem", probe_after_s=0)
    waits = []
    for _ in range(5):
        async with database.transaction() as connection:
            (patient,) = await due_patients(connection, first_s=10, longest_s=60)
            assert patient.reason == "payment_problem"
        waits.append(await scene.value("SELECT round(extract(epoch FROM probe_at - now()))::int FROM channels"))
        await scene.fetch("UPDATE channels SET probe_at = now()")
    assert waits == [10, 20, 40, 60, 60]


async def test_one_held_message_tries_while_the_others_wait(database: Database) -> None:
    scene = await make_scene(database)
    for sender in ("ana", "bob", "cem"):
        await scene.hear("q", sender=sender)
        for job_id in await scene.waiting("ai-processing"):
            job = await scene.job(job_id)
            assert job.conversation_id is not None
        job_id, turn = await scene.open_turn()
        await scene.answer(job_id, turn, "a")
        await scene.route()
    await scene.fall_ill("payment_problem")
    async with database.transaction() as connection:
        jobs = await scene.waiting("whatsapp-cloud-send")
        await hold(connection, [Hold(run_of(job_id), scene.channel.id, "payment_problem") for job_id in jobs], Outbox())
    outbox = Outbox()
    async with database.transaction() as connection:
        assert await send_on_trial(connection, scene.channel.id, outbox)
    assert [job.id for job in outbox.jobs] == jobs[:1]
    assert await scene.value("SELECT trial_job_id FROM channels") == jobs[0]
    assert await scene.value("SELECT count(*) FROM all_jobs WHERE held_by IS NOT NULL") == 2


async def test_what_a_well_channel_still_holds_is_found(database: Database) -> None:
    scene = await _sending(database)
    await scene.fall_ill("token_invalid")
    await _hold(scene)
    await scene.fetch("UPDATE channels SET health = 'HEALTHY'")  # as if the process had died before it let them go
    async with database.transaction() as connection:
        assert await release_forgotten(connection, Outbox()) == 1
        assert await release_forgotten(connection, Outbox()) == 0


async def test_what_is_held_for_too_long_is_found(database: Database) -> None:
    scene = await _sending(database)
    await scene.fall_ill("token_invalid")
    await _hold(scene)
    async with database.connection() as connection:
        assert await overdue(connection, longest_s=60) == []
        await connection.execute("UPDATE jobs SET held_at = now() - interval '2 minutes' WHERE held_by IS NOT NULL")
        (late,) = await overdue(connection, longest_s=60)
    assert isinstance(late.message_id, uuid.UUID)

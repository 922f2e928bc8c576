"""The lane: our messages of a conversation leave one at a time and in order, through failures and replays."""

from datetime import UTC, datetime

import pytest

from replyline.statuses import StatusUpdate
from replyline.store.database import Database
from replyline.store.moves.dead_letters import NotReplayable, discard, replay
from replyline.store.moves.settle import Settle
from replyline.store.moves.statuses import ReportedStatus
from replyline.store.outbox import Outbox
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, make_scene, run_of


async def test_the_second_message_waits_until_the_first_was_sent(database: Database) -> None:
    scene = await make_scene(database)
    await scene.say("q1", "a1")
    await scene.say("q2", "a2")
    assert len(await scene.waiting("outgoing-messages")) == 1
    await scene.route()
    assert await scene.outbound() == [("a1", "SENDING"), ("a2", "QUEUED")]
    assert await scene.waiting("outgoing-messages") == []
    await scene.send("wamid.1")
    assert await scene.outbound() == [("a1", "SENT"), ("a2", "QUEUED")]
    await scene.route()
    await scene.send("wamid.2")
    assert await scene.outbound() == [("a1", "SENT"), ("a2", "SENT")]
    assert await scene.value("SELECT lane_length FROM conversations") == 0


async def test_a_widget_message_goes_into_the_log_without_a_send(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    await scene.say("q1", "a1")
    await scene.say("q2", "a2")
    await scene.route()
    await scene.route()
    assert await scene.outbound() == [("a1", "SENT"), ("a2", "SENT")]
    assert await scene.value("SELECT count(*) FROM usage_logs WHERE kind = 'message_sent'") == 2


async def test_a_message_that_failed_lets_the_next_one_go(database: Database) -> None:
    scene = await make_scene(database)
    await scene.say("q1", "a1")
    await scene.say("q2", "a2")
    await scene.route()
    await scene.fail_send()
    assert await scene.outbound() == [("a1", "FAILED"), ("a2", "QUEUED")]
    await scene.route()
    await scene.send("wamid.2")
    assert await scene.outbound() == [("a1", "FAILED"), ("a2", "SENT")]
    assert await scene.value("SELECT lane_length FROM conversations") == 0


async def test_a_replayed_message_does_not_overtake_the_one_that_is_leaving(database: Database) -> None:
    scene = await make_scene(database)
    await scene.say("q1", "a1")
    await scene.say("q2", "a2")
    await scene.route()
    dead = await scene.fail_send()
    await scene.route()  # a2 is leaving
    await _replay(scene, dead)
    sends = await scene.fetch(
        "SELECT id, run_at FROM all_jobs WHERE queue = 'whatsapp-cloud-send' AND state = 'WAITING' ORDER BY id"
    )
    assert [row["id"] == dead for row in sends] == [True, False]
    assert [job.id for job in scene.published].count(dead) == 2, "published when made, and shown as a dead letter"
    leaving = sends[1]["id"]
    job = await scene.job(leaving)
    assert job.conversation_id is not None
    assert job.message_id is not None
    await scene.moves.settle(Settle(run_of(leaving), job.conversation_id, job.message_id, "wamid.2"))
    assert [job.id for job in scene.published].count(dead) == 3, "released when the lane was free"
    await scene.send("wamid.1")
    assert await scene.outbound() == [("a1", "SENT"), ("a2", "SENT")]
    assert await scene.value("SELECT lane_length FROM conversations") == 0


async def test_a_replay_is_the_same_job_of_the_next_generation_with_no_attempts_used(database: Database) -> None:
    scene = await make_scene(database)
    await scene.say("q1", "a1")
    await scene.route()
    dead = await scene.fail_send()
    await _replay(scene, dead)
    (row,) = await scene.fetch("SELECT state, generation, attempts, reason FROM all_jobs WHERE id = $1", dead)
    assert tuple(row) == ("WAITING", 1, 0, None)
    assert scene.published[-1].bullmq_id == f"{dead}-1"
    assert await scene.outbound() == [("a1", "QUEUED")]


async def test_a_dead_letter_is_replayed_or_discarded_once_and_only_by_its_customer(database: Database) -> None:
    scene, other = await make_scene(database), await make_scene(database)
    await scene.say("q1", "a1")
    await scene.route()
    dead = await scene.fail_send()
    async with database.transaction() as connection:
        with pytest.raises(NotReplayable, match="no dead letter"):
            await replay(connection, dead, customer_id=other.customer.id, outbox=Outbox())
        with pytest.raises(NotReplayable):
            await discard(connection, dead, customer_id=other.customer.id)
        await discard(connection, dead, customer_id=scene.customer.id)
        with pytest.raises(NotReplayable):
            await replay(connection, dead, customer_id=None, outbox=Outbox())


async def test_a_status_climbs_and_never_falls(database: Database) -> None:
    scene = await make_scene(database)
    await scene.say("q1", "a1")
    await scene.route()
    await scene.send("wamid.1")
    applied = [await _report(scene, "wamid.1", status) for status in ("READ", "DELIVERED", "SENT", "FAILED", "READ")]
    assert applied == [True, False, False, False, False]
    (row,) = await scene.fetch(
        "SELECT status, delivered_at, read_at, failed_at FROM messages WHERE direction = 'OUTBOUND'"
    )
    assert row["status"] == "READ"
    assert row["delivered_at"] == row["read_at"]
    assert row["failed_at"] is None


async def test_a_status_that_outruns_the_answer_of_its_send_is_found_by_our_own_id(database: Database) -> None:
    scene = await make_scene(database)
    await scene.say("q1", "a1")
    await scene.route()
    message_id = await scene.value("SELECT id FROM messages WHERE direction = 'OUTBOUND'")
    assert await _report(scene, "wamid.1", "DELIVERED", message_id)
    await scene.send("wamid.1")
    (row,) = await scene.fetch("SELECT status, external_id FROM messages WHERE direction = 'OUTBOUND'")
    assert tuple(row) == ("DELIVERED", "wamid.1")


async def test_a_status_for_another_customers_message_changes_nothing(database: Database) -> None:
    scene, other = await make_scene(database), await make_scene(database)
    await scene.say("q1", "a1")
    await scene.route()
    await scene.send("wamid.1")
    forged = ReportedStatus(scene.channel.id, other.customer.id, StatusUpdate("wamid.1", "FAILED", datetime.now(UTC)))
    assert not await other.moves.apply_status(forged)
    assert await scene.outbound() == [("a1", "SENT")]


async def test_each_step_is_announced_once_to_each_endpoint_that_asked(database: Database) -> None:
    scene = await make_scene(database)
    await make_webhook_endpoint(database, scene.customer.id, url="http://127.0.0.1:9/a")
    await make_webhook_endpoint(database, scene.customer.id, url="http://127.0.0.1:9/b", events=["message.failed"])
    await scene.say("q1", "a1")
    await scene.route()
    await scene.send("wamid.1")
    for _ in range(3):
        await _report(scene, "wamid.1", "DELIVERED")
    rows = await scene.fetch("SELECT type FROM webhook_events ORDER BY id")
    assert [row["type"] for row in rows] == ["message.received", "message.sent", "message.delivered"]
    assert len(await scene.waiting("webhook-delivery")) == 3


async def _replay(scene: Scene, job_id: object) -> None:
    outbox = Outbox()
    async with scene.database.transaction() as connection:
        await replay(connection, job_id, customer_id=scene.customer.id, outbox=outbox)  # type: ignore[arg-type]
    scene.published.extend(outbox.jobs)


async def _report(scene: Scene, external_id: str, status: str, message_id: object = None) -> bool:
    update = StatusUpdate(external_id, status, datetime.now(UTC), message_id=message_id)  # type: ignore[arg-type]
    return await scene.moves.apply_status(ReportedStatus(scene.channel.id, scene.customer.id, update))

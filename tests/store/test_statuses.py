"""Statuses that come too early, and what they say of the price."""

import asyncio
from datetime import UTC, datetime, timedelta

from replyline.statuses import Pricing
from replyline.store.database import Database
from replyline.store.moves.statuses import catch_up
from replyline.store.outbox import Outbox
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, make_scene


async def _routed(database: Database, kind: str = "WHATSAPP_CLOUD") -> Scene:
    scene = await make_scene(database, "WHATSAPP_QR" if kind == "WHATSAPP_QR" else "WHATSAPP_CLOUD")
    await scene.say("q", "a")
    await scene.route()
    return scene


async def test_statuses_before_the_sends_own_answer_are_parked_and_applied_in_their_order(database: Database) -> None:
    scene = await _routed(database)
    for status in ("DELIVERED", "SENT", "READ"):
        assert not await scene.report("wamid.1", status)
    assert await scene.outbound() == [("a", "SENDING")]
    await scene.send("wamid.1")
    assert await scene.outbound() == [("a", "READ")]
    (row,) = await scene.fetch("SELECT delivered_at, read_at FROM messages WHERE status = 'READ'")
    assert None not in tuple(row)
    assert await scene.value("SELECT count(*) FROM parked_statuses") == 0


async def test_a_failure_that_was_parked_keeps_its_code_title_and_details(database: Database) -> None:
    scene = await _routed(database)
    await scene.report(
        "wamid.1",
        "FAILED",
        error_reason="undeliverable",
        error_code=131026,
        error_title="Undeliverable",
        error_detail="d",
    )
    await scene.send("wamid.1")
    (row,) = await scene.fetch(
        "SELECT status, error_reason, error_code, error_title, error_detail FROM messages WHERE direction = 'OUTBOUND'"
    )
    assert tuple(row) == ("FAILED", "undeliverable", 131026, "Undeliverable", "d")


async def test_a_status_and_an_answer_that_pass_each_other_meet_at_the_next_sweep(database: Database) -> None:
    scene = await _routed(database)
    await scene.report("wamid.1", "DELIVERED")
    await scene.fetch("UPDATE messages SET external_id = 'wamid.1', status = 'SENT' WHERE direction = 'OUTBOUND'")
    async with database.transaction() as connection:
        assert await catch_up(connection, Outbox()) == 1
    assert await scene.outbound() == [("a", "DELIVERED")]


async def test_the_same_status_ten_times_at_once_is_parked_once(database: Database) -> None:
    scene = await _routed(database)
    await asyncio.gather(*(scene.report("wamid.1", "DELIVERED") for _ in range(10)))
    assert await scene.value("SELECT count(*) FROM parked_statuses") == 1


async def test_a_price_is_billed_once_a_message_however_often_it_is_said(database: Database) -> None:
    scene = await _routed(database)
    await scene.send("wamid.1")
    price = Pricing("service", "regular")
    for status in ("SENT", "DELIVERED", "SENT", "READ"):
        await scene.report("wamid.1", status, pricing=price)
    rows = await scene.fetch("SELECT category, pricing_type FROM usage_logs WHERE kind = 'whatsapp_pricing'")
    assert [tuple(row) for row in rows] == [("service", "regular")]


async def test_a_price_that_comes_before_its_message_is_billed_too(database: Database) -> None:
    scene = await _routed(database)
    await scene.report("wamid.1", "SENT", pricing=Pricing("service", "regular"))
    await scene.send("wamid.1")
    assert await scene.value("SELECT count(*) FROM usage_logs WHERE kind = 'whatsapp_pricing'") == 1


async def test_what_a_gateway_accepted_is_sent_and_billed_when_whatsapp_confirms_it(database: Database) -> None:
    scene = await _routed(database, "WHATSAPP_QR")
    await scene.send("3EB0A", "whatsapp-qr-send", outcome="accepted")
    assert await scene.outbound() == [("a", "SENDING")]
    assert await scene.value("SELECT count(*) FROM usage_logs WHERE kind = 'message_sent'") == 0
    await scene.report("3EB0A", "SENT")
    await scene.report("3EB0A", "DELIVERED")
    assert await scene.outbound() == [("a", "DELIVERED")]
    assert await scene.value("SELECT count(*) FROM usage_logs WHERE kind = 'message_sent'") == 1


async def test_a_message_that_may_not_be_sent_now_is_blocked_with_its_reason_and_the_lane_goes_on(
    database: Database,
) -> None:
    scene = await make_scene(database)
    await scene.hear("q")
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "one", "two")
    await scene.route()
    await scene.send(None, outcome="blocked_window")
    await scene.route()
    await scene.send("wamid.2")
    assert await scene.outbound() == [("one", "BLOCKED_WINDOW"), ("two", "SENT")]
    assert await scene.value("SELECT error_reason FROM messages WHERE status = 'BLOCKED_WINDOW'") == "window_closed"


async def test_a_refusal_for_marketing_is_announced_once_and_gives_way_to_a_later_wish(database: Database) -> None:
    scene = await _routed(database)
    await make_webhook_endpoint(database, scene.customer.id, events=("contact.updated",))
    await scene.send("wamid.1")
    now = datetime.now(UTC)
    for at in (now, now + timedelta(seconds=1)):
        await scene.report("wamid.1", "FAILED", error_reason="opted_out", error_code=131050, at=at)
    (event,) = await scene.fetch("SELECT payload -> 'data' ->> 'marketing_opted_out' AS out FROM webhook_events")
    assert event["out"] == "true"
    await scene.fetch(
        "UPDATE contacts SET marketing_opted_out = false, marketing_changed_at = now() + interval '1 minute'"
    )
    await scene.report("wamid.1", "FAILED", error_reason="opted_out", error_code=131050)
    assert await scene.value("SELECT marketing_opted_out FROM contacts") is False
    assert await scene.value("SELECT count(*) FROM webhook_events") == 1

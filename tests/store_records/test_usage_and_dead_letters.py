"""Sums of usage, and dead letters as an operator counts and picks them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from replyline.ids import new_id
from replyline.inbound_content import Form, InboundContent, Location
from replyline.jobs import Identity
from replyline.store import dead_letters, usage
from replyline.store.database import Database
from replyline.store.moves.metering import Fact, meter
from tests.store.scene import Scene, make_scene


async def _meter(scene: Scene, key: str, **more: object) -> None:
    fact = Fact(
        key=key,
        kind="ai_answer",
        customer_id=scene.customer.id,
        channel="WIDGET",
        chatbot_id=scene.chatbot.id,
        conversation_id=new_id(),
        message_id=None,
        provider="p",
        model="m",
        **more,  # type: ignore[arg-type]
    )
    async with scene.database.connection() as connection:
        await meter(connection, [fact])


async def test_what_was_not_measured_is_counted_and_not_taken_for_zero(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    await _meter(scene, "a", input_tokens=10, output_tokens=5, cached_tokens=2, cost=Decimal("0.25"))
    await _meter(scene, "b", input_tokens=3, output_tokens=1)
    await _meter(scene, "c")
    now = datetime.now(UTC)
    (row,) = await usage.sums(
        database, customer_id=scene.customer.id, since=now - timedelta(days=1), until=now + timedelta(days=1)
    )
    assert (row.count, row.input_tokens, row.output_tokens, row.cached_tokens) == (3, 13, 6, 2)
    assert (row.unmeasured, row.cost) == (1, Decimal("0.25"))


async def test_days_are_those_of_utc_and_the_end_is_left_out(database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    for hour, key in ((23, "a"), (24, "b")):
        await _meter(scene, key)
        at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour)
        await scene.value("UPDATE usage_logs SET created_at = $1 WHERE fact_key = $2", at, key)
    since = datetime(2026, 3, 1, tzinfo=UTC)
    both = await usage.sums(database, customer_id=scene.customer.id, since=since, until=since + timedelta(days=2))
    assert [str(row.day) for row in both] == ["2026-03-01", "2026-03-02"]
    first = await usage.sums(database, customer_id=scene.customer.id, since=since, until=since + timedelta(days=1))
    assert [row.count for row in first] == [1]


async def test_dead_letters_are_counted_and_picked_by_queue_and_reason(database: Database) -> None:
    scene, other = await make_scene(database), await make_scene(database)
    dead = []
    for of, reason in ((scene, "crashed"), (scene, "crashed"), (scene, "unreadable"), (other, "crashed")):
        accepted = await of.accept("hello")
        await of.value("UPDATE jobs SET state = 'DEAD', reason = $2 WHERE id = $1", accepted.job_id, reason)
        dead.append(accepted.job_id)
    assert await dead_letters.count(database) == [
        ("incoming-messages", "crashed", 3),
        ("incoming-messages", "unreadable", 1),
    ]
    assert await dead_letters.ids(database, customer_id=None) == dead
    assert await dead_letters.ids(database, customer_id=scene.customer.id, reason="crashed") == dead[:2]
    assert await dead_letters.ids(database, customer_id=scene.customer.id, queue="ai-processing") == []
    page = await dead_letters.list_page(database, customer_id=scene.customer.id, limit=2)
    assert [letter.id for letter in page] == [dead[2], dead[1]]
    rest = await dead_letters.list_page(database, customer_id=scene.customer.id, before=page[-1].id)
    assert [letter.id for letter in rest] == [dead[0]]


async def test_ids_stay_whole_and_personal_text_does_not_wherever_it_stands(database: Database) -> None:
    scene = await make_scene(database)
    body = InboundContent(form=Form(answers={"name": "Ana B."}), location=Location(latitude=1.5, name="home"))
    also = (Identity("wa_id", "4917012"),)
    accepted = await scene.accept("call +49 170 1234567", body=body, also_known_as=also)
    await scene.value(
        "UPDATE jobs SET state = 'DEAD', payload = payload || $2::jsonb WHERE id = $1",
        accepted.job_id,
        '{"note": {"list": ["mail ana@example.org", 5]}}',
    )
    found = await dead_letters.get(database, accepted.job_id, customer_id=None)
    assert found is not None
    assert found.reason == "unknown"
    assert isinstance(found.payload, dict)
    assert found.payload["note"] == {"list": ["mail [address]", 5]}
    assert (found.payload["content"], found.payload["externalUserId"]) == ("[20 characters]", "[3 characters]")
    assert found.payload["body"] == {
        "form": {"answers": {"name": "[6 characters]"}},
        "location": {"latitude": 1.5, "name": "[4 characters]"},
    }
    assert found.payload["alsoKnownAs"] == [{"kind": "[5 characters]", "value": "[7 characters]"}]
    assert found.payload["messageId"] == str(accepted.message_id)

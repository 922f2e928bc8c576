"""A NestJS application produces the messages and sends the answers; Replyline is between, and both are killed in the middle."""

from collections import Counter

import pytest

from tests.chaos.town import Town
from tests.interop.parts import kill, need_application, run, start
from tests.interop.provider import Provider, provider
from tests.waiting import until

pytestmark = pytest.mark.chaos


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """How many users write."""
    return 1000 if request.config.getoption("--chaos-full") else 100


async def test_every_message_is_sent_once_though_worker_and_consumer_are_killed(count: int) -> None:
    need_application()
    async with (
        Town(settings={"REPLYLINE_EXTERNAL_QUEUES": "whatsapp-qr-send"}) as town,
        provider(takes_s=0.05) as whatsapp,
    ):
        await town.rows("UPDATE chatbots SET external_reference = 'test-bot-id'")
        town.start_worker()
        consumer, _ = await start("consume", town.valkey.url, PROVIDER_URL=whatsapp.url)
        await run("produce", town.valkey.url, CHANNEL="WIDGET")
        await run("produce", town.valkey.url, CHANNEL="WHATSAPP_QR", COUNT=str(count))

        await until(lambda: len(whatsapp.sent) > count // 8, timeout_s=90, what="some sent")
        town.kill("worker")
        town.start_worker()
        await until(lambda: len(whatsapp.sent) > count // 2, timeout_s=90, what="half sent")
        await kill(consumer)
        assert len(whatsapp.sent) < count, "the consumer was not killed in the middle"
        consumer, _ = await start("consume", town.valkey.url, PROVIDER_URL=whatsapp.url)
        await until(lambda: len(whatsapp.sent) == count, timeout_s=120, what="all sent")
        await until(lambda: _settled(town, count + 1), timeout_s=60, what="all messages settled")
        await town.until_settled()
        await kill(consumer)

        _assert_each_once(whatsapp, count)
        await _assert_none_stuck(town, count)


def _assert_each_once(whatsapp: Provider, count: int) -> None:
    wanted = Counter((f"user-{123 + user}", f"Echo: Hello from {user}") for user in range(count))
    assert Counter(whatsapp.sent) == wanted  # by idempotency key: BullMQ may have called the consumer again
    assert all(len(jobs) == 1 for jobs in whatsapp.jobs.values()), "a message was published as a second job"
    again = [key for key, times in whatsapp.calls.items() if times > 1]
    assert len(again) <= 5, f"BullMQ called {len(again)} jobs again: more than the killed consumer held"


async def _assert_none_stuck(town: Town, count: int) -> None:
    answers = await town.rows(
        "SELECT c.kind, m.status, count(*) AS messages, count(DISTINCT m.external_id) AS ids FROM messages m "
        "JOIN channels c ON c.id = m.channel_id WHERE m.direction = 'OUTBOUND' GROUP BY 1, 2 ORDER BY 1"
    )
    assert [tuple(row) for row in answers] == [("WHATSAPP_QR", "SENT", count, count), ("WIDGET", "SENT", 1, 0)]
    assert await town.dead() == []


async def _settled(town: Town, count: int) -> bool:
    rows = await town.rows("SELECT 1 FROM messages WHERE direction = 'OUTBOUND' AND status = 'SENT'")
    return len(rows) == count

"""One contact writes as fast as they can: everything is kept, in order, and it is their own affair."""

import asyncio

import pytest

from replyline.broker import Broker
from tests.chaos.town import Town
from tests.waiting import until

pytestmark = pytest.mark.chaos

_FLOODER = "4915100000001"
_NEIGHBOUR = "4915100000002"


@pytest.mark.parametrize("harmed", [False, True])
async def test_one_contact_floods(full: bool, harmed: bool) -> None:
    count = 2000 if full else 200
    async with Town() as town:
        town.start_worker("one")
        town.start_worker("two")
        await town.write({_NEIGHBOUR: ["before"]})
        await town.until_settled()
        texts = [f"q.{number}" for number in range(count)]
        flood = asyncio.create_task(_flood(town, texts))
        await until(lambda: _at_the_door(town, count // 4), timeout_s=60)
        await town.write({_NEIGHBOUR: ["during"]})
        if harmed:
            town.kill("one")
            town.start_worker("three")
            await _wipe_redis(town)
        await flood
        await town.until_settled()

        saved = [
            row["content"]
            for row in await town.rows(
                "SELECT m.content FROM messages m JOIN contact_identities i ON i.value = '4915100000001' "
                "JOIN conversations v ON v.contact_id = i.contact_id AND v.id = m.conversation_id "
                "WHERE m.direction = 'INBOUND' ORDER BY m.seq"
            )
        ]
        arrived = [
            row["content"]
            for row in await town.rows(
                "SELECT payload ->> 'content' AS content FROM all_jobs "
                "WHERE queue = 'incoming-messages' AND payload ->> 'externalUserId' = '4915100000001' ORDER BY id"
            )
        ]
        assert sorted(saved) == sorted(texts)
        assert saved == arrived
        assert await town.dead() == []
        seen = [sent.text for sent in await town.seen() if sent.to.lstrip("+") == _NEIGHBOUR]
        assert seen == ["Echo: before", "Echo: during"]
        (postponed,) = await town.rows(
            "SELECT count(*) AS count FROM all_jobs, jsonb_array_elements(waits) AS wait "
            "WHERE queue = 'incoming-messages' AND wait ->> 'reason' <> 'behind_earlier'"
        )
        if not harmed:
            # Nobody was postponed, and the neighbour's message did not queue behind the flood's.
            assert postponed["count"] == 0
            assert await _runs(town) < count
            (ahead,) = await town.rows(_STARTED_BETWEEN)
            assert ahead["jobs"] <= 2


# Runs of the flooder's jobs that began after the neighbour's message had come and before it was received; a run takes many along,
# which share its beginning.
_STARTED_BETWEEN = """
SELECT count(DISTINCT f.started_at)::int AS jobs
FROM all_jobs n JOIN all_jobs f ON f.queue = n.queue AND f.started_at > n.created_at AND f.started_at < n.started_at
WHERE n.payload ->> 'content' = 'during' AND f.payload ->> 'externalUserId' = '4915100000001'
"""


async def _flood(town: Town, texts: list[str]) -> None:
    """Forty callbacks at once, as a service does that has much to hand over."""
    ways = asyncio.Semaphore(40)

    async def write(text: str) -> None:
        async with ways:
            await town.write({_FLOODER: [text]})

    await asyncio.gather(*(write(text) for text in texts))


async def _at_the_door(town: Town, count: int) -> bool:
    (row,) = await town.rows("SELECT count(*) AS jobs FROM all_jobs WHERE queue = 'incoming-messages'")
    return bool(row["jobs"] >= count)


async def _wipe_redis(town: Town) -> None:
    broker = Broker(town.valkey.url)
    await broker.open()
    await broker.command("FLUSHALL")
    await broker.close()


async def _runs(town: Town) -> int:
    """How many jobs of incoming messages BullMQ has run: it keeps the finished ones for an hour."""
    broker = Broker(town.valkey.url)
    await broker.open()
    counts = await broker.counts("incoming-messages")
    await broker.close()
    return counts.completed

"""The buckets that all workers share: slots of one's own, nobody held up by another, and a wait that grows."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from replyline.broker import Broker, Limits
from tests.broker.scene import Client

FREE = Limits(0, 1, 0, 1, 0)


@pytest.fixture
async def another(valkey_url: str) -> AsyncIterator[Broker]:
    """The broker of another worker."""
    opened = Broker(valkey_url)
    await opened.open()
    yield opened
    await opened.close()


async def leave(broker: Broker, message: str, limits: Limits, *, to: str = "ana") -> float:
    """Ask until the message may leave, as a postponed job does; when that was."""
    while (slot := await broker.pacing.slot("number", to, message, limits)).waits_for is not None:  # noqa: ASYNC110  it is told when
        await asyncio.sleep(slot.after_s)
    return time.monotonic()


async def test_two_workers_together_keep_one_rate(broker: Broker, another: Broker) -> None:
    limits = Limits(0.02, 5, 0, 1, 0)
    leaving = [leave((broker, another)[number % 2], f"m{number}", limits, to=f"p{number}") for number in range(60)]
    times = sorted(await asyncio.gather(*leaving))
    for first in range(len(times) - 10):
        assert times[first + 10] - times[first] >= (10 - 5) * 0.02 * 0.9, "a burst of 5, then one in 20 ms, anywhere"


async def test_everyone_who_waits_is_told_a_time_of_their_own(broker: Broker) -> None:
    limits = Limits(1.0, 1, 0, 1, 0)
    slots = [await broker.pacing.slot("number", "ana", f"m{number}", limits) for number in range(5)]
    assert slots[0].waits_for is None
    waits = [slot.after_s for slot in slots[1:]]
    assert waits == sorted(waits)
    assert [round(wait) for wait in waits] == [1, 2, 3, 4]
    again = await broker.pacing.slot("number", "ana", "m2", limits)
    assert again.after_s <= waits[1], "asking again moves nobody back"


async def test_those_who_come_back_late_do_not_leave_in_a_bunch(broker: Broker) -> None:
    limits = Limits(0.05, 1, 0, 1, 0)
    for number in range(10):
        await broker.pacing.slot("number", "ana", f"m{number}", limits)
    await asyncio.sleep(0.6)  # all their times are past: a worker was busy elsewhere
    times = sorted(await asyncio.gather(*(leave(broker, f"m{number}", limits) for number in range(1, 10))))
    assert times[-1] - times[0] >= 8 * 0.05 * 0.9


async def test_one_recipients_wait_is_nobody_elses(broker: Broker) -> None:
    limits = Limits(0, 1, 10.0, 1, 0)
    assert (await broker.pacing.slot("number", "ana", "m1", limits)).waits_for is None
    assert (await broker.pacing.slot("number", "ana", "m2", limits)).waits_for == "recipient"
    assert (await broker.pacing.slot("number", "bob", "m3", limits)).waits_for is None
    assert (await broker.pacing.slot("another number", "ana", "m4", limits)).waits_for is None


async def test_a_day_has_so_many_messages(broker: Broker) -> None:
    limits = Limits(0, 1, 0, 1, 2)
    for number in range(2):
        assert (await broker.pacing.slot("number", "ana", f"m{number}", limits)).waits_for is None
    slot = await broker.pacing.slot("number", "ana", "m3", limits)
    assert slot.waits_for == "day"
    assert 0 < slot.after_s <= 86_400


async def test_a_block_holds_its_scope_and_grows_once_an_incident(broker: Broker) -> None:
    waits = []
    for _ in range(3):
        said = await asyncio.gather(*(broker.pacing.block("number", "ana", first_s=0.05, growth=4.0) for _ in range(5)))
        waits.append(max(said))
        assert (await broker.pacing.slot("number", "ana", "m", FREE)).waits_for == "recipient"
        assert (await broker.pacing.slot("number", "bob", "n", FREE)).waits_for is None
        await asyncio.sleep(max(said) + 0.01)
    assert [round(wait, 2) for wait in waits] == [0.05, 0.2, 0.8]
    assert (await broker.pacing.slot("number", "ana", "m", FREE)).waits_for is None


async def test_nothing_stays_in_redis_for_ever(broker: Broker, redis: Client) -> None:
    limits = Limits(0.5, 1, 0.5, 1, 5)
    for number in range(4):
        await broker.pacing.slot("number", "ana", f"m{number}", limits)
    await broker.pacing.block("number", None, first_s=1)
    keys = [key async for key in redis.scan_iter("bull:replyline:pace:*")]
    assert keys
    assert [key for key in keys if await redis.ttl(key) < 0] == []

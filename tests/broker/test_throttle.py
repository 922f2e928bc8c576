"""Several buckets asked at once: a burst and then a rate, all of them or none, shared by all processes."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from replyline.broker import Broker, BrokerUnavailable, Bucket, Refused
from tests.broker.scene import Client
from tests.proxy import FaultProxy
from tests.waiting import until

HOUR_S = 3600.0


@pytest.fixture
async def another(valkey_url: str) -> AsyncIterator[Broker]:
    """The broker of another process."""
    opened = Broker(valkey_url)
    await opened.open()
    yield opened
    await opened.close()


async def take_when_told(broker: Broker, *buckets: Bucket) -> tuple[float, float]:
    """Ask until it is granted, each time after as long as told; between which times that was."""
    while True:
        asked = time.monotonic()
        refused = await broker.throttle.take("site", buckets)
        if refused is None:
            return asked, time.monotonic()
        await asyncio.sleep(refused.after_s)


async def test_a_burst_and_then_the_rate(broker: Broker) -> None:
    bucket = Bucket("messages", 0.05, 5)
    granted = [await take_when_told(broker, bucket) for _ in range(15)]
    for first in range(len(granted) - 5):
        (earliest, _), (_, latest) = granted[first], granted[first + 5]
        assert latest - earliest >= 0.05 * 0.9, "a burst of 5, then one in 50 ms, anywhere"
    assert granted[14][1] - granted[0][0] >= 10 * 0.05 * 0.9


async def test_who_is_refused_is_told_how_long(broker: Broker) -> None:
    bucket = Bucket("messages", 10.0, 3)
    assert [await broker.throttle.take("site", [bucket]) for _ in range(3)] == [None] * 3
    for _ in range(5):  # being refused costs nothing
        refused = await broker.throttle.take("site", [bucket])
        assert refused is not None
        assert refused.name == "messages"
        assert 9 < refused.after_s <= 10


async def test_a_token_of_each_or_of_none(broker: Broker) -> None:
    scarce, plenty = Bucket("scarce", HOUR_S, 1), Bucket("plenty", HOUR_S, 3)
    assert await broker.throttle.take("site", [plenty, scarce]) is None
    for buckets in ([plenty, scarce], [scarce, plenty]) * 5:
        refused = await broker.throttle.take("site", buckets)
        assert refused is not None
        assert refused.name == "scarce"
    assert [await broker.throttle.take("site", [plenty]) for _ in range(2)] == [None] * 2, (
        "none was lost to the refused"
    )
    assert await broker.throttle.take("site", [plenty]) is not None


async def test_the_one_that_needs_longest_is_named(broker: Broker) -> None:
    buckets = [Bucket("a", 10, 1), Bucket("b", 30, 1), Bucket("c", 20, 1), Bucket("free", 0, 1)]
    assert await broker.throttle.take("site", buckets) is None
    refused = await broker.throttle.take("site", buckets)
    assert isinstance(refused, Refused)
    assert refused.name == "b"
    assert 29 < refused.after_s <= 30


async def test_two_processes_share(broker: Broker, another: Broker) -> None:
    bucket = Bucket("messages", HOUR_S, 7)
    answers = await asyncio.gather(
        *((broker, another)[number % 2].throttle.take("site", [bucket]) for number in range(40))
    )
    assert sum(answer is None for answer in answers) == 7


async def test_sites_and_names_are_apart(broker: Broker) -> None:
    for site in ("one", "two", "{", "}", "x" * 3000):
        for name in ("ip:192.0.2.1", "ip:2001:db8::1", "y" * 3000, "y" * 2999, "naïve", "\ud83d", ""):
            assert await broker.throttle.take(site, [Bucket(name, HOUR_S, 1)]) is None
            assert await broker.throttle.take(site, [Bucket(name, HOUR_S, 1)]) is not None


async def test_no_key_is_long_and_none_stays(broker: Broker, redis: Client) -> None:
    names = ["ip:2001:db8::1", "a}b{", "x" * 3000]
    for site in names:
        assert await broker.throttle.take(site, [Bucket(name, HOUR_S, 5) for name in names]) is None
    keys = [key async for key in redis.scan_iter("*")]
    assert len(keys) == 9
    assert max(map(len, keys)) < 170
    assert {key.count("{") for key in keys} == {key.count("}") for key in keys} == {1}
    for key in keys:
        assert 3_590_000 < await redis.pttl(key) <= 3_600_000, "a bucket that is full again need not be kept"
    await redis.flushdb()
    await broker.throttle.take("site", [Bucket("short", 0.05, 1)])
    await until(lambda: _empty(redis))


async def test_no_limit_asks_nobody(valkey_url: str) -> None:
    async with FaultProxy(valkey_url) as proxy:
        broker = Broker(proxy.url())
        await broker.open()
        assert [await broker.throttle.take("site", [Bucket("free", 0, 1)]) for _ in range(50)] == [None] * 50
        proxy.refuse()
        await proxy.cut()
        assert await broker.throttle.take("site", [Bucket("free", 0, 1)]) is None
        assert await broker.throttle.take("site", []) is None
        with pytest.raises(BrokerUnavailable):
            await broker.throttle.take("site", [Bucket("limited", 1, 1)])
        await broker.close()


async def test_a_clock_that_went_back_or_a_smaller_burst_shuts_nobody_out_for_long(
    broker: Broker, redis: Client
) -> None:
    await redis.set("bull:replyline:throttle:{site}:messages", f"{(time.time() + 86_400) * 1000:.3f}")
    refused = await broker.throttle.take("site", [Bucket("messages", 2.0, 5)])
    assert refused is not None
    assert refused.after_s <= 2.0


@pytest.mark.parametrize(("every_s", "burst"), [(-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0), (1, 10**7)])
def test_a_bucket_has_its_ranges(every_s: float, burst: int) -> None:
    with pytest.raises(ValueError, match="must be between"):
        Bucket("b", every_s, burst)


async def test_a_bucket_cannot_be_asked_twice_at_once(broker: Broker) -> None:
    with pytest.raises(ValueError, match="twice"):
        await broker.throttle.take("site", [Bucket("b", 1, 1), Bucket("b", 2, 1)])


async def test_the_largest_and_the_smallest_numbers_work(broker: Broker) -> None:
    for bucket in (Bucket("large", 31 * 86_400, 1_000_000), Bucket("small", 0.0001, 1), Bucket("odd", 1 / 3, 1)):
        assert await broker.throttle.take("site", [bucket]) is None


async def _empty(redis: Client) -> bool:
    return not await redis.dbsize()

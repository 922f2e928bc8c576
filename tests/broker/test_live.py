"""What workers tell and who looks: streams that are taken over, readers that crash, pages that come back, tickets used once."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from replyline.broker import MOST_BYTES, Broker, BrokerUnavailable, Live, SoFar, Told
from tests.broker.scene import Client
from tests.proxy import FaultProxy
from tests.waiting import until


@pytest.fixture
def live(broker: Broker) -> Live:
    """What is under test."""
    return broker.live


@pytest.fixture
async def away(valkey_url: str) -> AsyncIterator[Live]:
    """The same where Redis is away."""
    async with FaultProxy(valkey_url) as proxy:
        broker = Broker(proxy.url())
        await broker.open()
        proxy.refuse()
        await proxy.cut()
        await until(lambda: not broker._connection.connected)
        yield broker.live
        await broker.close()


async def test_what_is_written_is_there_as_far_as_it_is(live: Live) -> None:
    assert await live.so_far("c") is None
    await live.begin("c", "s")
    assert await live.so_far("c") == SoFar("s", 0, "")
    for piece in ("Olá, ", "", "Ana \N{PARTY POPPER}\0"):
        assert await live.append("c", "s", piece)
    assert await live.so_far("c") == SoFar("s", 3, "Olá, Ana \N{PARTY POPPER}\0")
    assert await live.so_far("another") is None
    await live.end("c", "s")
    assert await live.so_far("c") is None
    assert not await live.append("c", "s", "too late")


async def test_half_a_surrogate_pair_does_not_end_the_stream(live: Live) -> None:
    await live.begin("c", "s")
    assert await live.append("c", "s", "a\ud83d")
    assert await live.so_far("c") == SoFar("s", 1, "a?")


async def test_who_takes_over_is_not_disturbed_by_the_earlier_stream(live: Live) -> None:
    await live.begin("c", "old")
    await live.append("c", "old", "an answer to")
    await live.begin("c", "new")
    assert not await live.append("c", "old", " the wrong question")
    await live.end("c", "old")
    assert await live.append("c", "new", "yes")
    assert await live.so_far("c") == SoFar("new", 1, "yes")


async def test_only_one_of_two_that_write_at_once_goes_on(live: Live) -> None:
    async def write(stream: str) -> list[bool]:
        await live.begin("c", stream)
        return [await live.append("c", stream, stream) for _ in range(50)]

    streams = [f"s{number}" for number in range(8)]
    results = dict(zip(streams, await asyncio.gather(*map(write, streams)), strict=True))
    found = await live.so_far("c")
    assert found is not None
    assert found.text == found.stream * found.next_index
    assert found.next_index == sum(results[found.stream])
    assert [stream for stream in streams if results[stream][-1]] == [found.stream]


async def test_a_text_has_its_bound(live: Live) -> None:
    await live.begin("c", "s")
    assert await live.append("c", "s", "é" * (MOST_BYTES // 2 - 1))
    assert not await live.append("c", "s", "abc"), "bytes count, not characters"
    assert await live.append("c", "s", "ab")
    assert not await live.append("c", "s", "a")
    found = await live.so_far("c")
    assert found is not None
    assert (found.next_index, len(found.text.encode())) == (2, MOST_BYTES)


async def test_what_is_not_written_on_is_forgotten(live: Live, redis: Client) -> None:
    await live.begin("c", "s")
    await live.append("c", "s", "a")
    writing, text = "bull:replyline:live:{c}:writing", "bull:replyline:live:{c}:text"
    for key in (writing, text):
        assert 115_000 < await redis.pttl(key) <= 120_000
        await redis.pexpire(key, 60_000)
    await live.append("c", "s", "b")
    for key in (writing, text):
        assert await redis.pttl(key) > 115_000, "writing on renews it"
        await redis.pexpire(key, 1)
    await until(lambda: _gone(redis, writing))
    assert await live.so_far("c") is None
    assert not await live.append("c", "s", "c")


async def test_no_more_than_most_look_at_once(live: Live) -> None:
    entered = await asyncio.gather(*(live.enter("c", f"r{number}", most=3, ttl_s=60) for number in range(20)))
    assert entered == [True] * 3 + [False] * 17
    assert await live.enter("c", "r1", most=3, ttl_s=60), "who looks already goes on"
    assert await live.enter("another", "r9", most=3, ttl_s=60)
    await live.leave("c", "r0", linger_s=60)
    assert await live.enter("c", "r9", most=3, ttl_s=60), "who has left makes room, however long it lingers"
    assert not await live.enter("c", "r0", most=3, ttl_s=60)
    assert not await live.enter("empty", "r", most=0, ttl_s=60)


async def test_a_crashed_reader_makes_room(live: Live, redis: Client) -> None:
    assert await live.enter("c", "crashed", most=1, ttl_s=0.1)
    assert await live.is_watched("c")
    assert not await live.enter("c", "r", most=1, ttl_s=0.1)
    await until(partial(live.enter, "c", "r", most=1, ttl_s=0.1))
    await until(lambda: _gone(redis, "bull:replyline:live:{c}:readers"))
    assert not await live.is_watched("c")


async def test_a_crashed_reader_counts_no_more_while_another_looks_on(live: Live, redis: Client) -> None:
    assert await live.enter("c", "stays", most=2, ttl_s=60)
    assert await live.enter("c", "crashed", most=2, ttl_s=0.05)
    await until(partial(live.enter, "c", "r", most=2, ttl_s=0.05))
    assert await redis.pttl("bull:replyline:live:{c}:readers") > 50_000, "a short stay does not shorten the key's life"
    await live.leave("c", "stays", linger_s=0)
    await until(lambda: _unwatched(live, "c"))


async def test_who_renews_stays(live: Live, redis: Client) -> None:
    rows = [(f"c{number % 40}", f"r{number}") for number in range(2500)]
    await live.enter("c0", "r0", most=1, ttl_s=0.5)
    await live.renew(rows, ttl_s=60)
    assert await redis.zcard("bull:replyline:live:{c0}:readers") == 63
    for number in range(40):
        assert await redis.pttl(f"bull:replyline:live:{{c{number}}}:readers") > 50_000
    assert not await live.enter("c0", "new", most=1, ttl_s=60)
    await live.renew([], ttl_s=60)


async def test_a_page_that_reconnects_finds_its_conversation_watched(live: Live, redis: Client) -> None:
    await live.enter("c", "r", most=1, ttl_s=60)
    await live.leave("c", "r", linger_s=60)
    assert await live.is_watched("c")
    await live.leave("c", "r", linger_s=0.01)
    assert await redis.pttl("bull:replyline:live:{c}:lingers") > 50_000, "a shorter time does not end the longer"
    await live.enter("d", "r", most=1, ttl_s=60)
    await live.leave("d", "r", linger_s=0.05)
    await until(lambda: _unwatched(live, "d"))
    await live.leave("e", "r", linger_s=0)
    assert not await live.is_watched("e")


async def test_a_ticket_is_taken_once(live: Live, redis: Client) -> None:
    for round_ in range(10):
        await live.keep_ticket(f"t{round_}", b"\0who", ttl_s=60)
        taken = await asyncio.gather(*(live.take_ticket(f"t{round_}") for _ in range(50)))
        assert sorted(taken, key=bool) == [None] * 49 + [b"\0who"]
    assert await live.take_ticket("never was \ud83d") is None
    assert await redis.keys("bull:replyline:live:*") == []


async def test_a_ticket_expires_and_does_not_show(live: Live, redis: Client) -> None:
    await live.keep_ticket("secret", b"who", ttl_s=0.05)
    assert not [key async for key in redis.scan_iter("*secret*")]
    await until(lambda: _empty(redis))
    assert await live.take_ticket("secret") is None


async def test_what_is_too_much_is_the_callers_error(live: Live) -> None:
    with pytest.raises(ValueError, match="too much"):
        Told("c", b"x" * (MOST_BYTES + 1))
    with pytest.raises(ValueError, match="too much"):
        await live.keep_ticket("t", b"x" * (MOST_BYTES + 1), ttl_s=1)
    with pytest.raises(ValueError, match="time to live"):
        await live.enter("c", "r", most=1, ttl_s=0)


async def test_no_name_makes_a_key_long_or_ends_its_hash_tag(live: Live, redis: Client) -> None:
    names = ["a}b", "x" * 5000, "", "\ud83d", "naïve {}", "#" + "0" * 64]
    for name in names:
        await live.begin(name, "s")
        await live.append(name, "s", repr(name))
        await live.enter(name, "r", most=1, ttl_s=60)
        await live.leave(name, "r2", linger_s=60)
        await live.tell([Told(name, b"")])
    for name in names:
        assert await live.so_far(name) == SoFar("s", 1, repr(name).encode(errors="replace").decode())
    keys = [key async for key in redis.scan_iter("*")]
    assert len(keys) == 4 * len(names)
    assert max(map(len, keys)) < 120
    assert {key.count("{") for key in keys} == {key.count("}") for key in keys} == {1}
    assert [key for key in keys if await redis.ttl(key) < 0] == [], "nothing stays for ever"


async def test_everything_says_that_redis_is_away(away: Live) -> None:
    for call in (
        lambda: away.tell([Told("c", b"")]),
        lambda: away.begin("c", "s"),
        lambda: away.append("c", "s", "a"),
        lambda: away.end("c", "s"),
        lambda: away.so_far("c"),
        lambda: away.enter("c", "r", most=1, ttl_s=1),
        lambda: away.renew([("c", "r")], ttl_s=1),
        lambda: away.leave("c", "r", linger_s=1),
        lambda: away.is_watched("c"),
        lambda: away.keep_ticket("t", b"", ttl_s=1),
        lambda: away.take_ticket("t"),
    ):
        with pytest.raises(BrokerUnavailable):
            await call()


async def _gone(redis: Client, key: str) -> bool:
    return not await redis.exists(key)


async def _empty(redis: Client) -> bool:
    return not await redis.dbsize()


async def _unwatched(live: Live, conversation: str) -> bool:
    return not await live.is_watched(conversation)

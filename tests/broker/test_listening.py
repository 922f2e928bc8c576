"""What is told of a conversation is heard: in order, without a gap, amid whatever else is said."""

import asyncio
import random
from functools import partial

import msgspec
import pytest
from redis.asyncio import Redis

from replyline.broker import MOST_BYTES, Broker, BrokerUnavailable, Told, Written
from replyline.embedded import EmbeddedValkey
from tests.broker.ears import Ear, listen, subscribed
from tests.broker.scene import Client
from tests.proxy import FaultProxy
from tests.waiting import until


async def test_what_is_told_is_heard_in_order_by_everyone_who_listens(broker: Broker) -> None:
    one, two = Ear(), Ear()
    async with listen(broker, one, "a", "b"), listen(broker, two, "b"):
        await broker.live.tell([Told("a", b"1"), Told("b", b"\0\xff"), Told("c", b"3"), Told("a", b"")])
        await broker.live.begin("b", "s")
        for piece in "xyz":
            assert await broker.live.append("b", "s", piece)
        await until(lambda: len(one.heard) == 6 and len(two.heard) == 4)

    pieces = [Written("b", "s", index, text) for index, text in enumerate("xyz")]
    assert one.heard == [Told("a", b"1"), Told("b", b"\0\xff"), Told("a", b""), *pieces]
    assert two.heard == [Told("b", b"\0\xff"), *pieces]
    assert (one.missed, two.missed) == (0, 0)


async def test_the_pieces_of_a_stream_that_lost_its_turn_are_not_heard(broker: Broker) -> None:
    ear = Ear()
    async with listen(broker, ear, "c"):
        await broker.live.begin("c", "old")
        await broker.live.append("c", "old", "a")
        await broker.live.begin("c", "new")
        await broker.live.append("c", "old", "b")
        await broker.live.append("c", "new", "c")
        await until(lambda: len(ear.heard) == 2)
    assert ear.heard == [Written("c", "old", 0, "a"), Written("c", "new", 0, "c")]


async def test_as_much_as_may_be_told_is_heard(broker: Broker) -> None:
    ear = Ear()
    async with listen(broker, ear, "c") as listening:
        await broker.live.begin("c", "s")
        await broker.live.append("c", "s", "é" * (MOST_BYTES // 2))
        await broker.live.tell([Told("c", b"\xff" * MOST_BYTES)] * 200)
        await until(lambda: len(ear.heard) == 201)
    assert ear.heard[0] == Written("c", "s", 0, "é" * (MOST_BYTES // 2))
    assert listening.ignored == 0


async def test_garbage_stops_nothing(broker: Broker, redis: Client, valkey_url: str) -> None:
    ear, dice = Ear(), random.Random(3)
    channel = broker._live_names.channel("c")
    pack = msgspec.msgpack.encode
    garbage = [
        b"",
        b"hello",
        pack(None),
        pack({"t": 1}),
        pack([]),
        pack(["t"]),
        pack(["t", "text, not bytes"]),
        pack(["t", b"x" * (MOST_BYTES + 1)]),
        pack(["w", "s", -1, "a"]),
        pack(["w", "s", 1.5, "a"]),
        pack(["w", "s", 1]),
        pack(["z", b""]),
        b"\x93\xa1w\xa1s\x00\xa2\xff\xfe",
        b"\x94\xa1w\xa1s\x00\xa2\xff\xfe",  # no UTF-8
        b"\x93\xa1t\xc4\x00" + b"\x91" * 60_000,  # a list in a list in a list …
        b"\x92\xa1t\xc6\xff\xff\xff\xff",  # says it is 4 GB long
        b"x" * 10_000_000,
        *(dice.randbytes(dice.randint(0, 40)) for _ in range(2000)),
        *(b"\x92\xa1t" + dice.randbytes(dice.randint(0, 40)) for _ in range(2000)),
        *(b"\x94\xa1w" + dice.randbytes(dice.randint(0, 40)) for _ in range(2000)),
    ]
    async with listen(broker, ear, "c") as listening, Redis.from_url(valkey_url) as raw:
        async with raw.pipeline(transaction=False) as pipeline:
            for payload in garbage:
                pipeline.publish(channel, payload)
            await pipeline.execute()
        await broker.live.tell([Told("c", b"after")])
        await until(lambda: ear.heard[-1:] == [Told("c", b"after")])
        assert listening.connected
        assert listening.ignored + len(ear.heard) == len(garbage) + 1, "random bytes may be a message now and then"
        assert listening.ignored >= 17
    assert ear.missed == 0


async def test_a_listener_that_fails_hears_the_next(broker: Broker) -> None:
    heard: list[Told | Written] = []

    def hear(message: Told | Written) -> None:
        heard.append(message)
        raise RuntimeError("a bug")

    listening = broker.listening(hear, lambda: None)
    await listening.open()
    listening.watch("c")
    await listening.watching("c")
    await broker.live.tell([Told("c", b"1"), Told("c", b"2")])
    await until(lambda: len(heard) == 2)
    assert listening.connected
    assert listening.ignored == 2
    await listening.close()


async def test_whatever_is_watched_and_unwatched_in_a_hurry_ends_as_wanted(own_valkey: EmbeddedValkey) -> None:
    dice, ear = random.Random(5), Ear()
    broker, names = Broker(own_valkey.url), [f"c{number}" for number in range(5)]
    await broker.open()
    wanted: set[str] = set()
    async with FaultProxy(own_valkey.url) as proxy, Redis.from_url(own_valkey.url) as redis:
        proxy.delay(0.001)  # so that there is always something under way
        async with listen(Broker(proxy.url()), ear) as listening:
            for _ in range(2000):
                name = dice.choice(names)
                if name in wanted:
                    listening.unwatch(name)
                else:
                    listening.watch(name)
                wanted ^= {name}
                for _ in range(dice.choice((0, 1, 1, 10))):
                    await asyncio.sleep(0)
                if dice.random() < 0.05 and name in wanted:
                    await listening.watching(name)
                    number = len(ear.heard)
                    await broker.live.tell([Told(name, b"heard")])
                    await until(partial(_has_heard, ear, number + 1))
            for name in wanted:
                await listening.watching(name)
            await until(lambda: subscribed(redis, len(wanted)))
            ear.heard.clear()
            await broker.live.tell([Told(name, b"last") for name in names])
            await until(lambda: len(ear.heard) == len(wanted))
            assert {heard.conversation for heard in ear.heard} == wanted
    await broker.close()


async def test_what_was_unwatched_is_not_heard_even_if_it_was_on_its_way(broker: Broker) -> None:
    ear = Ear()
    async with listen(broker, ear, "a", "b") as listening:
        await broker.live.tell([Told("a", b"1")])
        listening.unwatch("a")
        listening.unwatch("never watched")
        await broker.live.tell([Told("a", b"2"), Told("b", b"3")])
        await until(lambda: Told("b", b"3") in ear.heard)
        assert Told("a", b"2") not in ear.heard
        with pytest.raises(BrokerUnavailable, match="not watched"):
            await listening.watching("a")


async def test_two_databases_of_one_server_do_not_hear_one_another(broker: Broker, valkey_url: str) -> None:
    ear = Ear()
    other = Broker(f"{valkey_url.partition('?')[0]}?db=15")
    await other.open()
    async with listen(broker, ear, "c"):
        await other.live.tell([Told("c", b"not here")])
        await broker.live.tell([Told("c", b"here")])
        await until(lambda: ear.heard)
    assert ear.heard == [Told("c", b"here")]
    await other.close()


def _has_heard(ear: Ear, count: int) -> bool:
    return len(ear.heard) >= count

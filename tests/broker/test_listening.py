"""Hearing what is told: in order, without a gap, through connections that are cut or fall silent, amid whatever else is said."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import pytest
import uvloop
from redis.asyncio import Redis

from replyline.broker import MOST_BYTES, Broker, BrokerUnavailable, Listening, Told, Written
from replyline.embedded import EmbeddedValkey
from tests.broker.scene import Client
from tests.proxy import FaultProxy
from tests.waiting import until


class Ear:
    """Remembers what it heard, and how often something may have been missed."""

    def __init__(self) -> None:
        self.heard: list[Told | Written] = []
        self.missed = 0

    def miss(self) -> None:
        """Count it."""
        self.missed += 1


@asynccontextmanager
async def listen(broker: Broker, ear: Ear, *watched: str, ping_every_s: float = 10.0) -> AsyncIterator[Listening]:
    """Listening to some conversations, confirmed."""
    listening = broker.listening(ear.heard.append, ear.miss, ping_every_s=ping_every_s)
    await listening.open()
    for conversation in watched:
        listening.watch(conversation)
    for conversation in watched:
        await listening.watching(conversation)
    try:
        yield listening
    finally:
        await listening.close()


class Page:
    """What a browser shows of one conversation: it listens first, then reads, and reads again where it may have missed some."""

    def __init__(self, broker: Broker, conversation: str) -> None:
        self._broker = broker
        self._conversation = conversation
        self._next = 0
        self._kept: list[Written] = []
        self._reads = True
        self.text = ""
        self.is_stale = True
        self.gaps = 0
        self.missed = 0
        self.listening = broker.listening(self._hear, self._miss)

    async def show(self) -> None:
        """Begin."""
        await self.listening.open()
        self.listening.watch(self._conversation)
        await self.listening.watching(self._conversation)
        await self.read()

    async def read(self) -> None:
        """Take what is written so far, and on top of it what was heard meanwhile."""
        self._reads = True
        self.is_stale = False
        found = await self._broker.live.so_far(self._conversation)
        if found is not None:
            self.text, self._next = found.text, found.next_index
        self._reads = False
        kept, self._kept = self._kept, []
        for piece in kept:
            self._put(piece)

    def _miss(self) -> None:
        self.missed += 1
        self.is_stale = True

    def _hear(self, heard: Told | Written) -> None:
        assert isinstance(heard, Written)
        if self._reads:
            self._kept.append(heard)
        else:
            self._put(heard)

    def _put(self, piece: Written) -> None:
        if piece.index > self._next:
            self.gaps += 1
            self.is_stale = True
        elif piece.index == self._next:
            self.text, self._next = self.text + piece.text, self._next + 1


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


@pytest.mark.parametrize("seed", range(4))
async def test_who_listens_first_and_then_reads_has_every_piece_once(
    broker: Broker, valkey_url: str, seed: int
) -> None:
    dice = random.Random(seed)
    pieces = ["".join(dice.choices("ab é\N{PARTY POPPER}", k=dice.randint(0, 9))) for _ in range(400)]
    worker = Broker(valkey_url)
    await worker.open()
    comes_at = sorted(dice.sample(range(len(pieces)), 12))
    pages: list[Page] = []
    await worker.live.begin("c", "s")
    async with asyncio.TaskGroup() as group:
        for number, piece in enumerate(pieces):
            if number in comes_at:
                pages.append(Page(broker, "c"))
                group.create_task(pages[-1].show())
            assert await worker.live.append("c", "s", piece)
    whole = "".join(pieces)
    await until(lambda: all(page.text == whole for page in pages))
    assert [page.gaps for page in pages] == [0] * 12
    for page in pages:
        await page.listening.close()
    await worker.close()


async def test_a_page_shows_everything_through_a_connection_that_is_cut_again_and_again(
    valkey_url: str, broker: Broker
) -> None:
    dice = random.Random(7)
    async with FaultProxy(valkey_url) as proxy:
        behind = Broker(proxy.url())
        await behind.open()
        page = Page(behind, "c")
        await broker.live.begin("c", "s")
        await page.show()
        whole, cuts = "", 0
        for number in range(1500):
            piece = f"{number} "
            assert await broker.live.append("c", "s", piece)
            whole += piece
            if dice.random() < 0.01:
                await proxy.cut()
                cuts += 1

        async def is_whole() -> bool:
            if page.is_stale:
                try:
                    await page.read()
                except BrokerUnavailable:
                    page.is_stale = True
            return page.text == whole

        await until(is_whole)
        assert cuts > 5
        assert page.missed
        await page.listening.close()
        await behind.close()


async def test_a_connection_that_was_cut_comes_back_with_all_it_listened_to(valkey_url: str, broker: Broker) -> None:
    ear = Ear()
    watched = [f"c{number}" for number in range(50)]
    async with FaultProxy(valkey_url) as proxy:
        behind = Broker(proxy.url())
        async with listen(behind, ear, *watched) as listening:
            listening.unwatch("c7")
            for cut in range(1, 4):
                await proxy.cut()
                await until(partial(_is_back, listening, ear, cut))
                ear.heard.clear()
                await broker.live.tell([Told(conversation, b"later") for conversation in watched])
                await until(lambda: len(ear.heard) == 49)
    assert Told("c7", b"later") not in ear.heard
    assert not listening.connected


async def test_a_redis_that_falls_silent_is_noticed(valkey_url: str, broker: Broker) -> None:
    ear = Ear()
    async with FaultProxy(valkey_url) as proxy:
        behind = Broker(proxy.url())
        async with listen(behind, ear, "c", ping_every_s=0.2) as listening:
            proxy.freeze()
            began = time.monotonic()
            await until(lambda: not listening.connected, timeout_s=2.0)
            assert time.monotonic() - began < 1.0
            proxy.thaw()
            await until(lambda: ear.missed == 1)
            await broker.live.tell([Told("c", b"later")])
            await until(lambda: ear.heard == [Told("c", b"later")])


@pytest.mark.parametrize("watched", [(), ("c",)])
async def test_a_redis_that_has_nothing_to_say_is_kept(
    own_valkey: EmbeddedValkey, own_redis: Client, watched: tuple[str, ...]
) -> None:
    ear = Ear()
    async with FaultProxy(own_valkey.url) as proxy:
        behind = Broker(proxy.url())
        async with listen(behind, ear, *watched, ping_every_s=0.05) as listening:
            await until(lambda: _pinged(own_redis, 10))
            assert listening.connected
            assert proxy.accepted == 1
    assert ear.missed == 0


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


async def test_ten_thousand_conversations_come_back_in_one_go(own_valkey: EmbeddedValkey, own_redis: Client) -> None:
    ear = Ear()
    watched = [f"conversation-{number}" for number in range(10_000)]
    async with FaultProxy(own_valkey.url) as proxy:
        behind = Broker(proxy.url())
        async with listen(behind, ear, *watched) as listening:
            before = await _calls(own_redis, "subscribe")
            assert before <= 20, "one write, in a few commands"
            await proxy.cut()
            began = time.monotonic()
            await until(lambda: ear.missed == 1 and listening.connected)
            assert time.monotonic() - began < 2.0
            assert await _calls(own_redis, "subscribe") - before <= 20
            assert len(await own_redis.pubsub_channels()) == 10_000
            for conversation in watched[1:]:
                listening.unwatch(conversation)
            await until(lambda: _subscribed(own_redis, 1))


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
            await until(lambda: _subscribed(redis, len(wanted)))
            ear.heard.clear()
            await broker.live.tell([Told(name, b"last") for name in names])
            await until(lambda: len(ear.heard) == len(wanted))
            assert {heard.conversation for heard in ear.heard} == wanted
    await broker.close()


async def test_one_command_about_a_conversation_is_under_way_at_a_time(
    own_valkey: EmbeddedValkey, own_redis: Client
) -> None:
    async with FaultProxy(own_valkey.url) as proxy, listen(Broker(proxy.url()), Ear()) as listening:
        proxy.freeze()
        for flip in (listening.watch, listening.unwatch) * 10:
            flip("c")
            await asyncio.sleep(0)
        listening.watch("c")
        proxy.thaw()
        await listening.watching("c")
        assert await _calls(own_redis, "subscribe") == 1
        assert await _calls(own_redis, "unsubscribe") == 0


async def test_while_nothing_can_be_written_nothing_piles_up(own_valkey: EmbeddedValkey, own_redis: Client) -> None:
    broker = Broker(own_valkey.url)
    async with listen(broker, Ear()) as listening:
        wire = listening._wire
        assert wire is not None
        wire.pause_writing()  # as asyncio does when the socket takes no more
        for number in range(1000):
            listening.watch("c")
            listening.watch(f"c{number}")
            listening.unwatch(f"c{number}")
            await asyncio.sleep(0)
        assert await _calls(own_redis, "subscribe") == 0
        wire.resume_writing()
        await listening.watching("c")
        assert await own_redis.pubsub_channels() == [broker._live_names.channel("c").decode()]


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


async def test_while_redis_is_away_watching_says_so_and_later_it_is_made_good(valkey_url: str, broker: Broker) -> None:
    ear = Ear()
    async with FaultProxy(valkey_url) as proxy:
        proxy.refuse()
        behind = Broker(proxy.url())
        listening = behind.listening(ear.heard.append, ear.miss, confirm_within_s=0.1)
        await listening.open()
        assert not listening.connected
        listening.watch("c")
        with pytest.raises(BrokerUnavailable, match="not confirmed"):
            await listening.watching("c")
        proxy.accept()
        await until(lambda: listening.connected)
        assert ear.missed == 1, "what was told since it was watched was not heard"
        await listening.watching("c")
        await broker.live.tell([Told("c", b"later")])
        await until(lambda: ear.heard == [Told("c", b"later")])
        await listening.close()


async def test_who_waits_is_told_when_it_is_unwatched_or_closed(valkey_url: str) -> None:
    async with FaultProxy(valkey_url) as proxy:
        behind = Broker(proxy.url())
        listening = behind.listening(lambda _: None, lambda: None, confirm_within_s=60.0)
        await listening.open()
        proxy.freeze()
        for end in (partial(_unwatch, listening), listening.close):
            listening.watch("c")
            waiting = asyncio.create_task(listening.watching("c"))
            await until(lambda: listening._confirmations)
            await end()
            with pytest.raises(BrokerUnavailable):
                await asyncio.wait_for(waiting, 5.0)


async def test_a_server_that_forbids_the_channels_is_no_crash(own_valkey: EmbeddedValkey, own_redis: Client) -> None:
    await own_redis.acl_setuser("web", enabled=True, nopass=True, keys=["*"], commands=["+@all"], reset_channels=True)
    ear = Ear()
    async with FaultProxy(own_valkey.url) as proxy:
        behind = Broker(proxy.url().replace("redis://", "redis://web:any@"))
        listening = behind.listening(ear.heard.append, ear.miss, confirm_within_s=0.2)
        await listening.open()
        listening.watch("c")
        with pytest.raises(BrokerUnavailable):
            await listening.watching("c")
        await own_redis.acl_setuser("web", enabled=True, channels=["bull:replyline:live:*"])
        await until(lambda: listening.connected)
        await listening.close()


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


def test_it_works_on_uvloop_too(valkey_url: str) -> None:
    async def scene() -> int:
        ear, watched = Ear(), [f"c{number}" for number in range(5000)]
        async with FaultProxy(valkey_url) as proxy:
            behind = Broker(proxy.url())
            await behind.open()
            async with listen(behind, ear, *watched):
                await proxy.cut()
                await until(lambda: ear.missed == 1)
                await until(lambda: _told(behind, "c4999"))
                await until(lambda: ear.heard)
            await behind.close()
        return len(ear.heard)

    assert uvloop.run(scene()) == 1


def _is_back(listening: Listening, ear: Ear, times: int) -> bool:
    return listening.connected and ear.missed == times


def _has_heard(ear: Ear, count: int) -> bool:
    return len(ear.heard) >= count


async def _told(broker: Broker, conversation: str) -> bool:
    try:
        await broker.live.tell([Told(conversation, b"")])
    except BrokerUnavailable:
        return False
    return True


async def _unwatch(listening: Listening) -> None:
    listening.unwatch("c")


async def _calls(redis: Client, command: str) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def _pinged(redis: Client, times: int) -> bool:
    return await _calls(redis, "ping") >= times


async def _subscribed(redis: "Redis[str] | Redis[bytes]", count: int) -> bool:
    return len(await redis.pubsub_channels()) == count

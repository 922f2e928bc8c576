"""Listening through a connection that is cut, falls silent or is refused, and what the server is asked for it."""

import asyncio
import time
from functools import partial

import pytest
import uvloop

from replyline.broker import Broker, BrokerUnavailable, Listening, Told
from replyline.embedded import EmbeddedValkey
from tests.broker.ears import Ear, calls, listen, subscribed
from tests.broker.scene import Client
from tests.proxy import FaultProxy
from tests.waiting import until


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


async def test_ten_thousand_conversations_come_back_in_one_go(own_valkey: EmbeddedValkey, own_redis: Client) -> None:
    ear = Ear()
    watched = [f"conversation-{number}" for number in range(10_000)]
    async with FaultProxy(own_valkey.url) as proxy:
        behind = Broker(proxy.url())
        async with listen(behind, ear, *watched) as listening:
            before = await calls(own_redis, "subscribe")
            assert before <= 20, "one write, in a few commands"
            await proxy.cut()
            began = time.monotonic()
            await until(lambda: ear.missed == 1 and listening.connected)
            assert time.monotonic() - began < 2.0
            assert await calls(own_redis, "subscribe") - before <= 20
            assert len(await own_redis.pubsub_channels()) == 10_000
            for conversation in watched[1:]:
                listening.unwatch(conversation)
            await until(lambda: subscribed(own_redis, 1))


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
        assert await calls(own_redis, "subscribe") == 1
        assert await calls(own_redis, "unsubscribe") == 0


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
        assert await calls(own_redis, "subscribe") == 0
        wire.resume_writing()
        await listening.watching("c")
        assert await own_redis.pubsub_channels() == [broker._live_names.channel("c").decode()]


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


async def _told(broker: Broker, conversation: str) -> bool:
    try:
        await broker.live.tell([Told(conversation, b"")])
    except BrokerUnavailable:
        return False
    return True


async def _unwatch(listening: Listening) -> None:
    listening.unwatch("c")


async def _pinged(redis: Client, times: int) -> bool:
    return await calls(redis, "ping") >= times

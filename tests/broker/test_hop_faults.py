"""A call that adds and takes a job, and what goes wrong at that moment: none is lost, none runs twice, none stays active."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from replyline.broker import Broker, BrokerUnavailable, NotAcknowledged, Publication, PublicationsRefused
from replyline.embedded import EmbeddedValkey
from tests.broker.scene import PREFIX, QUEUE, Blocked, Client, Desk, at_work, job, jobs
from tests.proxy import FaultProxy
from tests.waiting import until


@asynccontextmanager
async def _behind(proxy: FaultProxy) -> AsyncIterator[Broker]:
    broker = Broker(proxy.url())
    await broker.open()
    yield broker
    await broker.close()


async def test_a_job_whose_answer_was_lost_runs_once(valkey_url: str, broker: Broker) -> None:
    desk = Desk()
    async with (
        FaultProxy(valkey_url) as proxy,
        _behind(proxy) as behind,
        at_work(behind.worker(QUEUE, desk, concurrency=4, name="w")),
    ):
        await _works(behind, desk)
        proxy.freeze(replies_only=True)
        publishing = asyncio.create_task(_until_published(behind, [job("a"), job("b")]))
        await until(partial(_are, broker, "active", "a", "b"))  # taken, and nobody here knows
        await proxy.cut()
        proxy.thaw()
        await publishing
        await until(partial(_are, broker, "completed", "a", "b"))

    assert sorted(desk.ids) == ["a", "b", "first"]
    assert (await broker.counts(QUEUE)).active == 0


async def test_a_call_that_never_reached_redis_is_made_again(valkey_url: str, broker: Broker) -> None:
    desk = Desk()
    async with (
        FaultProxy(valkey_url) as proxy,
        _behind(proxy) as behind,
        at_work(behind.worker(QUEUE, desk, concurrency=4, name="w")),
    ):
        await _works(behind, desk)
        proxy.freeze()
        publishing = asyncio.create_task(_until_published(behind, [job("a")]))
        await asyncio.sleep(0)
        await proxy.cut()
        proxy.thaw()
        await publishing
        await until(partial(_are, broker, "completed", "a"))

    assert sorted(desk.ids) == ["a", "first"]


@pytest.mark.parametrize("cut", [False, True])
async def test_a_worker_that_closes_while_the_answer_is_on_its_way_hands_the_job_back(
    valkey_url: str, broker: Broker, redis: Client, *, cut: bool
) -> None:
    desk = Desk()
    async with FaultProxy(valkey_url) as proxy, _behind(proxy) as behind:
        worker = behind.worker(QUEUE, desk, concurrency=4, name="w")
        working = asyncio.create_task(worker.run())
        await _works(behind, desk)
        proxy.freeze(replies_only=True)
        publishing = asyncio.create_task(_until_published(behind, [job("a")]))
        await until(partial(_are, broker, "active", "a"))
        closing = asyncio.create_task(worker.close(5))
        await until(lambda: worker.taker.ended)
        if cut:
            await proxy.cut()
        proxy.thaw()
        await closing
        await working
        await publishing

        assert await broker.states(QUEUE, ["a"]) == ["prioritized"]
        assert desk.ids == ["first"]
        assert await redis.keys(f"{PREFIX}*:lock") == []
        assert await redis.zrange(f"{PREFIX}marker", 0, -1) == ["0"]


async def test_a_publication_that_is_cancelled_leaves_its_job_to_the_worker(valkey_url: str, broker: Broker) -> None:
    desk = Desk()
    async with (
        FaultProxy(valkey_url) as proxy,
        _behind(proxy) as behind,
        at_work(behind.worker(QUEUE, desk, concurrency=4, name="w")),
    ):
        await _works(behind, desk)
        proxy.freeze(replies_only=True)
        publishing = asyncio.create_task(behind.publish([job("a")]))
        await until(partial(_are, broker, "active", "a"))
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        proxy.thaw()
        await until(partial(_are, broker, "completed", "a"))

    assert desk.ids == ["first", "a"]


async def test_a_full_redis_refuses_the_job_whole_and_takes_it_later(own_valkey: EmbeddedValkey) -> None:
    broker, desk = Broker(own_valkey.url), Desk()
    await broker.open()
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w")):
        await _works(broker, desk)
        await broker.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(NotAcknowledged, match="OOM"):
            await broker.publish(jobs(3))
        assert await broker.states(QUEUE, ["job-0", "job-1", "job-2"]) == [None] * 3
        await broker.command("CONFIG", "SET", "maxmemory", "0")
        await broker.publish(jobs(3))
        await until(partial(_are, broker, "completed", "job-0", "job-1", "job-2"))
    await broker.close()

    assert sorted(desk.ids) == ["first", "job-0", "job-1", "job-2"]


async def test_a_take_that_is_refused_in_its_middle_costs_no_job(own_valkey: EmbeddedValkey, own_redis: Client) -> None:
    """The job is added and taken from its set, and the list where it should go is of another type."""
    broker, desk = Broker(own_valkey.url), Desk()
    await broker.open()
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w")):
        await _works(broker, desk)
        await until(partial(_are, broker, "completed", "first"))
        await own_redis.set(f"{PREFIX}active", "no list")
        with pytest.raises(PublicationsRefused, match="WRONGTYPE"):
            await broker.publish([job("a")])
        await own_redis.delete(f"{PREFIX}active")
        await broker.publish_again([job("a")])
        await until(partial(_are, broker, "completed", "a"))
    await broker.close()

    assert desk.ids == ["first", "a"]


async def test_a_lock_that_is_refused_leaves_no_job_active(own_valkey: EmbeddedValkey) -> None:
    """The script is refused when the job is in the list of the active ones already."""
    broker, desk = Broker(own_valkey.url), Desk()
    await broker.open()
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w", stalled_every_s=0.2)):
        await _works(broker, desk)
        await until(partial(_are, broker, "completed", "first"))
        await broker.command("ACL", "SETUSER", "default", "-set")
        with pytest.raises(PublicationsRefused, match=r"NOPERM|no permissions"):
            await broker.publish([job("a")])
        assert await broker.states(QUEUE, ["a"]) == ["active"]
        await broker.command("ACL", "SETUSER", "default", "+@all")
        await broker.publish_again([job("a")])
        await until(partial(_are, broker, "completed", "a"), timeout_s=20)
    await broker.close()

    assert desk.ids == ["first", "a"]


async def test_what_cannot_be_asked_after_a_lost_connection_is_asked_until_redis_says_it(
    own_valkey: EmbeddedValkey, own_broker: Broker
) -> None:
    desk = Desk()
    async with FaultProxy(own_valkey.url) as proxy, _behind(proxy) as behind:
        worker = behind.worker(QUEUE, desk, concurrency=4, name="w")
        async with at_work(worker):
            await _works(behind, desk)
            proxy.freeze(replies_only=True)
            publishing = asyncio.create_task(_until_published(behind, [job("a")]))
            await until(partial(_are, own_broker, "active", "a"))
            await own_broker.command("ACL", "SETUSER", "default", "-lrange")
            await proxy.cut()
            proxy.thaw()
            await publishing
            await until(lambda: "lrange" in (worker.trouble or ""), timeout_s=20)
            await own_broker.command("ACL", "SETUSER", "default", "+@all")
            await until(partial(_are, own_broker, "completed", "a"), timeout_s=20)  # its lock would end after 30 s

    assert desk.ids == ["first", "a"]


async def test_a_server_that_forgot_the_scripts_is_told_them_again(own_broker: Broker, own_redis: Client) -> None:
    desk = Desk()
    async with at_work(own_broker.worker(QUEUE, desk, concurrency=4, name="w")):
        await _works(own_broker, desk)
        for new in jobs(3):
            await own_redis.script_flush()
            await own_broker.publish([new])
        await until(partial(_are, own_broker, "completed", "job-0", "job-1", "job-2"))

    assert sorted(desk.ids) == ["first", "job-0", "job-1", "job-2"]


async def test_jobs_that_are_published_through_a_connection_that_is_cut_again_and_again_run_once_each(
    valkey_url: str, broker: Broker, redis: Client
) -> None:
    desk, count = Desk(), 300
    async with FaultProxy(valkey_url) as proxy, _behind(proxy) as behind:

        async def publish(turn: int) -> None:
            for number in range(turn, count, 3):
                await _until_published(behind, [job(f"job-{number}")])

        async with at_work(behind.worker(QUEUE, desk, concurrency=10, name="w")):
            publishing = [asyncio.create_task(publish(turn)) for turn in range(3)]
            for cut in range(1, 8):
                await until(partial(_has_seen, desk, 35 * cut), timeout_s=20)
                await proxy.cut()
            await asyncio.gather(*publishing)
            await until(partial(_all_completed, broker, count), timeout_s=20)

    assert sorted(desk.ids) == sorted(f"job-{number}" for number in range(count))
    assert (await broker.counts(QUEUE)).active == 0
    assert await redis.keys(f"{PREFIX}*:lock") == []


async def _works(broker: Broker, desk: Desk) -> None:
    """Run one job, and wait until the worker wants another one."""
    await broker.publish([job("first")])
    await until(lambda: desk.seen)


async def _until_published(broker: Broker, publications: list[Publication]) -> None:
    async def published() -> bool:
        try:
            await broker.publish(publications)
        except BrokerUnavailable:
            return False
        return True

    await until(published)


async def _are(broker: Broker, state: str, *job_ids: str) -> bool:
    return await broker.states(QUEUE, job_ids) == [state] * len(job_ids)


async def _all_completed(broker: Broker, count: int) -> bool:
    return (await broker.counts(QUEUE)).completed == count


def _has_seen(desk: Desk | Blocked, count: int) -> bool:
    return len(desk.seen) >= count

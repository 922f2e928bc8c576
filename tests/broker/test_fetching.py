"""When a worker takes jobs: idle, delayed, limited, full, and how many calls that costs."""

import asyncio
import time
from functools import partial

import pytest

from replyline.broker import Broker, Completed
from replyline.embedded import EmbeddedValkey
from tests.broker.scene import PREFIX, QUEUE, Blocked, Client, Desk, at_work, events, job, jobs, script_calls
from tests.waiting import until


async def test_an_idle_worker_still_picks_up_after_its_blocking_wait_ended_several_times(
    own_broker: Broker, own_redis: Client
) -> None:
    async def waited_often() -> bool:
        stats = await own_redis.info("commandstats")
        return bool(stats.get("cmdstat_bzpopmin", {}).get("calls", 0) >= 3)

    desk = Desk()
    async with at_work(own_broker.worker(QUEUE, desk, concurrency=4, name="w")):
        await until(waited_often, timeout_s=20)
        sent = time.monotonic()
        await own_broker.publish([job("a")])
        await until(lambda: desk.seen)

    assert time.monotonic() - sent < 0.25


async def test_a_delay_of_250_ms_fires_before_300_ms(broker: Broker, redis: Client) -> None:
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w")):
        for number in range(5):
            await broker.publish([job(f"job-{number}", delay_ms=250)])
            await until(partial(_has_seen, desk, number + 1))

    happened = await events(redis)
    due = {event["jobId"]: int(event["delay"]) for _, event in happened if event["event"] == "delayed"}
    late = sorted(at_ms - due[event["jobId"]] for at_ms, event in happened if event["event"] == "active")
    assert late[0] >= 0
    assert late[2] < 50, "the middle of five was late by so many milliseconds"


async def test_a_shorter_delay_added_later_fires_first(broker: Broker) -> None:
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish([job("long", delay_ms=60_000)])
        await until(lambda: _marker_taken(broker))
        await broker.publish([job("short", delay_ms=50)])
        await until(lambda: desk.ids == ["short"], timeout_s=1.0)


async def test_a_rate_limit_lets_bursts_through_in_their_time(broker: Broker, redis: Client) -> None:
    await broker.publish(jobs(12))
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=10, name="w", rate_limit=(3, 0.3))):
        await until(lambda: len(desk.seen) == 12)

    active = [at_ms for at_ms, event in await events(redis) if event["event"] == "active"]
    assert active[3] - active[0] >= 290
    assert 880 <= active[-1] - active[0] < 1500


async def test_a_rate_limit_holds_over_all_workers(broker: Broker, redis: Client) -> None:
    await broker.publish(jobs(9))
    desk = Desk()
    workers = [
        broker.worker(QUEUE, desk, concurrency=10, name=f"w{number}", rate_limit=(3, 0.3)) for number in range(2)
    ]
    async with at_work(*workers):
        await until(lambda: len(desk.seen) == 9)

    active = [at_ms for at_ms, event in await events(redis) if event["event"] == "active"]
    assert active[-1] - active[0] >= 590


async def test_no_more_run_at_once_than_there_are_slots(broker: Broker) -> None:
    blocked = Blocked()
    worker = broker.worker(QUEUE, blocked, concurrency=3, name="w")
    async with at_work(worker):
        await broker.publish(jobs(10))
        await until(lambda: worker.running == 3)
        counts = await broker.counts(QUEUE)
        blocked.go.set()
        await until(lambda: len(blocked.seen) == 10)

    assert (counts.active, counts.prioritized) == (3, 7)


async def test_a_backlog_fills_all_slots_of_a_wide_worker(broker: Broker) -> None:
    blocked = Blocked()
    worker = broker.worker(QUEUE, blocked, concurrency=200, name="w")
    await broker.publish(jobs(500))
    async with at_work(worker):
        await until(lambda: worker.running == 200, timeout_s=2.0)
        blocked.go.set()
        await until(lambda: len(blocked.seen) == 500)

    assert (await broker.counts(QUEUE)).completed == 500


async def test_a_full_worker_leaves_the_rest_to_another(broker: Broker) -> None:
    full, other = Blocked(), Desk()
    async with at_work(broker.worker(QUEUE, full, concurrency=1, name="full")):
        await broker.publish(jobs(1))
        await until(lambda: full.seen)
        async with at_work(broker.worker(QUEUE, other, concurrency=1, name="other")):
            await broker.publish(jobs(20)[1:])
            await until(lambda: len(other.seen) == 19)
        full.go.set()

    assert len(full.seen) == 1


async def test_a_global_concurrency_is_kept(broker: Broker, redis: Client) -> None:
    await redis.hset(f"{PREFIX}meta", "concurrency", "2")
    await broker.publish(jobs(20))
    at_once: list[int] = []

    async def handler(_: object) -> Completed:
        at_once.append(await redis.llen(f"{PREFIX}active"))
        return Completed()

    async with at_work(broker.worker(QUEUE, handler, concurrency=10, name="w")):
        await until(lambda: len(at_once) == 20)

    assert max(at_once) <= 2


async def test_jobs_of_one_priority_start_in_the_order_they_were_added(broker: Broker) -> None:
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish(jobs(200))
        await until(lambda: len(desk.seen) == 200)

    assert desk.ids == [f"job-{number}" for number in range(200)]


@pytest.mark.parametrize("concurrency", [1, 50])
async def test_a_job_that_comes_alone_from_elsewhere_costs_three_calls(
    own_valkey: EmbeddedValkey, own_broker: Broker, own_redis: Client, concurrency: int
) -> None:
    """Its add, its fetch and its end; nothing is asked for when nothing can be there."""
    elsewhere = Broker(own_valkey.url)
    await elsewhere.open()
    desk = Desk()
    count = 100
    async with at_work(own_broker.worker(QUEUE, desk, concurrency=concurrency, name="w")):
        before = await script_calls(own_redis)
        for number in range(count):
            await elsewhere.publish([job(f"job-{number}")])
            await until(partial(_has_seen, desk, number + 1))
        after = await script_calls(own_redis)
    await elsewhere.close()

    assert (after - before) / count <= 3.3
    assert (await own_broker.counts(QUEUE)).completed == count


async def test_a_second_worker_on_the_queue_adds_at_most_one_call_a_job(
    own_valkey: EmbeddedValkey, own_broker: Broker, own_redis: Client
) -> None:
    desk, elsewhere = Desk(), Broker(own_valkey.url)
    await elsewhere.open()
    workers = [own_broker.worker(QUEUE, desk, concurrency=10, name=f"w{number}") for number in range(2)]
    async with at_work(*workers):
        before = await script_calls(own_redis)
        for number in range(100):
            await elsewhere.publish([job(f"job-{number}")])
            await until(partial(_has_seen, desk, number + 1))
        after = await script_calls(own_redis)
    await elsewhere.close()

    assert (after - before) / 100 <= 4.3


async def test_a_backlog_costs_two_calls_a_job(own_broker: Broker, own_redis: Client) -> None:
    """Its add and its end, which fetches the next."""
    desk = Desk()
    before = await script_calls(own_redis)
    await own_broker.publish(jobs(500))
    async with at_work(own_broker.worker(QUEUE, desk, concurrency=10, name="w")):
        await until(lambda: len(desk.seen) == 500)
    after = await script_calls(own_redis)

    assert (after - before) / 500 <= 2.2


async def test_workers_of_six_queues_share_the_connection(broker: Broker) -> None:
    desks = {f"queue-{number}": Desk() for number in range(6)}
    workers = [broker.worker(queue, desk, concurrency=5, name="w") for queue, desk in desks.items()]
    async with at_work(*workers):
        await broker.publish([job(f"job-{number}", queue=queue) for number in range(20) for queue in desks])
        await until(lambda: all(len(desk.seen) == 20 for desk in desks.values()))

    counts = await asyncio.gather(*(broker.counts(queue) for queue in desks))
    assert [count.completed for count in counts] == [20] * 6


def _has_seen(desk: Desk, count: int) -> bool:
    return len(desk.seen) >= count


async def _marker_taken(broker: Broker) -> bool:
    return await broker.command("EXISTS", f"{PREFIX}marker") == 0

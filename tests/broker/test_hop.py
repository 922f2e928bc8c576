"""A job that a process publishes and can run at once is added and taken in one call, and that changes nothing else."""

import asyncio
from functools import partial

import pytest

from replyline.broker import ActiveJob, Broker, Completed
from tests.broker.scene import PREFIX, QUEUE, Blocked, Client, Desk, at_work, events, job, jobs, script_calls
from tests.waiting import until


async def test_a_job_of_the_workers_own_process_costs_two_calls_and_leaves_no_marker(
    own_broker: Broker, own_redis: Client
) -> None:
    desk, count = Desk(), 100
    async with at_work(own_broker.worker(QUEUE, desk, concurrency=50, name="w")):
        await until(partial(_waits_for_marker, own_broker))
        before = await script_calls(own_redis)
        for number in range(count):
            await own_broker.publish([job(f"job-{number}")])
            assert await own_redis.exists(f"{PREFIX}marker") == 0
            await until(partial(_has_seen, desk, number + 1))
        after = await script_calls(own_redis)

    assert (after - before) / count <= 2.3
    assert (await own_broker.counts(QUEUE)).completed == count


async def test_a_job_is_in_its_handler_when_its_publication_has_returned(broker: Broker) -> None:
    blocked = Blocked()
    worker = broker.worker(QUEUE, blocked, concurrency=4, name="w")
    async with at_work(worker):
        await until(partial(_waits_for_marker, broker))
        await broker.publish([job("a"), job("b")])
        assert worker.running == 2
        blocked.go.set()


async def test_what_is_taken_is_the_first_by_priority_and_the_rest_keeps_its_marker(
    broker: Broker, redis: Client
) -> None:
    desk = Desk()
    await redis.hset(f"{PREFIX}meta", "paused", "1")
    await broker.publish([job("urgent", priority=1), job("normal", priority=3)])
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w")):
        await until(partial(_waits_for_marker, broker))
        await redis.hdel(f"{PREFIX}meta", "paused")  # without a marker: nobody is told that the two can be taken
        await broker.publish([job("late", priority=5)])
        await until(lambda: len(desk.seen) == 3)

    assert desk.ids == ["urgent", "normal", "late"]


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(broker: Broker) -> None:
    desk = Desk()
    await broker.pause(QUEUE)
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w")):
        await broker.publish(jobs(3))
        counts = await broker.counts(QUEUE)
        await broker.resume(QUEUE)
        await until(lambda: len(desk.seen) == 3)

    assert (counts.prioritized, counts.active) == (3, 0)


async def test_a_rate_limit_holds_for_jobs_of_the_same_process(broker: Broker, redis: Client) -> None:
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=20, name="w", rate_limit=(3, 0.3))):
        for new in jobs(9):
            await broker.publish([new])
        await until(lambda: len(desk.seen) == 9)

    active = [at_ms for at_ms, event in await events(redis) if event["event"] == "active"]
    assert active[3] - active[0] >= 290
    assert active[-1] - active[0] >= 590


async def test_a_global_concurrency_holds_for_jobs_of_the_same_process(broker: Broker, redis: Client) -> None:
    await redis.hset(f"{PREFIX}meta", "concurrency", "2")
    at_once: list[int] = []

    async def handler(_: ActiveJob) -> Completed:
        at_once.append(await redis.llen(f"{PREFIX}active"))
        return Completed()

    async with at_work(broker.worker(QUEUE, handler, concurrency=10, name="w")):
        for new in jobs(20):
            await broker.publish([new])
        await until(lambda: len(at_once) == 20)

    assert max(at_once) <= 2


async def test_what_a_worker_has_no_room_for_is_left_to_another(broker: Broker, valkey_url: str) -> None:
    full, desk, other = Blocked(), Desk(), Broker(valkey_url)
    await other.open()
    async with at_work(broker.worker(QUEUE, full, concurrency=3, name="full")):
        await broker.publish(jobs(3))
        await until(lambda: len(full.seen) == 3)
        async with at_work(other.worker(QUEUE, desk, concurrency=3, name="other")):
            for number in range(10):
                await broker.publish([job(f"more-{number}")])
                await until(partial(_has_seen, desk, number + 1), timeout_s=1.2)  # sooner than by a look of its own
        full.go.set()
    await other.close()

    assert (len(full.seen), len(desk.seen)) == (3, 10)


async def test_a_delayed_job_that_has_become_due_is_taken_first(broker: Broker, redis: Client) -> None:
    desk = Desk()
    await broker.publish([job("due", priority=1, delay_ms=60_000)])
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w")):
        await until(partial(_waits_for_marker, broker))
        await redis.zadd(f"{PREFIX}delayed", {"due": 1})  # nobody is told that it is due now
        await broker.publish([job("late", priority=5)])
        await until(lambda: len(desk.seen) == 2)

    assert desk.ids == ["due", "late"]


async def test_a_job_that_is_known_runs_no_second_time(broker: Broker) -> None:
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w")):
        for _ in range(3):
            await broker.publish([job("a"), job("a")])
        await broker.publish([job("b")])
        await until(lambda: "b" in desk.ids)

    assert sorted(desk.ids) == ["a", "b"]


async def test_a_closed_worker_is_brought_nothing(broker: Broker) -> None:
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w")):
        await broker.publish([job("a")])
        await until(lambda: desk.seen)
    await broker.publish([job("b")])

    assert await broker.states(QUEUE, ["b"]) == ["prioritized"]
    assert await broker.command("ZRANGE", f"{PREFIX}marker", "0", "-1") == [b"0"]


async def test_a_worker_that_does_not_run_is_brought_nothing(broker: Broker) -> None:
    broker.worker(QUEUE, Desk(), concurrency=4, name="w")
    await broker.publish([job("a")])

    assert await broker.states(QUEUE, ["a"]) == ["prioritized"]


@pytest.mark.parametrize("concurrency", [2, 3, 10])
async def test_jobs_from_here_and_from_elsewhere_never_need_more_slots_than_there_are(
    broker: Broker, valkey_url: str, concurrency: int
) -> None:
    running, most, seen = 0, 0, list[str]()
    elsewhere = Broker(valkey_url)
    await elsewhere.open()

    async def handler(given: ActiveJob) -> Completed:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await broker.ping()
        seen.append(given.id)
        running -= 1
        return Completed()

    async def publish(by: Broker, name: str) -> None:
        for number in range(150):
            await by.publish([job(f"{name}-{number}", priority=1 + number % 3)])

    async with at_work(broker.worker(QUEUE, handler, concurrency=concurrency, name="w")):
        await asyncio.gather(
            *(
                publish(by, f"{name}{turn}")
                for by, name in ((broker, "here"), (elsewhere, "there"))
                for turn in range(2)
            )
        )
        await until(lambda: len(seen) >= 600, timeout_s=20)
    await elsewhere.close()

    assert len(set(seen)) == len(seen) == 600
    assert most <= concurrency
    assert (await broker.counts(QUEUE)).completed == 600


async def _waits_for_marker(broker: Broker) -> bool:
    """Whether a worker waits: then nothing else is on its way that could take a job."""
    name = await broker.command("CLIENT", "LIST")
    database = await broker.command("CLIENT", "INFO")
    mine = database.decode().partition(" db=")[2].partition(" ")[0] if isinstance(database, bytes) else ""
    lines = name.decode().splitlines() if isinstance(name, bytes) else []
    return any(f" db={mine} " in line and "cmd=bzpopmin" in line for line in lines)


def _has_seen(desk: Desk, count: int) -> bool:
    return len(desk.seen) >= count

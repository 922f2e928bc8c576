"""Closing a worker leaves nothing of its jobs behind, however busy it was."""

import asyncio
import time

import pytest

from replyline.broker import ActiveJob, Broker, Completed, Outcome
from tests.broker.scene import PREFIX, QUEUE, Blocked, Client, Desk, at_work, fields, jobs
from tests.waiting import until


@pytest.mark.parametrize("run", range(5))
async def test_closing_under_load_leaves_nothing_active(broker: Broker, redis: Client, run: int) -> None:
    done: list[str] = []

    async def handler(given: ActiveJob) -> Outcome:
        await asyncio.sleep(0)
        done.append(given.id)
        return Completed()

    await broker.publish(jobs(400))
    worker = broker.worker(QUEUE, handler, concurrency=20, name="w")
    task = asyncio.create_task(worker.run())
    await until(lambda: len(done) >= 20 * run)
    await worker.close(0.5)
    await task

    counts = await broker.counts(QUEUE)
    assert counts.active == 0
    assert (counts.completed, counts.prioritized) == (len(done), 400 - len(done))
    assert await redis.keys(f"{PREFIX}*:lock") == []


async def test_closing_waits_for_what_runs(broker: Broker) -> None:
    blocked = Blocked()
    worker = broker.worker(QUEUE, blocked, concurrency=3, name="w")
    task = asyncio.create_task(worker.run())
    await broker.publish(jobs(3))
    await until(lambda: len(blocked.seen) == 3)
    closing = asyncio.create_task(worker.close(10))
    await asyncio.sleep(0)
    blocked.go.set()
    await closing
    await task

    assert (await broker.counts(QUEUE)).completed == 3
    assert not blocked.cancelled


async def test_what_does_not_finish_in_time_is_handed_back_at_once_with_no_attempt_used(
    broker: Broker, redis: Client
) -> None:
    blocked, other = Blocked(), Desk()
    worker = broker.worker(QUEUE, blocked, concurrency=3, name="w")
    task = asyncio.create_task(worker.run())
    await broker.publish(jobs(5))
    await until(lambda: len(blocked.seen) == 3)
    async with at_work(broker.worker(QUEUE, other, concurrency=1, name="other")):
        await until(lambda: other.ids == ["job-3", "job-4"])
        await worker.close(0.05)
        await task
        await until(lambda: len(other.seen) == 5, timeout_s=1.0)

    assert sorted(blocked.cancelled) == ["job-0", "job-1", "job-2"]
    assert [(given.id, given.starts, given.attempts_made) for given in other.seen[2:]] == [
        (f"job-{number}", 2, 0) for number in range(3)
    ]
    assert "stc" not in await fields(redis, "job-0")


async def test_a_job_whose_handler_never_began_is_handed_back_too(broker: Broker) -> None:
    worker = broker.worker(QUEUE, Blocked(), concurrency=50, name="w")
    await broker.publish(jobs(50))
    task = asyncio.create_task(worker.run())
    await until(lambda: worker.running)
    await worker.close(0)
    await task

    counts = await broker.counts(QUEUE)
    assert (counts.active, counts.prioritized) == (0, 50)


async def test_closing_an_idle_worker_takes_no_time(broker: Broker) -> None:
    desk = Desk()
    worker = broker.worker(QUEUE, desk, concurrency=1, name="w")
    task = asyncio.create_task(worker.run())
    await broker.publish(jobs(1))
    await until(lambda: desk.seen)
    began = time.monotonic()
    await worker.close(10)
    await task

    assert time.monotonic() - began < 0.5


async def test_a_closed_worker_leaves_the_sign_of_what_waits_to_the_others(broker: Broker, redis: Client) -> None:
    worker = broker.worker(QUEUE, Blocked(), concurrency=1, name="w")
    task = asyncio.create_task(worker.run())
    await broker.publish(jobs(2))
    await until(lambda: worker.running)
    await worker.close(0)
    await task

    assert await redis.zrange(f"{PREFIX}marker", 0, -1) == ["0"]


async def test_closing_while_redis_is_away_ends_in_bounded_time(own_broker: Broker, own_redis: Client) -> None:
    blocked = Blocked()
    worker = own_broker.worker(QUEUE, blocked, concurrency=1, name="w")
    task = asyncio.create_task(worker.run())
    await own_broker.publish(jobs(1))
    await until(lambda: blocked.seen)
    await own_redis.shutdown(nosave=True)
    began = time.monotonic()
    await worker.close(0.1)
    await task

    assert time.monotonic() - began < 8
    assert blocked.cancelled == ["job-0"]

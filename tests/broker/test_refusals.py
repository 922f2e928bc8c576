"""A Redis that answers, and refuses what a worker needs: the worker says so, and goes on when it may."""

import asyncio
import time

from replyline.broker import Broker
from replyline.embedded import EmbeddedValkey
from tests.broker.scene import PREFIX, QUEUE, Blocked, Client, Desk, at_work, job
from tests.waiting import until


async def test_an_end_that_is_refused_for_a_while_is_made_when_it_may(own_valkey: EmbeddedValkey) -> None:
    broker, blocked = Broker(own_valkey.url), Blocked()
    await broker.open()
    worker = broker.worker(QUEUE, blocked, concurrency=2, name="w")
    async with at_work(worker):
        await broker.publish([job("a")])
        await until(lambda: blocked.seen)
        await broker.command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        blocked.go.set()
        await until(lambda: "NOPERM" in (worker.trouble or ""), timeout_s=20, what="the worker says what is wrong")
        assert worker.running == 1
        await broker.command("ACL", "SETUSER", "default", "+@all")

        async def completed() -> bool:
            return (await broker.counts(QUEUE)).completed == 1

        await until(completed, timeout_s=20)
        await broker.publish([job("b")])
        await until(lambda: len(blocked.seen) == 2 and worker.trouble is None, timeout_s=20)
    await broker.close()


async def test_a_worker_that_waits_is_not_stuck(broker: Broker) -> None:
    blocked = Blocked()
    worker = broker.worker(QUEUE, blocked, concurrency=1, name="w")
    async with at_work(worker):
        await broker.publish([job("a")])
        await until(lambda: blocked.seen)
        await until(lambda: worker.stuck_s == 0, timeout_s=10, what="all slots are busy, and no step is expected")
        blocked.go.set()


async def test_what_a_refused_script_left_half_done_is_added_anew(
    own_valkey: EmbeddedValkey, own_redis: Client
) -> None:
    broker, desk = Broker(own_valkey.url), Desk()
    await broker.open()
    await own_redis.hset(f"{PREFIX}half", mapping={"name": "answer", "data": "{}"})  # its hash is there, in no list
    await broker.publish([job("half")])
    assert (await broker.counts(QUEUE)).prioritized == 0, "a known id is ignored"
    await broker.publish_again([job("half"), job("whole")])
    await broker.publish_again([job("half"), job("whole")])
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await until(lambda: len(desk.seen) == 2)
    assert sorted(desk.ids) == ["half", "whole"]
    await broker.close()


async def test_two_processes_that_publish_the_same_job_again_add_it_once(
    own_valkey: EmbeddedValkey, own_redis: Client
) -> None:
    one, other = Broker(own_valkey.url), Broker(own_valkey.url)
    await one.open()
    await other.open()
    lost = [job(f"lost-{number}") for number in range(200)]
    await asyncio.gather(*(broker.publish_again(lost) for broker in (one, other) * 5))
    listed = await own_redis.zrange(f"{PREFIX}prioritized", 0, -1)
    assert sorted(listed) == sorted(new.job_id for new in lost)
    assert [name for name in listed if not await own_redis.exists(f"{PREFIX}{name}")] == []
    added = [entry for _, entry in await own_redis.xrange(f"{PREFIX}events") if entry["event"] == "added"]
    assert len(added) == len(lost), "a job that was removed and added anew would be announced twice"
    await one.close()
    await other.close()


async def test_the_times_of_jobs_are_redis_time(broker: Broker) -> None:
    answer = await broker.command("TIME")
    assert isinstance(answer, list)
    seconds, micros = (int(part) for part in answer if isinstance(part, bytes))
    assert abs(broker.now_ms() - (seconds * 1000 + micros // 1000)) < 1000
    began, at = time.monotonic(), broker.now_ms()
    await until(lambda: broker.now_ms() - at >= 50)
    assert time.monotonic() - began >= 0.045

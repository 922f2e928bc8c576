"""What happens when a worker, the connection or Redis itself is lost."""

import asyncio
import os
import signal
import time
from functools import partial
from itertools import pairwise

import pytest

from replyline.broker import ActiveJob, Broker, BrokerUnavailable, Completed, Failed, Outcome, Retry
from replyline.embedded import EmbeddedValkey
from tests.broker.scene import PREFIX, QUEUE, Blocked, Client, Desk, at_work, events, fields, job, jobs, vanish
from tests.proxy import FaultProxy
from tests.waiting import until


async def test_the_jobs_of_a_vanished_worker_run_elsewhere(broker: Broker) -> None:
    blocked, desk = Blocked(), Desk()
    lost = broker.worker(QUEUE, blocked, concurrency=2, name="lost", lock_s=0.3, stalled_every_s=60)
    task = asyncio.create_task(lost.run())
    await broker.publish(jobs(2))
    await until(lambda: len(blocked.seen) == 2)
    await vanish(lost, task)
    await broker.command("DEL", f"{PREFIX}stalled-check")
    async with at_work(broker.worker(QUEUE, desk, concurrency=2, name="w", stalled_every_s=0.2)):
        await until(lambda: len(desk.seen) == 2)

    assert [(given.stalled, given.starts, given.deferred_failure) for given in desk.seen] == [(1, 2, None)] * 2


async def test_a_job_that_lost_too_many_workers_is_handed_over_with_its_deferred_failure(
    broker: Broker, redis: Client
) -> None:
    desk = Desk(lambda given: Failed(given.deferred_failure or "none"))
    await broker.publish([job("a")])
    for _ in range(2):
        blocked = Blocked()
        lost = broker.worker(QUEUE, blocked, concurrency=1, name="lost", lock_s=0.2, stalled_every_s=0.1, max_stalled=1)
        task = asyncio.create_task(lost.run())
        await until(partial(_has_seen, blocked, 1))
        await vanish(lost, task)
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w", stalled_every_s=0.1, max_stalled=1)):
        await until(lambda: desk.seen)

    assert desk.seen[0].stalled == 2
    assert "stalled more than allowable limit" in (desk.seen[0].deferred_failure or "")
    assert "stalled more than allowable limit" in (await fields(redis, "a"))["failedReason"]
    assert await broker.states(QUEUE, ["a"]) == ["failed"]


async def test_a_handler_that_takes_longer_than_the_lock_keeps_its_job(broker: Broker, redis: Client) -> None:
    blocked, other = Blocked(), Desk()
    async with at_work(broker.worker(QUEUE, blocked, concurrency=2, name="w", lock_s=0.3, stalled_every_s=0.1)):
        await broker.publish(jobs(2))
        await until(lambda: len(blocked.seen) == 2)
        left_ms: list[int] = []

        async def renewed_often() -> bool:
            left_ms.append(await redis.pttl(f"{PREFIX}job-0:lock"))
            return sum(later > earlier for earlier, later in pairwise(left_ms)) >= 6  # twice as long as one lock

        async with at_work(broker.worker(QUEUE, other, concurrency=2, name="other", stalled_every_s=0.1)):
            await until(renewed_often)
        blocked.go.set()
        await until(lambda: _completed(broker, 2))

    assert not other.seen
    assert (await fields(redis, "job-0"))["ats"] == "1"


async def test_a_lock_that_was_lost_is_no_crash(broker: Broker, redis: Client) -> None:
    blocked = Blocked()
    async with at_work(broker.worker(QUEUE, blocked, concurrency=1, name="w")):
        await broker.publish(jobs(2))
        await until(lambda: blocked.seen)
        await redis.set(f"{PREFIX}job-0:lock", "somebody else")
        blocked.go.set()
        await until(lambda: _completed(broker, 1))

    assert await broker.states(QUEUE, ["job-0", "job-1"]) == ["active", "completed"]


async def test_a_worker_whose_redis_was_flushed_goes_on(broker: Broker, redis: Client) -> None:
    blocked = Blocked()
    async with at_work(broker.worker(QUEUE, blocked, concurrency=2, name="w", lock_s=0.15)):
        await broker.publish(jobs(2))
        await until(lambda: len(blocked.seen) == 2)
        await redis.flushdb()
        blocked.go.set()
        await broker.publish([job("after")])
        await until(lambda: len(blocked.seen) == 3)

    assert await broker.states(QUEUE, ["job-0", "after"]) == [None, "completed"]


async def test_a_worker_goes_on_after_redis_was_killed(own_valkey: EmbeddedValkey, own_broker: Broker) -> None:
    desk = Desk()
    async with at_work(own_broker.worker(QUEUE, desk, concurrency=5, name="w")):
        await own_broker.publish(jobs(10))
        await until(lambda: len(desk.seen) == 10)
        await _kill(own_valkey)
        await own_valkey.start()
        back = time.monotonic()
        await until(lambda: _published(own_broker, "after"))
        await until(lambda: "after" in desk.ids)

    assert time.monotonic() - back < 2.5


async def test_a_job_that_runs_while_redis_is_killed_is_ended_once_it_is_back(
    own_valkey: EmbeddedValkey, own_broker: Broker, own_redis: Client
) -> None:
    blocked = Blocked()
    async with at_work(own_broker.worker(QUEUE, blocked, concurrency=2, name="w")):
        await own_broker.publish(jobs(2))
        await until(lambda: len(blocked.seen) == 2)
        await until(lambda: _on_disk(own_redis))
        await _kill(own_valkey)
        blocked.go.set()
        await own_valkey.start()
        await until(lambda: _completed(own_broker, 2))

    assert [given.starts for given in blocked.seen] == [1, 1]
    assert (await own_broker.counts(QUEUE)).active == 0


@pytest.mark.parametrize("outcome", [Completed(), Retry(60_000, "no"), Failed("no")])
async def test_an_end_whose_answer_was_lost_is_sent_again_and_counts_once(
    valkey_url: str, broker: Broker, redis: Client, outcome: Outcome
) -> None:
    async with FaultProxy(valkey_url) as proxy:
        behind = Broker(proxy.url())
        await behind.open()

        async def handler(given: ActiveJob) -> Outcome:
            if given.id == "a":
                proxy.freeze(replies_only=True)
            return outcome

        async with at_work(behind.worker(QUEUE, handler, concurrency=1, name="w")):
            await broker.publish([job("a")])
            await until(lambda: _left_active(broker, "a"))  # Redis has carried it out, and we do not know
            await proxy.cut()
            proxy.thaw()
            await broker.publish([job("b")])
            await until(lambda: _left_active(broker, "b"))
        await behind.close()

    assert (await fields(redis, "a"))["atm"] == "1"
    happened = [event["event"] for _, event in await events(redis) if event.get("jobId") == "a"]
    assert happened[:3] == ["added", "waiting", "active"]
    assert len([name for name in happened[3:] if name in {"completed", "delayed", "failed"}]) == 1


async def test_a_job_whose_fetch_got_lost_on_the_way_runs_at_once(valkey_url: str, broker: Broker) -> None:
    async with FaultProxy(valkey_url) as proxy:
        behind = Broker(proxy.url())
        await behind.open()
        desk = Desk()
        async with at_work(behind.worker(QUEUE, desk, concurrency=1, name="w")):
            await broker.publish([job("first")])
            await until(lambda: _left_active(broker, "first"))
            await until(lambda: _waits_for_marker(broker, valkey_url))
            proxy.freeze(replies_only=True)
            await broker.publish([job("lost")])
            await until(lambda: _marker_gone(broker))  # taken by the worker, who was never told
            await proxy.cut()
            proxy.thaw()
            # Without a look of its own it would be found when its lock has run out, after 30 s.
            await until(lambda: "lost" in desk.ids, timeout_s=20.0)
        await behind.close()

    assert (await broker.counts(QUEUE)).active == 0


async def test_a_redis_that_hangs_is_given_up_in_time(valkey_url: str) -> None:
    async with FaultProxy(valkey_url) as proxy:
        broker = Broker(proxy.url(), reply_timeout_s=0.4)
        await broker.open()
        await broker.ping()
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            await broker.ping()
        assert time.monotonic() - began < 2

        proxy.thaw()
        await until(lambda: _answers(broker))
        await broker.close()


async def test_a_worker_works_on_through_a_connection_that_is_cut_again_and_again(
    valkey_url: str, broker: Broker, redis: Client
) -> None:
    await broker.publish(jobs(300))
    async with FaultProxy(valkey_url) as proxy:
        behind = Broker(proxy.url())
        await behind.open()
        desk = Desk()
        async with at_work(behind.worker(QUEUE, desk, concurrency=10, name="w")):
            for cut in range(1, 6):
                await until(partial(_has_seen, desk, 40 * cut))
                await proxy.cut()
            await until(lambda: _completed(broker, 300), timeout_s=20)
        await behind.close()

    assert (await broker.counts(QUEUE)).active == 0
    assert await redis.keys(f"{PREFIX}*:lock") == []


async def test_a_connection_that_is_refused_for_a_while_is_made_later(valkey_url: str) -> None:
    async with FaultProxy(valkey_url) as proxy:
        broker = Broker(proxy.url())
        await broker.open()
        proxy.refuse()
        await proxy.cut()
        with pytest.raises(BrokerUnavailable):
            await broker.ping()
        proxy.accept()
        await until(lambda: _answers(broker))
        await broker.close()


async def _waits_for_marker(broker: Broker, url: str) -> bool:
    """Whether a client of this database is in its blocking call: the reply that gets lost is to that one."""
    clients = await broker.command("CLIENT", "LIST")
    database = f" db={url.rpartition('=')[2]} "
    lines = clients.decode().splitlines() if isinstance(clients, bytes) else []
    return any(database in line and "cmd=bzpopmin" in line for line in lines)


def _has_seen(desk: Desk | Blocked, count: int) -> bool:
    return len({given.id for given in desk.seen}) >= count


async def _kill(valkey: EmbeddedValkey) -> None:
    pid = valkey.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: valkey.pid is None)
    await valkey.stop()  # only our own bookkeeping is left to stop


async def _on_disk(redis: Client) -> bool:
    found = await redis.info("persistence")
    return bool(found["aof_pending_bio_fsync"] == 0 and found["aof_buffer_length"] == 0)


async def _published(broker: Broker, job_id: str) -> bool:
    try:
        await broker.publish([job(job_id)])
    except BrokerUnavailable:
        return False
    return True


async def _answers(broker: Broker) -> bool:
    try:
        await broker.ping()
    except BrokerUnavailable:
        return False
    return True


async def _completed(broker: Broker, count: int) -> bool:
    try:
        return (await broker.counts(QUEUE)).completed == count
    except BrokerUnavailable:
        return False


async def _left_active(broker: Broker, job_id: str) -> bool:
    return (await broker.states(QUEUE, [job_id]))[0] in {"completed", "delayed", "failed"}


async def _marker_gone(broker: Broker) -> bool:
    return await broker.command("EXISTS", f"{PREFIX}marker") == 0

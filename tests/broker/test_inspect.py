"""Looking at queues and steering them."""

import base64
import time

import pytest

from replyline.broker import Broker, CommandRefused, Completed, Publication
from tests.broker.scene import PREFIX, QUEUE, Blocked, Client, Desk, at_work, job, jobs
from tests.waiting import until


async def test_states_are_told_in_the_order_asked(broker: Broker) -> None:
    await broker.publish([job("plain", priority=0), job("prio"), job("later", delay_ms=60_000)])

    states = await broker.states(QUEUE, ["later", "nobody", "prio", "plain"])

    assert states == ["delayed", None, "prioritized", "waiting"]


async def test_counts_tell_each_state(broker: Broker) -> None:
    blocked = Blocked()
    async with at_work(broker.worker(QUEUE, blocked, concurrency=1, name="w")):
        await broker.publish([job("runs", priority=1)])
        await until(lambda: blocked.seen)
        await broker.publish([job("plain", priority=0), job("prio"), job("later", delay_ms=60_000)])
        counts = await broker.counts(QUEUE)
        blocked.go.set()

    assert (counts.waiting, counts.prioritized, counts.delayed, counts.active) == (1, 1, 1, 1)
    assert not counts.is_paused


async def test_the_oldest_waiting_job_is_found_behind_other_priorities(broker: Broker) -> None:
    now = time.time_ns() // 1_000_000
    await broker.publish(
        [
            Publication(QUEUE, "basic", "answer", b"{}", 5, timestamp_ms=now - 9000),
            Publication(QUEUE, "premium", "answer", b"{}", 1, timestamp_ms=now - 10),
            Publication(QUEUE, "plain", "answer", b"{}", 0, timestamp_ms=now - 20),
        ]
    )

    assert await broker.oldest_waiting_ms(QUEUE) == now - 9000


async def test_where_nothing_can_run_there_is_no_oldest(broker: Broker) -> None:
    await broker.publish([job("later", delay_ms=60_000)])

    assert await broker.oldest_waiting_ms(QUEUE) is None


async def test_a_waiting_job_can_be_removed_and_an_active_one_not(broker: Broker, redis: Client) -> None:
    blocked = Blocked()
    async with at_work(broker.worker(QUEUE, blocked, concurrency=1, name="w")):
        await broker.publish([job("runs"), job("waits")])
        await until(lambda: blocked.seen)
        assert await broker.remove(QUEUE, "waits")
        assert not await broker.remove(QUEUE, "runs")
        assert not await broker.remove(QUEUE, "nobody")
        blocked.go.set()

    assert not await redis.exists(f"{PREFIX}waits")
    assert (await broker.counts(QUEUE)).completed == 1


async def test_a_delayed_job_can_be_promoted(broker: Broker) -> None:
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish([job("later", delay_ms=60_000)])
        assert await broker.promote(QUEUE, "later")
        await until(lambda: desk.ids == ["later"])

    assert not await broker.promote(QUEUE, "later")


async def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(broker: Broker) -> None:
    desk = Desk()
    await broker.pause(QUEUE)
    async with at_work(broker.worker(QUEUE, desk, concurrency=2, name="w")):
        await broker.publish(jobs(5))
        await broker.publish([job("later", delay_ms=1)])
        await until(lambda: _promoted(broker))  # the worker has looked, at the paused queue
        assert (await broker.counts(QUEUE)).is_paused
        assert not desk.seen

        await broker.resume(QUEUE)
        await until(lambda: len(desk.seen) == 6, timeout_s=1.0)

    assert not (await broker.counts(QUEUE)).is_paused


async def test_what_runs_when_a_queue_is_paused_runs_on(broker: Broker) -> None:
    blocked = Blocked()
    async with at_work(broker.worker(QUEUE, blocked, concurrency=1, name="w")):
        await broker.publish(jobs(2))
        await until(lambda: blocked.seen)
        await broker.pause(QUEUE)
        blocked.go.set()
        await until(lambda: _completed(broker, 1))
        assert len(blocked.seen) == 1

        await broker.resume(QUEUE)
        await until(lambda: _completed(broker, 2), timeout_s=1.0)


async def test_draining_removes_what_waits_and_leaves_what_is_delayed(broker: Broker, redis: Client) -> None:
    await broker.publish([*jobs(3), job("plain", priority=0), job("later", delay_ms=60_000)])

    await broker.drain(QUEUE)

    counts = await broker.counts(QUEUE)
    assert (counts.waiting, counts.prioritized, counts.delayed) == (0, 0, 1)
    assert not await redis.exists(f"{PREFIX}job-0")


@pytest.mark.parametrize("priority", [0, 5])
async def test_trimming_keeps_the_newest(broker: Broker, priority: int) -> None:
    await broker.publish(jobs(10, priority=priority))

    assert await broker.trim(QUEUE, keep=3) == 7

    left = await broker.states(QUEUE, [f"job-{number}" for number in range(10)])
    assert [state is not None for state in left] == [False] * 7 + [True] * 3
    assert await broker.trim(QUEUE, keep=3) == 0


async def test_the_epoch_is_gone_with_everything_else(broker: Broker, redis: Client) -> None:
    assert await broker.epoch() is None
    await broker.set_epoch("2026-01")
    assert await broker.epoch() == "2026-01"

    await redis.flushdb()

    assert await broker.epoch() is None


async def test_a_refused_command_says_why(broker: Broker) -> None:
    assert await broker.command("PING") == b"PONG"
    with pytest.raises(CommandRefused, match="unknown command"):
        await broker.command("NONSENSE")


async def _promoted(broker: Broker) -> bool:
    counts = await broker.counts(QUEUE)
    return counts.prioritized == 6 and counts.delayed == 0


async def _completed(broker: Broker, count: int) -> bool:
    return (await broker.counts(QUEUE)).completed == count


async def test_workers_are_listed_by_the_queue_they_wait_for(broker: Broker, redis: Client) -> None:
    async with at_work(broker.worker(QUEUE, Desk(lambda _: Completed()), concurrency=1, name="host 1:42:ab")):
        (worker,) = await until(lambda: broker.workers(QUEUE), what="the worker")
        assert worker.worker == "host_1:42:ab"  # a client's name has no spaces
        assert worker.connected_s >= 0
        assert await broker.workers(f"{QUEUE}-other") == []
        # As Queue.getWorkers of BullMQ for Node looks for them: prefix, the queue's name in base64, ":w:" and the worker's.
        name = f"bull:{base64.b64encode(QUEUE.encode()).decode()}:w:host_1:42:ab"
        assert name in [client["name"] for client in await redis.client_list()]

"""Publication: it goes on, whatever Redis refuses, and says truly what waits."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replyline import metrics
from replyline.broker import Broker
from replyline.embedded import EmbeddedValkey
from replyline.ids import new_id
from replyline.jobs import AI_PROCESSING, INCOMING_MESSAGES
from replyline.publisher import Publisher
from replyline.queues import SPECS
from replyline.store.outbox import NewJob, Outbox
from replyline.supervision import Supervisor
from tests.waiting import until


class _Desk:
    """A publisher on a Redis of its own."""

    def __init__(self, valkey: EmbeddedValkey, broker: Broker, publisher: Publisher, supervisor: Supervisor) -> None:
        self.valkey = valkey
        self.broker = broker
        self.publisher = publisher
        self.supervisor = supervisor

    def publish(self, count: int, *, queue: str = INCOMING_MESSAGES, priority: int = 3) -> list[uuid.UUID]:
        outbox = Outbox()
        jobs = [NewJob(new_id(), queue, "job", b"{}", priority) for _ in range(count)]
        outbox.extend(jobs)
        self.publisher.publish(outbox)
        return [job.id for job in jobs]

    async def waiting(self, queue: str = INCOMING_MESSAGES) -> int:
        return (await self.broker.counts(queue)).prioritized

    async def tell(self, *words: str) -> object:
        return await self.broker.command(*words)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[_Desk]:
    valkey = EmbeddedValkey(tmp_path)
    await valkey.start()
    async with _open(valkey) as desk:
        yield desk
    await valkey.stop()


@asynccontextmanager
async def _open(valkey: EmbeddedValkey) -> AsyncIterator[_Desk]:
    supervisor = Supervisor()
    broker = Broker(valkey.url, supervisor=supervisor)
    await broker.open()
    publisher = Publisher(broker, SPECS.__getitem__, supervisor)
    publisher.start()
    yield _Desk(valkey, broker, publisher, supervisor)
    await publisher.close(grace_s=0)
    await broker.close()


def _gauge(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(name) or 0


async def _until(condition: Callable[[], bool]) -> None:
    await until(condition, timeout_s=20)


async def test_jobs_that_redis_refuses_for_a_while_are_published_when_it_takes_them(desk: _Desk) -> None:
    await desk.tell("ACL", "SETUSER", "default", "-evalsha", "-eval")
    desk.publish(1200)
    await _until(lambda: "NOPERM" in (desk.publisher.trouble(after_s=0.5) or ""))
    assert desk.publisher.unpublished == 1200
    assert _gauge("replyline_unpublished_jobs") == 1200
    assert _gauge("replyline_oldest_unpublished_job_seconds") >= 0.5
    assert desk.supervisor.troubles == {}, "a refusal ends no task"

    await desk.tell("ACL", "SETUSER", "default", "+@all")
    await _until(lambda: not desk.publisher.unpublished)
    assert await desk.waiting() == 1200
    assert desk.publisher.trouble(after_s=0) is None
    assert _gauge("replyline_unpublished_jobs") == 0
    assert _gauge("replyline_oldest_unpublished_job_seconds") == 0


async def test_a_queue_whose_key_is_of_another_type_does_not_hold_up_the_others(desk: _Desk) -> None:
    await desk.tell("SET", f"bull:{INCOMING_MESSAGES}:prioritized", "not a sorted set")
    refused = desk.publish(3)
    desk.publish(700, queue=AI_PROCESSING)
    await until(lambda: desk.waiting(AI_PROCESSING), timeout_s=20)
    await _until(lambda: desk.publisher.unpublished == 3)
    assert desk.publisher.holds(refused[0])
    await _until(lambda: "WRONGTYPE" in (desk.publisher.trouble(after_s=0.2) or ""))

    await desk.tell("DEL", f"bull:{INCOMING_MESSAGES}:prioritized")
    await _until(lambda: not desk.publisher.unpublished)
    assert await desk.waiting() == 3
    assert not desk.publisher.holds(refused[0])


async def test_a_job_that_alone_is_refused_is_left_to_the_sweeper_and_counted(desk: _Desk) -> None:
    def left() -> float:
        return (
            metrics.REGISTRY.get_sample_value("replyline_refused_publications_total", {"queue": INCOMING_MESSAGES}) or 0
        )

    before = left()
    await desk.tell("SET", f"bull:{INCOMING_MESSAGES}:prioritized", "not a sorted set")
    (refused,) = desk.publish(1)
    desk.publish(1, priority=0)  # goes to the queue's list, which is sound
    await _until(lambda: desk.publisher.unpublished == 1)

    async def given_up() -> bool:
        desk.publish(1, priority=0)
        return not desk.publisher.holds(refused)

    await until(given_up, timeout_s=30)
    assert left() - before == 1


async def test_a_job_that_cannot_be_published_at_all_does_not_hold_up_its_neighbours(desk: _Desk) -> None:
    desk.publish(1, queue="no-such-queue")
    desk.publish(2)
    await _until(lambda: not desk.publisher.unpublished)
    assert await desk.waiting() == 2
    assert desk.supervisor.troubles == {}


async def test_jobs_are_published_though_somebody_flushes_the_scripts_all_the_time(desk: _Desk) -> None:
    flushing = Broker(desk.valkey.url)
    await flushing.open()

    async def flush() -> None:
        while True:
            await flushing.command("SCRIPT", "FLUSH")

    storm = asyncio.create_task(flush())
    try:
        for _ in range(20):
            desk.publish(20)
            await asyncio.sleep(0)
        await _until(lambda: not desk.publisher.unpublished)
        assert await desk.waiting() == 400
        assert not storm.done(), "it stormed to the end"
    finally:
        storm.cancel()
        await asyncio.gather(storm, return_exceptions=True)
        await flushing.close()


async def test_a_delay_goes_on_while_redis_is_away(desk: _Desk) -> None:
    desk.valkey.kill()
    outbox = Outbox()
    late = NewJob(new_id(), INCOMING_MESSAGES, "job", b"{}", 3, delay_s=0.3)
    outbox.extend([late])
    desk.publisher.publish(outbox)
    await _until(lambda: desk.publisher.oldest_s > 0.4)
    await desk.valkey.restart()
    await _until(lambda: not desk.publisher.unpublished)
    assert await desk.broker.states(INCOMING_MESSAGES, [late.bullmq_id]) == ["prioritized"]

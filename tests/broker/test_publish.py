"""Publishing: known ids, order, delays, and what happens while Redis is away."""

import pytest

from replyline.broker import Broker, BrokerUnavailable, NotAcknowledged, Publication
from replyline.embedded import EmbeddedValkey
from tests.broker.scene import PREFIX, QUEUE, Client, Desk, at_work, events, fields, job, jobs
from tests.waiting import until


async def test_a_known_id_is_ignored_and_the_first_data_kept(broker: Broker, redis: Client) -> None:
    await broker.publish([job("a", data=b'{"n":1}')])
    await broker.publish([job("a", data=b'{"n":2}')])

    assert (await fields(redis, "a"))["data"] == '{"n":1}'
    assert (await broker.counts(QUEUE)).prioritized == 1


async def test_a_completed_id_that_is_kept_does_not_run_again(broker: Broker) -> None:
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish([job("a")])
        await until(lambda: desk.seen)
        await broker.publish([job("a"), job("b")])
        await until(lambda: "b" in desk.ids)

    assert desk.ids == ["a", "b"]


async def test_one_call_publishes_to_many_queues(broker: Broker) -> None:
    await broker.publish([job("a", queue="one"), job("a", queue="two"), job("b", queue="two")])

    assert (await broker.counts("one")).prioritized == 1
    assert (await broker.counts("two")).prioritized == 2


async def test_priorities_run_lowest_number_first_and_in_order_within(broker: Broker) -> None:
    await broker.publish([job(f"p{priority}-{turn}", priority=priority) for turn in range(3) for priority in (5, 1, 3)])
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await until(lambda: len(desk.seen) == 9)

    assert desk.ids == [f"p{priority}-{turn}" for priority in (1, 3, 5) for turn in range(3)]


async def test_a_job_without_priority_overtakes_all(broker: Broker) -> None:
    await broker.publish([job("first", priority=1), job("none", priority=0)])
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await until(lambda: len(desk.seen) == 2)

    assert desk.ids == ["none", "first"]


async def test_a_delay_counts_from_now_though_the_job_was_made_long_ago(broker: Broker, redis: Client) -> None:
    await broker.publish([Publication(QUEUE, "old", "answer", b"{}", 3, delay_ms=60_000, timestamp_ms=1_000_000)])

    [(added_ms, event)] = [entry for entry in await events(redis) if entry[1]["event"] == "delayed"]
    assert 59_000 <= int(event["delay"]) - added_ms <= 60_100
    assert (await fields(redis, "old"))["timestamp"] == "1000000"


@pytest.mark.parametrize("job_id", ["", "123", "a:b", "active"])
def test_an_id_that_cannot_be_a_jobs_is_refused(job_id: str) -> None:
    with pytest.raises(ValueError, match="job id"):
        job(job_id)


@pytest.mark.parametrize("priority", [-1, 2_097_152])
def test_a_priority_out_of_range_is_refused(priority: int) -> None:
    with pytest.raises(ValueError, match="priority"):
        job("a", priority=priority)


async def test_publishing_while_redis_is_down_names_the_jobs_and_works_later(own_valkey: EmbeddedValkey) -> None:
    broker = Broker(own_valkey.url)
    await broker.open()
    await own_valkey.stop()
    batch = jobs(3)
    with pytest.raises(NotAcknowledged) as refused:
        await broker.publish(batch)
    assert refused.value.unacknowledged == tuple(batch)

    await own_valkey.start()
    await until(lambda: _published(broker, batch))
    assert (await broker.counts(QUEUE)).prioritized == 3
    await broker.close()


async def test_opening_while_redis_is_away_is_no_error(own_valkey: EmbeddedValkey) -> None:
    await own_valkey.stop()
    broker = Broker(own_valkey.url)
    await broker.open()
    with pytest.raises(BrokerUnavailable):
        await broker.ping()

    await own_valkey.start()
    await until(lambda: _published(broker, jobs(1)))
    await broker.close()


async def test_publishing_works_after_the_scripts_were_flushed(broker: Broker, redis: Client) -> None:
    await broker.publish([job("before")])
    await redis.script_flush()
    await broker.publish(jobs(3))

    assert await redis.zcard(f"{PREFIX}prioritized") == 4


async def test_a_job_that_redis_refuses_leaves_its_neighbours_published(broker: Broker, redis: Client) -> None:
    await redis.set("bull:broken:prioritized", "not a set")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await broker.publish([job("a"), job("b", queue="broken"), job("c")])

    assert await broker.states(QUEUE, ["a", "c"]) == ["prioritized", "prioritized"]


async def _published(broker: Broker, batch: list[Publication]) -> bool:
    try:
        await broker.publish(batch)
    except BrokerUnavailable:
        return False
    return True

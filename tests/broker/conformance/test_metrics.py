"""The metrics that BullMQ's tools show: `Queue.getMetrics` of BullMQ for Node reads what our worker has counted."""

from replyline.broker import Broker, Completed, Failed
from tests.broker.conformance.reference import Json, ask, need_node
from tests.broker.scene import PREFIX, QUEUE, Client, Desk, at_work, job
from tests.waiting import until

_MINUTE_MS = 60_000
_TWO_WEEKS = 14 * 24 * 60


async def test_node_reads_how_many_jobs_ended_in_each_minute(broker: Broker, redis: Client, valkey_url: str) -> None:
    need_node()
    await _work(broker, "a", "b", "bad")
    for state in ("completed", "failed"):
        await _as_if_begun_minutes_ago(broker, redis, state, 3)
    await _work(broker, "c", "bad-2")

    told = await ask("metrics", valkey_url, QUEUE)

    assert isinstance(told, dict)
    completed, failed = told["completed"], told["failed"]
    assert isinstance(completed, dict)
    assert isinstance(failed, dict)
    assert isinstance(completed["meta"], dict)
    assert isinstance(failed["meta"], dict)
    assert (completed["meta"]["count"], failed["meta"]["count"]) == (3, 2)
    # Newest first. A minute's number is written down with the first job of a later one, and zeros for those without any.
    assert _numbers(completed["data"]) in ([0, 0, 2], [0, 0, 0, 2])
    assert _numbers(failed["data"]) in ([0, 0, 1], [0, 0, 0, 1])


async def test_two_weeks_are_kept_however_long_nothing_ended(broker: Broker, redis: Client) -> None:
    await _work(broker, "a")
    await _as_if_begun_minutes_ago(broker, redis, "completed", 3 * _TWO_WEEKS)
    await _work(broker, "b")
    assert await redis.llen(f"{PREFIX}metrics:completed:data") == _TWO_WEEKS
    await _as_if_begun_minutes_ago(broker, redis, "completed", 5)
    await _work(broker, "c")
    assert await redis.llen(f"{PREFIX}metrics:completed:data") == _TWO_WEEKS


async def test_another_prefix_has_metrics_of_its_own(redis: Client, valkey_url: str) -> None:
    other = Broker(valkey_url, prefix="{other}")
    await other.open()
    try:
        await _work(other, "a")
    finally:
        await other.close()
    assert await redis.hget("{other}:" + QUEUE + ":metrics:completed", "count") == "1"
    assert await redis.exists(f"{PREFIX}metrics:completed") == 0


async def _work(broker: Broker, *job_ids: str) -> None:
    async def ended() -> bool:
        states = await broker.states(QUEUE, job_ids)
        return states == ["failed" if job_id.startswith("bad") else "completed" for job_id in job_ids]

    desk = Desk(lambda given: Failed("no") if given.id.startswith("bad") else Completed())
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish([job(job_id) for job_id in job_ids])
        await until(ended)


async def _as_if_begun_minutes_ago(broker: Broker, redis: Client, state: str, minutes: int) -> None:
    await redis.hset(f"{PREFIX}metrics:{state}", "prevTS", broker.now_ms() - minutes * _MINUTE_MS)


def _numbers(data: Json) -> list[int]:
    assert isinstance(data, list)
    return [int(number) for number in data if isinstance(number, str | int)]

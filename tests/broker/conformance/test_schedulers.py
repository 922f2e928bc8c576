"""Job schedulers of BullMQ for Node go on when we do their jobs: as it would have gone on, and once an iteration."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from replyline.broker import Broker, Completed, Failed, Retry
from replyline.broker.cron import next_due_ms
from tests.broker.conformance.reference import Json, ask, left_behind, need_node
from tests.broker.scene import PREFIX, QUEUE, Blocked, Client, Desk, at_work, vanish
from tests.waiting import until

_NODE = "by-node"
_PATTERNS = (
    "* * * * *", "*/5 * * * *", "0 9 * * 1-5", "30 2 * * *", "15 1-3 * * *", "*/7 * * * * *", "0 0 12 * * MON", "0 0 29 2 *",
    "0 12 1 * 1", "0 0 L * *", "0 0 * * 7", "0 0 * * 5L", "0 0 * * 1#2", "0 */6 ? JAN,MAR *", "0 */2 * * *", "10/15 * * * *",
    "0 0 * * 6-7", "5", "@weekdays", "@hourly", "0 22 28-31 * SUN",
)  # fmt: skip
_ZONES = (None, "Europe/Berlin", "America/New_York", "Asia/Kolkata")
# Before, in and after the hours that Berlin and New York skip or have twice.
_MOMENTS = (
    "2026-03-29T00:30:00", "2026-03-29T01:30:00.250", "2026-10-25T00:15:00", "2026-10-25T00:59:59.999", "2026-10-25T01:15:00",
    "2026-03-08T06:59:00", "2026-11-01T05:30:00", "2026-11-01T06:30:00", "2027-02-28T23:59:59.500",
)  # fmt: skip


async def test_a_pattern_is_due_when_node_says(broker: Broker, valkey_url: str) -> None:
    need_node()
    del broker
    cases = [(_ms(moment), pattern, zone) for moment in _MOMENTS for pattern in _PATTERNS for zone in _ZONES]
    asked = [(after, {"pattern": pattern, "tz": zone or "UTC"}) for after, pattern, zone in cases]

    answers = await ask("due", valkey_url, QUEUE, json.dumps(asked))

    assert isinstance(answers, list)
    ours = [next_due_ms(pattern, zone, after) for after, pattern, zone in cases]
    wrong = [
        (*case, by_us, by_node) for case, by_us, by_node in zip(cases, ours, answers, strict=True) if by_us != by_node
    ]
    assert wrong == []


async def test_the_next_iteration_is_left_as_node_leaves_it(broker: Broker, redis: Client, valkey_url: str) -> None:
    need_node()
    await ask("scenario", valkey_url, _NODE, "schedule")
    await ask("scenario", valkey_url, QUEUE, "scheduled")
    async with _worker(broker, Desk(lambda _: Completed(b'{"ok":1}'))):
        await until(lambda: _counts(broker, completed=1, delayed=1))
    assert await left_behind(redis, QUEUE) == await left_behind(redis, _NODE)


async def test_a_scheduler_fires_again_and_again(broker: Broker, valkey_url: str) -> None:
    need_node()
    desk = Desk()
    async with _worker(broker, desk):
        await _upsert(valkey_url, "tick", {"every": 150})
        await until(lambda: len(desk.seen) >= 4)
    assert len(set(desk.ids)) == len(desk.ids)
    assert all(given.scheduler == "tick" for given in desk.seen)
    assert {given.data for given in desk.seen} == {b'{"n":1}'}


async def test_a_scheduler_ends_at_its_limit(broker: Broker, valkey_url: str) -> None:
    need_node()
    desk = Desk()
    async with _worker(broker, desk):
        await _upsert(valkey_url, "thrice", {"every": 50, "limit": 3})
        await until(lambda: _counts(broker, completed=3, delayed=0))
    assert len(desk.seen) == 3


async def test_a_scheduler_ends_at_its_end_date(broker: Broker, redis: Client, valkey_url: str) -> None:
    need_node()
    await _upsert(valkey_url, "over", {"pattern": "0 0 1 1 *", "endDate": _ms("2100-01-01T00:00:00")})
    await _change_repeat(broker, redis, {"pattern": "0 0 1 1 *", "endDate": broker.now_ms() - 1})
    async with _worker(broker, Desk()):
        await until(lambda: _counts(broker, completed=1, active=0))
    assert await _counts(broker, delayed=0)


async def test_a_pattern_that_begins_immediately_goes_on_at_its_times(
    broker: Broker, redis: Client, valkey_url: str
) -> None:
    need_node()
    desk = Desk()
    async with _worker(broker, desk):
        await _upsert(valkey_url, "yearly", {"pattern": "0 0 1 1 *", "tz": "Asia/Kolkata", "immediately": True})
        await until(lambda: _counts(broker, completed=1, delayed=1))
    due_ms = await redis.zscore(f"{PREFIX}repeat", "yearly")
    assert due_ms is not None
    due = datetime.fromtimestamp(due_ms / 1000, UTC)
    assert (due.month, due.day, due.hour, due.minute) == (12, 31, 18, 30)


async def test_an_offset_stays(broker: Broker, valkey_url: str) -> None:
    need_node()
    async with _worker(broker, desk := Desk()):
        await _upsert(valkey_url, "apart", {"every": 200, "offset": 70})
        await until(lambda: len(desk.seen) >= 3)
    assert {int(job_id.rpartition(":")[2]) % 200 for job_id in desk.ids} == {70}


async def test_a_retry_of_an_iteration_adds_no_other(broker: Broker, valkey_url: str) -> None:
    need_node()
    desk = Desk(lambda given: Completed() if given.attempts_made else Retry(50, "not yet"))
    async with _worker(broker, desk):
        await _upsert(valkey_url, "once-more", {"every": 60_000, "limit": 5})
        await until(lambda: _counts(broker, completed=1, delayed=1))
    assert len(desk.seen) == 2


async def test_a_worker_killed_before_it_added_the_next_iteration_costs_none_and_doubles_none(
    broker: Broker, valkey_url: str
) -> None:
    need_node()
    await _upsert(valkey_url, "tick", {"every": 60_000})
    # Without `schedulers` it adds no iteration: it is killed as one that had the job and had not come to that.
    dead = broker.worker(QUEUE, Blocked(), concurrency=1, name="dead", lock_s=0.2, stalled_every_s=0.2)
    running = asyncio.create_task(dead.run())
    await until(lambda: dead.running == 1)
    await vanish(dead, running)
    assert (await broker.counts(QUEUE)).delayed == 0

    desk = Desk()
    async with _worker(broker, desk, lock_s=0.5, stalled_every_s=0.2):
        await until(lambda: _counts(broker, completed=1, delayed=1))
    assert [given.stalled for given in desk.seen] == [1]


async def test_a_scheduler_that_was_removed_ends(broker: Broker, redis: Client, valkey_url: str) -> None:
    need_node()
    await _upsert(valkey_url, "gone", {"every": 60_000})
    await redis.delete(f"{PREFIX}repeat", f"{PREFIX}repeat:gone")
    async with _worker(broker, Desk()):
        await until(lambda: _counts(broker, completed=1, delayed=0))


@pytest.mark.parametrize(
    ("repeat", "why"),
    [({"pattern": "H 1 * * *"}, "is not supported"), ({"pattern": "0 0 1 1 *", "tz": "Etc/Nowhere"}, "is not known")],
)
async def test_what_cannot_be_reckoned_as_node_does_is_said_and_the_job_is_done(
    broker: Broker, redis: Client, valkey_url: str, repeat: Mapping[str, Json], why: str
) -> None:
    need_node()
    await _upsert(valkey_url, "odd", {"pattern": "0 0 1 1 *"})
    await _change_repeat(broker, redis, repeat)
    with capture_logs() as logs:
        async with _worker(broker, Desk()):
            await until(lambda: _counts(broker, completed=1, delayed=0))
    (said,) = [line for line in logs if line["event"] == "worker.scheduler_stopped"]
    assert said["scheduler"] == "odd"
    assert why in said["error"]


async def test_a_repeatable_job_of_bullmq_5_is_refused_and_said(broker: Broker, redis: Client, valkey_url: str) -> None:
    need_node()
    await _upsert(valkey_url, "5f3a", {"every": 60_000})
    await redis.hdel(f"{PREFIX}repeat:5f3a", "ic", "data")
    with capture_logs() as logs:
        async with _worker(broker, Desk()):
            await until(lambda: _counts(broker, completed=1, delayed=0))
    (said,) = [line for line in logs if line["event"] == "worker.scheduler_stopped"]
    assert "BullMQ 5" in said["error"]


async def test_a_scheduler_on_a_queue_of_our_own_jobs_is_refused_and_said(broker: Broker, valkey_url: str) -> None:
    need_node()
    await _upsert(valkey_url, "foreign", {"every": 60_000})
    desk = Desk(lambda _: Failed("foreign_job"))
    with capture_logs() as logs:
        async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
            await until(lambda: _counts(broker, failed=1, delayed=0))
    (said,) = [line for line in logs if line["event"] == "worker.scheduler_stopped"]
    assert "Replyline's own" in said["error"]


def _worker(
    broker: Broker, desk: Desk, *, lock_s: float = 30.0, stalled_every_s: float = 15.0
) -> AbstractAsyncContextManager[None]:
    worker = broker.worker(
        QUEUE, desk, concurrency=1, name="w", lock_s=lock_s, stalled_every_s=stalled_every_s, schedulers=True
    )
    return at_work(worker)


async def _upsert(valkey_url: str, name: str, repeat: Mapping[str, Json]) -> None:
    assert await ask("upsert", valkey_url, QUEUE, json.dumps({"id": name, "repeat": repeat})) == {"done": True}


async def _change_repeat(broker: Broker, redis: Client, repeat: Mapping[str, Json]) -> None:
    """Change the option of the iteration that is there, and let it run now."""
    (job_id,) = await redis.zrange(f"{PREFIX}delayed", 0, -1)
    options = json.loads(await redis.hget(f"{PREFIX}{job_id}", "opts") or "")
    await redis.hset(f"{PREFIX}{job_id}", "opts", json.dumps(options | {"repeat": repeat}))
    assert await broker.promote(QUEUE, job_id)


async def _counts(broker: Broker, **wanted: int) -> bool:
    counts = await broker.counts(QUEUE)
    return all(getattr(counts, state) == count for state, count in wanted.items())


def _ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1000)

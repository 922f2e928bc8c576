"""How a job can end, as Redis shows it afterwards."""

import asyncio
import json

import pytest

from replyline.broker import ActiveJob, Broker, Completed, Failed, Outcome, Postpone, Publication, Retry
from tests.broker.scene import PREFIX, QUEUE, Client, Desk, at_work, events, fields, job
from tests.waiting import until


async def test_a_completed_job_keeps_its_result(broker: Broker, redis: Client) -> None:
    await _run_one(broker, Completed(b'{"reply":"yes"}'))

    shown = await fields(redis, "a")
    assert shown["returnvalue"] == '{"reply":"yes"}'
    assert shown["atm"] == "1"
    assert "finishedOn" in shown
    assert await broker.states(QUEUE, ["a"]) == ["completed"]
    assert not await redis.exists(f"{PREFIX}a:lock")


async def test_a_failed_job_shows_its_reason_and_stack(broker: Broker, redis: Client) -> None:
    await _run_one(broker, Failed("bad credentials", "Traceback: here"))

    shown = await fields(redis, "a")
    assert shown["failedReason"] == "bad credentials"
    assert json.loads(shown["stacktrace"]) == ["Traceback: here"]
    assert await broker.states(QUEUE, ["a"]) == ["failed"]


async def test_a_retry_uses_an_attempt_and_shows_why(broker: Broker, redis: Client) -> None:
    desk = Desk(lambda given: Retry(1, f"try {given.starts}", "stack") if given.starts < 3 else Completed())
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish([job("a")])
        await until(lambda: _state_is(broker, "completed"))

    assert [given.attempts_made for given in desk.seen] == [0, 1, 2]
    shown = await fields(redis, "a")
    assert shown["failedReason"] == "try 2"
    assert json.loads(shown["stacktrace"]) == ["stack", "stack"]
    assert shown["atm"] == "3"


async def test_the_log_of_a_job_keeps_the_newest_notes(broker: Broker, redis: Client) -> None:
    def decide(given: ActiveJob) -> Outcome:
        if given.starts == 23:
            return Failed("no", "stack", "given up")
        note = f"run {given.starts}"
        return Retry(0, "no", "stack", note) if given.starts % 2 else Postpone(0, note)

    async with at_work(broker.worker(QUEUE, Desk(decide), concurrency=1, name="w")):
        await broker.publish([job("a")])
        await until(lambda: _state_is(broker, "failed"))

    log = await redis.lrange(f"{PREFIX}a:logs", 0, -1)
    assert log == [f"run {number}" for number in range(4, 23)] + ["given up"]


async def test_only_the_newest_stacks_are_shown(broker: Broker, redis: Client) -> None:
    desk = Desk(lambda given: Retry(0, "no", f"stack {given.starts}") if given.starts < 15 else Completed())
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish([job("a")])
        await until(lambda: _state_is(broker, "completed"))

    assert json.loads((await fields(redis, "a"))["stacktrace"]) == [f"stack {number}" for number in range(5, 15)]


async def test_a_postponed_job_uses_no_attempt(broker: Broker, redis: Client) -> None:
    desk = Desk(lambda given: Postpone(5) if given.starts < 4 else Completed())
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish([job("a")])
        await until(lambda: _state_is(broker, "completed"))

    assert [given.attempts_made for given in desk.seen] == [0, 0, 0, 0]
    assert (await fields(redis, "a"))["atm"] == "1"


async def test_a_job_postponed_by_nothing_runs_again_at_once(broker: Broker, redis: Client) -> None:
    desk = Desk(lambda given: Postpone(0) if given.starts == 1 else Completed())
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish([job("a")])
        await until(lambda: _state_is(broker, "completed"))

    first, second = [at_ms for at_ms, event in await events(redis) if event["event"] == "active"]
    assert second - first < 100


async def test_a_handler_that_raises_has_its_job_retried_with_the_stack(broker: Broker, redis: Client) -> None:
    def decide(_: ActiveJob) -> Outcome:
        raise KeyError("forgotten")

    async with at_work(broker.worker(QUEUE, Desk(decide), concurrency=1, name="w")):
        await broker.publish([job("a")])
        await until(lambda: _state_is(broker, "delayed"))

    shown = await fields(redis, "a")
    assert shown["failedReason"] == "'forgotten'"
    assert shown["delay"] == "1000"
    assert "in decide" in json.loads(shown["stacktrace"])[0]


async def test_a_handler_that_is_cancelled_from_within_has_its_job_retried(broker: Broker) -> None:
    async def handler(_: ActiveJob) -> Outcome:
        raise asyncio.CancelledError

    async with at_work(broker.worker(QUEUE, handler, concurrency=1, name="w")):
        await broker.publish([job("a")])
        await until(lambda: _state_is(broker, "delayed"))

    assert (await broker.counts(QUEUE)).active == 0


async def test_data_that_is_no_json_reaches_the_handler_as_it_is(broker: Broker) -> None:
    desk = Desk(lambda _: Failed("unreadable"))
    async with at_work(broker.worker(QUEUE, desk, concurrency=1, name="w")):
        await broker.publish([job("a", data=b"\xff{no json")])
        await until(lambda: _state_is(broker, "failed"))

    assert desk.seen[0].data == b"\xff{no json"


async def test_options_that_make_no_sense_do_not_keep_a_job_from_ending(broker: Broker, redis: Client) -> None:
    await broker.publish([job("a")])
    await redis.hset(f"{PREFIX}a", "opts", '{"attempts":"many","removeOnComplete":[]')
    async with at_work(broker.worker(QUEUE, Desk(), concurrency=1, name="w")):
        await until(lambda: _state_is(broker, "completed"))


@pytest.mark.parametrize(("outcome", "state"), [(Completed(), "completed"), (Failed("no"), "failed")])
async def test_kept_jobs_go_when_they_are_older_than_their_retention(
    broker: Broker, redis: Client, outcome: Outcome, state: str
) -> None:
    def short_lived(job_id: str) -> Publication:
        return Publication(QUEUE, job_id, "answer", b"{}", 3, keep_completed_s=60, keep_failed_s=60)

    async with at_work(broker.worker(QUEUE, Desk(lambda _: outcome), concurrency=1, name="w")):
        await broker.publish([short_lived("old"), short_lived("young")])
        await until(lambda: _both_are(broker, state))
        await redis.zincrby(f"{PREFIX}{state}", -61_000, "old")  # a minute passes for this one
        await broker.publish([short_lived("next")])
        await until(lambda: _gone(broker, "old"))

    assert await broker.states(QUEUE, ["old", "young", "next"]) == [None, state, state]
    assert not await redis.exists(f"{PREFIX}old")


@pytest.mark.parametrize(("outcome", "state"), [(Completed(), "completed"), (Failed("no"), "failed")])
async def test_of_kept_jobs_the_newest_stay(broker: Broker, redis: Client, outcome: Outcome, state: str) -> None:
    async with at_work(broker.worker(QUEUE, Desk(lambda _: outcome), concurrency=1, name="w")):
        for number in range(5):
            new = Publication(QUEUE, f"j{number}", "answer", b"{}", 3, keep_completed_jobs=2, keep_failed_jobs=2)
            await broker.publish([new])

        async def ended() -> bool:
            return await broker.states(QUEUE, [f"j{number}" for number in range(5)]) == [None, None, None, state, state]

        await until(ended)
    assert not await redis.exists(f"{PREFIX}j2")


async def test_a_job_that_says_nothing_of_retention_gets_the_workers(broker: Broker, redis: Client) -> None:
    async with at_work(broker.worker(QUEUE, Desk(), concurrency=1, name="w", keep_completed_s=60)):
        for job_id in ("old", "next"):
            await broker.publish([job(job_id)])
            await redis.hset(f"{PREFIX}{job_id}", "opts", "{}")
        await until(lambda: _completed(redis, "old", "next"))
        await redis.zincrby(f"{PREFIX}completed", -61_000, "old")
        await broker.publish([job("last")])
        await redis.hset(f"{PREFIX}last", "opts", "{}")
        await until(lambda: _gone(broker, "old"))


async def test_a_job_that_wants_no_retention_is_removed(broker: Broker, redis: Client) -> None:
    await broker.pause(QUEUE)
    await broker.publish([job("a")])
    await redis.hset(f"{PREFIX}a", "opts", '{"removeOnComplete":true}')
    async with at_work(broker.worker(QUEUE, Desk(), concurrency=1, name="w")):
        await broker.resume(QUEUE)
        await until(lambda: _gone(broker, "a"))


async def test_options_are_written_as_node_writes_them(broker: Broker, redis: Client) -> None:
    await broker.publish([Publication(QUEUE, "a", "answer", b"{}", 5, attempts=4, keep_failed_s=7)])

    options = json.loads((await fields(redis, "a"))["opts"])
    assert options["attempts"] == 4
    assert options["removeOnComplete"] == {"age": 3600}
    assert options["removeOnFail"] == {"age": 7}
    assert options["priority"] == 5


async def _run_one(broker: Broker, outcome: Outcome) -> None:
    async with at_work(broker.worker(QUEUE, Desk(lambda _: outcome), concurrency=1, name="w")):
        await broker.publish([job("a")])
        await until(lambda: _state_is(broker, "completed" if isinstance(outcome, Completed) else "failed"))


async def _state_is(broker: Broker, state: str) -> bool:
    return await broker.states(QUEUE, ["a"]) == [state]


async def _both_are(broker: Broker, state: str) -> bool:
    return await broker.states(QUEUE, ["old", "young"]) == [state, state]


async def _gone(broker: Broker, job_id: str) -> bool:
    return await broker.states(QUEUE, [job_id]) == [None]


async def _completed(redis: Client, *job_ids: str) -> bool:
    return set(await redis.zrange(f"{PREFIX}completed", 0, -1)) == set(job_ids)

"""The same scenario by BullMQ for Node and by us leaves the same keys and the same events."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from replyline.broker import ActiveJob, Broker, Completed, Failed, Outcome, Postpone, Publication, Retry
from tests.broker.conformance.reference import ask, left_behind, need_node
from tests.broker.scene import Client, Desk, at_work
from tests.waiting import until

_NODE, _OURS = "by-node", "by-us"


def _job(
    job_id: str, *, priority: int = 3, delay_ms: int = 0, attempts: int = 4, data: bytes = b'{"n":1}'
) -> Publication:
    return Publication(_OURS, job_id, "answer", data, priority, delay_ms=delay_ms, attempts=attempts)


async def _worked(broker: Broker, decide: Callable[[ActiveJob], Outcome], *job_ids: str, state: str) -> None:
    async def ended() -> bool:
        return await broker.states(_OURS, job_ids) == [state] * len(job_ids)

    async with at_work(broker.worker(_OURS, Desk(decide), concurrency=1, name="w")):
        await until(ended)


async def _add(broker: Broker) -> None:
    await broker.publish([_job("plain", priority=0), _job("prio"), _job("again")])
    await broker.publish([_job("again", data=b'{"n":2}'), _job("later", delay_ms=60_000)])


async def _complete(broker: Broker) -> None:
    await broker.publish([_job("a"), _job("b"), _job("c")])
    await _worked(broker, lambda _: Completed(b'{"ok":1}'), "a", "b", "c", state="completed")


async def _meanwhile(broker: Broker) -> None:
    """Jobs that are added while the worker waits, and taken with the call that adds them."""
    async with at_work(broker.worker(_OURS, Desk(lambda _: Completed(b'{"ok":1}')), concurrency=4, name="w")):
        await until(lambda: _counted(broker, 0))
        for count, job_id in enumerate("abc", start=1):
            await broker.publish([_job(job_id)])
            await until(partial(_counted, broker, count))


async def _counted(broker: Broker, completed: int) -> bool:
    return (await broker.counts(_OURS)).completed == completed


async def _plain(broker: Broker) -> None:
    await broker.publish([_job("a", priority=0), _job("b", priority=0)])
    await _worked(broker, lambda _: Completed(), "a", "b", state="completed")


async def _retry(broker: Broker) -> None:
    await broker.publish([_job("a")])
    await _worked(
        broker,
        lambda given: Completed() if given.attempts_made else Retry(1000, "not yet", "stack"),
        "a",
        state="completed",
    )


async def _postpone(broker: Broker) -> None:
    await broker.publish([_job("a")])
    await _worked(broker, lambda given: Completed() if given.starts > 1 else Postpone(50), "a", state="completed")


async def _fail(broker: Broker) -> None:
    await broker.publish([_job("a")])
    await _worked(broker, lambda _: Failed("never", "stack"), "a", state="failed")


async def _exhaust(broker: Broker) -> None:
    await broker.publish([_job("a", attempts=1)])
    await _worked(broker, lambda _: Failed("never", "stack"), "a", state="failed")


async def _pause(broker: Broker) -> None:
    await broker.pause(_OURS)
    await broker.publish([_job("a"), _job("b", priority=0)])


async def _resume(broker: Broker) -> None:
    await broker.pause(_OURS)
    await broker.publish([_job("a")])
    await broker.resume(_OURS)


async def _steer(broker: Broker) -> None:
    await broker.publish([_job("a"), _job("b"), _job("later", delay_ms=60_000)])
    await broker.promote(_OURS, "later")
    await broker.remove(_OURS, "a")


async def _drain(broker: Broker) -> None:
    await broker.publish([_job("a"), _job("b", priority=0), _job("later", priority=0, delay_ms=60_000)])
    await broker.drain(_OURS)


_SCENARIOS: dict[str, Callable[[Broker], Awaitable[None]]] = {
    "add": _add,
    "complete": _complete,
    "meanwhile": _meanwhile,
    "plain": _plain,
    "retry": _retry,
    "postpone": _postpone,
    "fail": _fail,
    "exhaust": _exhaust,
    "pause": _pause,
    "resume": _resume,
    "steer": _steer,
    "drain": _drain,
}


@pytest.mark.parametrize("scenario", _SCENARIOS)
async def test_the_keys_and_events_are_those_of_node(
    broker: Broker, redis: Client, valkey_url: str, scenario: str
) -> None:
    need_node()
    await ask("scenario", valkey_url, _NODE, scenario)
    await _SCENARIOS[scenario](broker)

    assert await left_behind(redis, _OURS) == await left_behind(redis, _NODE)

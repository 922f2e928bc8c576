"""Background tasks: one that fails is started again and counted, one that fails again and again ends its process."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from replyline import metrics
from replyline.supervision import BackgroundTaskFailed, Supervisor
from tests.waiting import until


class _Work:
    """Work that fails as often as it is told."""

    def __init__(self, failures: int, how: Callable[[], Awaitable[None]]) -> None:
        self.starts = 0
        self._failures = failures
        self._how = how

    async def run(self) -> None:
        self.starts += 1
        if self.starts <= self._failures:
            await self._how()
            return
        await asyncio.Event().wait()


async def _raise() -> None:
    raise ValueError("broken")


async def _end() -> None:
    return


async def _be_cancelled_by_another() -> None:
    waited_for = asyncio.get_running_loop().create_future()
    waited_for.cancel()
    await waited_for


def _failures(name: str) -> float:
    return metrics.REGISTRY.get_sample_value("replyline_background_task_failures_total", {"task": name}) or 0


@pytest.mark.parametrize("how", [_raise, _end, _be_cancelled_by_another])
async def test_a_task_that_fails_is_started_again_and_counted(how: Callable[[], Awaitable[None]]) -> None:
    supervisor = Supervisor(first_pause_s=0.01)
    work = _Work(2, how)
    before = _failures("again")
    task = supervisor.start("again", work.run)
    await until(lambda: work.starts == 3)
    assert _failures("again") - before == 2
    supervisor.check()
    await task.stop()


async def test_a_task_that_failed_once_is_well_again_and_one_that_failed_twice_is_not_yet() -> None:
    supervisor = Supervisor(first_pause_s=0.01)
    once, twice = _Work(1, _raise), _Work(2, _raise)
    tasks = [supervisor.start("once", once.run), supervisor.start("twice", twice.run)]
    await until(lambda: (once.starts, twice.starts) == (2, 3))
    assert supervisor.troubles == {"twice": "failed 2 times, last ValueError: broken"}
    for task in tasks:
        await task.stop()
    assert supervisor.troubles == {}


async def test_a_task_that_runs_steadily_is_well_again() -> None:
    supervisor = Supervisor(first_pause_s=0.01, steady_s=0.05)
    work = _Work(2, _raise)
    task = supervisor.start("steady", work.run)
    await until(lambda: work.starts == 3 and not supervisor.troubles)
    await task.stop()


async def test_a_vital_task_that_fails_again_and_again_ends_the_process() -> None:
    supervisor = Supervisor(first_pause_s=0.0001)
    work = _Work(1000, _raise)
    supervisor.start("hopeless", work.run)
    async with asyncio.timeout(10):
        await supervisor.until(asyncio.Event())
    with pytest.raises(BackgroundTaskFailed, match="hopeless"):
        supervisor.check()
    assert work.starts == 10
    assert "hopeless" in supervisor.troubles


async def test_a_task_that_is_not_vital_is_never_given_up() -> None:
    supervisor = Supervisor(first_pause_s=0.0001)
    work = _Work(12, _raise)
    task = supervisor.start("patient", work.run, vital=False)
    await until(lambda: work.starts == 13)
    supervisor.check()
    await task.stop()


async def test_a_stopped_task_is_no_failure() -> None:
    supervisor = Supervisor()
    work = _Work(0, _raise)
    before = _failures("stopped")
    task = supervisor.start("stopped", work.run)
    await until(lambda: work.starts == 1)
    await task.stop()
    assert task.done
    assert _failures("stopped") == before

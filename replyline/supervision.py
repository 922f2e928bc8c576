"""Background tasks under supervision: one that ends or raises is logged, counted, shown in health and started again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from replyline import metrics

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 30.0
_MOST_FAILURES = 10


class BackgroundTaskFailed(Exception):
    """A background task failed again and again: the process must end, so that whoever runs it starts it anew."""


class BackgroundTask:
    """A task that runs for as long as its process, made by `Supervisor.start`."""

    def __init__(self, name: str, run: Callable[[], Awaitable[None]], supervisor: "Supervisor", *, vital: bool) -> None:
        self.name = name
        self._run = run
        self._vital = vital
        self._supervisor = supervisor
        self._failures = 0
        self._started_at = time.monotonic()
        self._error: BaseException | None = None
        self._down = False
        self._task = asyncio.create_task(self._keep(), name=name)

    @property
    def trouble(self) -> str | None:
        """What is wrong with it, in words; None while it runs well.

        A task that failed once and runs again is healthy; after two failures or more, only after a while without another.
        """
        if self._error is None:
            return None
        steady = not self._down and (
            self._failures < 2 or time.monotonic() - self._started_at > self._supervisor.steady_s
        )
        return None if steady else f"failed {self._failures} times, last {type(self._error).__name__}: {self._error}"

    @property
    def done(self) -> bool:
        """Whether it was stopped or given up."""
        return self._task.done()

    def cancel(self) -> None:
        """Let it end; it counts as no failure."""
        self._task.cancel()

    async def stop(self) -> None:
        """Cancel it, and return when it has ended."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._supervisor.forget(self)

    async def _keep(self) -> None:
        pause_s = self._supervisor.first_pause_s
        while True:
            self._started_at, self._down = time.monotonic(), False
            try:
                await self._run()
                error: BaseException = RuntimeError("it ended, which it never should")
            except asyncio.CancelledError as cancelled:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                error = cancelled  # something that it waited for was cancelled by somebody else
            except Exception as raised:
                error = raised
            if time.monotonic() - self._started_at > self._supervisor.steady_s:
                self._failures, pause_s = 0, self._supervisor.first_pause_s
            self._failures += 1
            self._error, self._down = error, True
            metrics.background_task_failures_total.labels(self.name).inc()
            if self._vital and self._failures >= _MOST_FAILURES:
                log.error("background_task.given_up", task=self.name, failures=self._failures, exc_info=error)
                self._supervisor.give_up(self.name)
                return
            log.error("background_task.failed", task=self.name, again_in_s=pause_s, exc_info=error)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class Supervisor:
    """Starts the background tasks of one process, and knows how they are.

    A task that ends or raises is started again after `first_pause_s` seconds, then after twice as long each time, 10 s at most. A
    vital one that fails ten times without running `steady_s` seconds in between is given up, and `until` tells the process to
    end.
    """

    def __init__(self, *, first_pause_s: float = _FIRST_PAUSE_S, steady_s: float = _STEADY_S) -> None:
        self.first_pause_s = first_pause_s
        self.steady_s = steady_s
        self._tasks: set[BackgroundTask] = set()
        self._given_up: str | None = None
        self._broken = asyncio.Event()

    def start(self, name: str, run: Callable[[], Awaitable[None]], *, vital: bool = True) -> BackgroundTask:
        """Run `run` in a task of its own until that is stopped; it should never end by itself.

        One that is not `vital` is never given up: it keeps nothing between its rounds, so a new process would do no better.
        """
        metrics.background_task_failures_total.labels(
            name
        )  # 0 from the beginning, so that the first failure is a change
        task = BackgroundTask(name, run, self, vital=vital)
        self._tasks.add(task)
        return task

    @property
    def troubles(self) -> Mapping[str, str]:
        """The tasks that do not run well, with what is wrong with each."""
        return {task.name: trouble for task in self._tasks if (trouble := task.trouble) is not None}

    async def until(self, stop: asyncio.Event) -> None:
        """Wait for `stop`, or for a task to fail again and again: `check` tells which it was."""
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._broken)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def check(self) -> None:
        """See whether the process may go on.

        Raises:
            BackgroundTaskFailed: a task failed again and again.
        """
        if self._given_up is not None:
            raise BackgroundTaskFailed(f"the background task {self._given_up!r} failed again and again")

    def give_up(self, name: str) -> None:
        """A task has failed too often."""
        self._given_up = name
        self._broken.set()

    def forget(self, task: BackgroundTask) -> None:
        """A task was stopped."""
        self._tasks.discard(task)

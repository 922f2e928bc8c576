"""What the tests of the queue engine have in common: jobs to publish, a handler that remembers, a worker at work."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias

from redis.asyncio import Redis

from replyline.broker import ActiveJob, Completed, Outcome, Publication, Worker

Client: TypeAlias = "Redis[str]"

QUEUE = "ai-processing"
PREFIX = f"bull:{QUEUE}:"


def job(
    job_id: str, *, queue: str = QUEUE, priority: int = 3, data: bytes = b'{"n":1}', delay_ms: int = 0
) -> Publication:
    """A job to publish."""
    return Publication(queue, job_id, "answer", data, priority, delay_ms=delay_ms)


def jobs(count: int, *, priority: int = 3) -> list[Publication]:
    """Many jobs: job-0, job-1 and so on."""
    return [job(f"job-{number}", priority=priority) for number in range(count)]


class Desk:
    """A handler that remembers what it was given, and ends each job as `decide` says."""

    def __init__(self, decide: Callable[[ActiveJob], Outcome] = lambda _: Completed()) -> None:
        self.seen: list[ActiveJob] = []
        self._decide = decide

    async def __call__(self, given: ActiveJob) -> Outcome:
        self.seen.append(given)
        return self._decide(given)

    @property
    def ids(self) -> list[str]:
        """Whose turn it was, in order."""
        return [given.id for given in self.seen]


class Blocked:
    """A handler that holds every job until it is let go, or cancelled."""

    def __init__(self) -> None:
        self.seen: list[ActiveJob] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, given: ActiveJob) -> Outcome:
        self.seen.append(given)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(given.id)
            raise
        return Completed()


@asynccontextmanager
async def at_work(*workers: Worker, grace_s: float = 5.0) -> AsyncIterator[None]:
    """Workers that work until the end of the block, and are then closed."""
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run())
        try:
            yield
        finally:
            await asyncio.gather(*(worker.close(grace_s) for worker in workers))


async def vanish(worker: Worker, task: "asyncio.Task[None]") -> None:
    """End a worker as a killed process would: it cleans nothing up."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert worker.running


async def fields(redis: Client, job_id: str) -> Mapping[str, str]:
    """The hash of one job."""
    found: Mapping[str, str] = await redis.hgetall(f"{PREFIX}{job_id}")
    return found


async def events(redis: Client) -> list[tuple[int, Mapping[str, str]]]:
    """What happened in the queue: Redis' clock in milliseconds, and the event."""
    return [(int(id_.partition("-")[0]), event) for id_, event in await redis.xrange(f"{PREFIX}events")]


async def script_calls(redis: Client) -> int:
    """How many scripts that server has run."""
    stats = await redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))

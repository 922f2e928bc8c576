"""A worker process: its queues, its sweeper, and how it stops."""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import structlog

from replyline.app import App
from replyline.broker import Handler, Worker
from replyline.jobs import INCOMING_MESSAGES, Job
from replyline.processors import PROCESSORS, Processor
from replyline.worker.customer_deletions import CustomerDeletions
from replyline.worker.deletions import Deletions
from replyline.worker.execute import Executor
from replyline.worker.external import ExternalWork
from replyline.worker.sweeper import Sweeper
from replyline.worker.upkeep import Upkeep

log = structlog.get_logger(__name__)


def worker_name() -> str:
    """Who ran a job: host, process, and a part that tells apart processes that had the same number."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"


def _executor(app: App, queue: str, name: str) -> Handler:
    processor = PROCESSORS[queue]
    # A union of processors, each for its own job type: the executor checks the type of what it reads.
    return Executor(app, queue, cast("Processor[Job]", processor), name)


def make_workers(app: App, queues: Sequence[str], concurrency: Mapping[str, int]) -> list[Worker]:
    """A worker for each queue; `concurrency` overrides how many jobs of a queue run at once in this process."""
    name = worker_name()
    settings = app.settings
    workers = []
    for queue in queues:
        spec = settings.spec(queue)
        limit = spec.rate_limit
        workers.append(
            app.broker.worker(
                queue,
                _executor(app, queue, name),
                concurrency=concurrency.get(queue, spec.concurrency),
                name=name,
                lock_s=settings.lock_s,
                stalled_every_s=settings.stalled_every_s,
                rate_limit=None if limit is None else (limit.jobs, limit.duration_s),
                keep_completed_s=spec.keep_completed_s,
                keep_failed_s=spec.keep_failed_s,
                keep_completed_jobs=spec.keep_completed_jobs,
                keep_failed_jobs=spec.keep_failed_jobs,
                schedulers=queue == INCOMING_MESSAGES,  # in the others, nobody else's jobs are done
            )
        )
    return workers


async def work(
    app: App, *, queues: Sequence[str], concurrency: Mapping[str, int], stop: asyncio.Event, sweep: bool = True
) -> None:
    """Work the queues until `stop` is set, then drain: fetch no more, wait `drain_s` seconds at most, hand back the rest.

    Raises:
        BackgroundTaskFailed: a background task failed again and again; what ran was drained all the same.
    """
    queues = [queue for queue in queues if queue not in app.settings.external]
    workers = make_workers(app, queues, concurrency)
    for worker, queue in zip(workers, queues, strict=True):
        app.health.expect_progress(f"fetching of {queue}", partial(_stuck_s, worker))
    app.health.watch("fetching", lambda: _fetching_trouble(dict(zip(queues, workers, strict=True))))
    app.health.start()
    background = []
    if sweep:
        upkeep = Upkeep(app)
        app.health.watch("upkeep", lambda: upkeep.trouble, vital=False)
        background = [
            app.supervisor.start("upkeep", upkeep.run, vital=False),
            app.supervisor.start("sweeper", Sweeper(app).run, vital=False),
            app.supervisor.start("deletions", Deletions(app).run, vital=False),
            app.supervisor.start("customer deletions", CustomerDeletions(app).run, vital=False),
        ]
    if sweep and app.settings.external:
        background.append(app.supervisor.start("external work", ExternalWork(app).run, vital=False))
    try:
        async with asyncio.TaskGroup() as running:
            for worker, queue in zip(workers, queues, strict=True):
                running.create_task(worker.run(), name=f"worker {queue}")
            log.info("worker.started", queues=list(queues))
            await app.supervisor.until(stop)
            log.info("worker.draining", running=sum(worker.running for worker in workers), for_s=app.settings.drain_s)
            for task in background:
                await task.stop()
            await asyncio.gather(*(worker.close(app.settings.drain_s) for worker in workers))
    finally:
        for task in background:
            await task.stop()
    log.info("worker.stopped")
    app.supervisor.check()


def _stuck_s(worker: Worker) -> float:
    return worker.stuck_s


def _fetching_trouble(workers: Mapping[str, Worker]) -> str | None:
    found = [f"{queue}: {worker.trouble}" for queue, worker in workers.items() if worker.trouble is not None]
    return "; ".join(found) or None

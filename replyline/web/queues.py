"""The queues, for the operator: how much waits, since when, and the switch that stops workers from taking more."""

from fastapi import APIRouter, Depends

from replyline.app import App
from replyline.jobs import DEAD_LETTER, QUEUE_NAMES
from replyline.web.auth import Here, operator
from replyline.web.guards import KeyedRoute
from replyline.web.problems import not_found
from replyline.web.wire import Out

router = APIRouter(prefix="/v1/queues", tags=["queues"], dependencies=[Depends(operator)], route_class=KeyedRoute)


class QueueOut(Out):
    """One queue as BullMQ has it now. `oldestS` is the age, in seconds, of the oldest job that could run; null if none waits."""

    name: str
    waiting: int
    delayed: int
    active: int
    completed: int
    failed: int
    paused: bool
    oldest_s: float | None


class QueuesOut(Out):
    """All queues; jobs in `dead-letter` are notices for BullMQ's tools, the dead letters are at /v1/dead-letters."""

    data: list[QueueOut]


@router.get("")
async def list_queues(app: Here) -> QueuesOut:
    """Counts of every queue. Operator only."""
    return QueuesOut(data=[await _shown(app, name) for name in (*QUEUE_NAMES, DEAD_LETTER)])


@router.get("/{queue}")
async def get_queue(queue: str, app: Here) -> QueueOut:
    """Counts of one queue. Operator only."""
    if queue not in {*QUEUE_NAMES, DEAD_LETTER}:
        raise not_found("queue")
    return await _shown(app, queue)


@router.post("/{queue}/pause")
async def pause_queue(queue: str, app: Here) -> QueueOut:
    """Let no worker take jobs of this queue; what runs, runs on. Operator only."""
    await app.broker.pause(_worked(queue))
    return await _shown(app, queue)


@router.post("/{queue}/resume")
async def resume_queue(queue: str, app: Here) -> QueueOut:
    """Let workers take jobs of this queue again. Operator only."""
    await app.broker.resume(_worked(queue))
    return await _shown(app, queue)


def _worked(queue: str) -> str:
    if queue not in QUEUE_NAMES:
        raise not_found("queue")
    return queue


async def _shown(app: App, name: str) -> QueueOut:
    counts = await app.broker.counts(name)
    oldest_ms = await app.broker.oldest_waiting_ms(name)
    return QueueOut(
        name=name,
        waiting=counts.waiting + counts.prioritized + counts.paused,
        delayed=counts.delayed,
        active=counts.active,
        completed=counts.completed,
        failed=counts.failed,
        paused=counts.is_paused,
        oldest_s=None if oldest_ms is None else max(0, app.broker.now_ms() - oldest_ms) / 1000,
    )

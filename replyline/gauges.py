"""The gauges that are read from the stores when somebody looks at the metrics."""

import asyncio

import structlog

from replyline import jobs, metrics
from replyline.broker import Broker, BrokerUnavailable, CommandRefused
from replyline.jobs import DEAD_LETTER
from replyline.store import dead_letters
from replyline.store.database import Database, StoreUnavailable
from replyline.store.moves.health import count_unhealthy

log = structlog.get_logger(__name__)

_TIMEOUT_S = 3.0


async def refresh_gauges(broker: Broker, database: Database) -> None:
    """Bring the gauges that are read from the stores up to date; those of a store that is away are taken down."""
    metrics.jobs.clear()
    metrics.oldest_job_seconds.clear()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await _of_the_queues(broker)
    except (BrokerUnavailable, CommandRefused, TimeoutError) as error:  # the gauges are down, which says so
        log.warning("metrics.without_redis", error=str(error) or "no answer in time")
    metrics.dead_letters.clear()
    metrics.unhealthy_channels.clear()
    metrics.held_jobs.clear()
    try:
        counted = await dead_letters.count(database)
        sick = await count_unhealthy(database)
    except StoreUnavailable:  # the gauges are down, which says so; the others are worth having
        return
    for kind, reason, channels, held in sick:
        metrics.unhealthy_channels.labels(kind, reason).set(channels)
        metrics.held_jobs.labels(kind).inc(held)
    for queue, reason, count in counted:
        metrics.dead_letters.labels(queue, reason).set(count)


async def _of_the_queues(broker: Broker) -> None:
    now_ms = broker.now_ms()
    for queue in (*jobs.QUEUE_NAMES, DEAD_LETTER):
        counts = await broker.counts(queue)
        for state in ("waiting", "prioritized", "delayed", "active", "completed", "failed"):
            metrics.jobs.labels(queue, state).set(getattr(counts, state))
        oldest = await broker.oldest_waiting_ms(queue)
        metrics.oldest_job_seconds.labels(queue).set(0 if oldest is None else max(0, now_ms - oldest) / 1000)

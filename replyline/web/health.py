"""Whether this process lives, whether it can take messages, and its metrics."""

import asyncio
import uuid
from typing import Literal

import structlog
from fastapi import APIRouter, Response

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable
from replyline.gauges import refresh_gauges
from replyline.store import customers
from replyline.store.database import StoreUnavailable
from replyline.web.auth import Here
from replyline.web.wire import Out

log = structlog.get_logger(__name__)

router = APIRouter(tags=["health"])

_TIMEOUT_S = 2.0
_NOBODY = uuid.UUID(int=0)


class ReadyOut(Out):
    """What the door needs (Postgres) and what it can do without for a while (Redis)."""

    status: Literal["ready", "not ready"]
    postgres: Literal["ok", "away"]
    redis: Literal["ok", "away"]


@router.get("/health/live")
async def live() -> dict[str, str]:
    """200 for as long as the process answers at all."""
    return {"status": "live"}


@router.get("/health/ready", responses={503: {"model": ReadyOut}})
async def ready(app: Here, response: Response) -> ReadyOut:
    """200 if messages can be accepted: Postgres is there. Redis may be away; then they wait in Postgres."""
    postgres, redis = await asyncio.gather(_postgres(app), _redis(app))
    response.status_code = 200 if postgres == "ok" else 503
    return ReadyOut(status="ready" if postgres == "ok" else "not ready", postgres=postgres, redis=redis)


@router.get("/metrics", response_class=Response)
async def get_metrics(app: Here) -> Response:
    """Everything in Prometheus' text format. No key is asked for: it names queues and counts, never customers."""
    try:
        await refresh_gauges(app.broker, app.database)
    except StoreUnavailable as error:
        # What this process counted itself is wanted most when a store is away.
        log.warning("metrics.without_postgres", error=str(error))
    return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _postgres(app: App) -> Literal["ok", "away"]:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            # A read that finds nothing, but only where the tables are.
            await customers.get(app.database, customer_id=_NOBODY)
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("health.postgres_away", error=str(error))
        return "away"
    return "ok"


async def _redis(app: App) -> Literal["ok", "away"]:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await app.broker.ping()
    except (BrokerUnavailable, TimeoutError) as error:
        log.warning("health.redis_away", error=str(error))
        return "away"
    return "ok"

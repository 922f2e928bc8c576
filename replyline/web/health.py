"""Whether this process lives, whether it can take messages, and its metrics."""

from typing import Literal

import structlog
from fastapi import APIRouter, Response

from replyline import external_results, metrics
from replyline.gauges import refresh_gauges
from replyline.store.database import StoreUnavailable
from replyline.web.auth import Here
from replyline.web.wire import Out

log = structlog.get_logger(__name__)

router = APIRouter(tags=["health"])


class ReadyOut(Out):
    """What this process needs; each part is `ok`, or says in words what is wrong with it."""

    status: Literal["ready", "not ready"]
    postgres: str
    redis: str
    publication: str
    tasks: str


@router.get("/health/live")
async def live() -> dict[str, str]:
    """200 for as long as the process answers at all."""
    return {"status": "live"}


@router.get("/health/ready", responses={503: {"model": ReadyOut}})
async def ready(app: Here, response: Response) -> ReadyOut:
    """200 if all is well; answers at once whatever hangs.

    Redis may be away for REPLYLINE_NOT_READY_AFTER_S seconds: what comes meanwhile is kept in Postgres.
    """
    report = await app.health.report()
    response.status_code = 200 if report.ready else 503
    return ReadyOut(status="ready" if report.ready else "not ready", **report.parts)


@router.get("/metrics", response_class=Response)
async def get_metrics(app: Here) -> Response:
    """Everything in Prometheus' text format. No key is asked for: it names queues and counts, never customers."""
    try:
        await refresh_gauges(app.broker, app.database)
        await external_results.refresh_gauges(app)
    except StoreUnavailable as error:
        # What this process counted itself is wanted most when a store is away.
        log.warning("metrics.without_postgres", error=str(error))
    return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

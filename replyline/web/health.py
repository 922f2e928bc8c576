"""Whether this process lives, whether it can take messages, and its metrics."""

from typing import Literal

from fastapi import APIRouter, Request, Response

from replyline.web.auth import Here
from replyline.web.scrapes import Scrapes
from replyline.web.wire import Out

router = APIRouter(tags=["health"])


class ReadyOut(Out):
    """What this process needs; each part is `ok`, or says in words what is wrong with it."""

    status: Literal["ready", "not ready"]
    postgres: str
    redis: str
    publication: str
    tasks: str
    external: str
    """Jobs of external queues that are late or lost; says so and leaves the status as it is."""


@router.get("/health/live")
async def live() -> dict[str, str]:
    """200 for as long as the process answers at all."""
    return {"status": "live"}


@router.get("/health/ready", responses={503: {"model": ReadyOut}})
async def ready(app: Here, response: Response) -> ReadyOut:
    """200 if everything works; answers at once even if a store hangs.

    Redis may be away for REPLYLINE_NOT_READY_AFTER_S seconds: what comes meanwhile is kept in Postgres.
    """
    report = await app.health.report()
    response.status_code = 200 if report.ready else 503
    return ReadyOut(status="ready" if report.ready else "not ready", **report.parts)


@router.get("/metrics", response_class=Response)
async def get_metrics(request: Request) -> Response:
    """Everything in Prometheus' text format, at most 5 seconds old. No key is asked for: it names queues and counts, never
    customers."""
    scrapes: Scrapes = request.app.state.scrapes
    return Response(await scrapes.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

"""Jobs of external queues: which are open, what an external worker reports of one, and doing one again. For the operator."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import StringConstraints

from replyline.external_results import FAILED, NotOpen, Result, hand_over_again, report
from replyline.store import external
from replyline.web.auth import Here, operator
from replyline.web.guards import KeyedRoute
from replyline.web.problems import Problem
from replyline.web.wire import In, Limit, Out, Reference, Text

router = APIRouter(prefix="/v1/jobs", tags=["external jobs"], dependencies=[Depends(operator)], route_class=KeyedRoute)


class ExternalJobOut(Out):
    """A job that an external worker has not finished; `lateS` is how long it has been due, in seconds."""

    id: uuid.UUID
    queue: str
    bullmq_id: str
    customer_id: uuid.UUID
    conversation_id: uuid.UUID
    message_id: uuid.UUID
    wait_reason: str | None
    run_at: datetime | None
    handed_over_at: datetime | None
    late_s: float


class ExternalJobsOut(Out):
    """Open jobs of the external queues."""

    data: list[ExternalJobOut]


class ResultIn(In):
    """How a job ended."""

    outcome: Literal["sent", "failed"]
    external_id: Annotated[Reference, StringConstraints(max_length=255)] | None = None
    """What the channel calls the message that was sent."""
    error: Annotated[Text, StringConstraints(max_length=4000)] = ""
    """Why it failed."""


@router.get("/external")
async def list_external_jobs(
    app: Here, limit: Limit = 50, *, lost: Annotated[bool, Query(description="Only those that Redis forgot.")] = False
) -> ExternalJobsOut:
    """Jobs that an external worker has not finished, the longest due first. Operator only."""
    async with app.database.connection() as connection:
        found = await external.oldest(connection, app.settings.external, lost=lost, limit=limit)
    return ExternalJobsOut(data=[ExternalJobOut.model_validate(job) for job in found])


@router.post("/{job_id}/result", status_code=204)
async def report_result(job_id: uuid.UUID, body: ResultIn, app: Here) -> Response:
    """Settle a job of an external queue: its message is SENT or FAILED, and its conversation's next one goes. Operator only."""
    result = Result(body.outcome, "reported by HTTP", datetime.now(UTC), body.external_id, FAILED, body.error)
    try:
        await report(app, job_id, result)
    except NotOpen as error:
        raise Problem(409, "not_open", str(error)) from error
    return Response(status_code=204)


@router.post("/{job_id}/again", status_code=202)
async def do_again(job_id: uuid.UUID, app: Here) -> Response:
    """Publish a job that Redis forgot, although an external worker may have done it. Operator only."""
    try:
        await hand_over_again(app, job_id)
    except NotOpen as error:
        raise Problem(409, "not_open", str(error)) from error
    return Response(status_code=202)

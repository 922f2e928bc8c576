"""Dead letters: jobs that were given up, to look at, to run again, or to delete."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import StringConstraints

from replyline.app import App
from replyline.store import dead_letters
from replyline.store.moves.dead_letters import NotReplayable
from replyline.web.auth import Anyone, CustomerId, Here, TenantOrAll
from replyline.web.guards import KeyedRoute
from replyline.web.messages import FailureOut, without_stacks
from replyline.web.problems import Problem, not_found
from replyline.web.wire import Cursor, Limit, Out, Page, page

router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"], route_class=KeyedRoute)

QueueName = Annotated[str, StringConstraints(pattern=r"^[a-z-]{1,100}$")]
Reason = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


class DeadLetterOut(Out):
    """A job that was given up, with the errors of its tries; personal text in its payload is left out."""

    id: uuid.UUID
    queue: str
    reason: str
    attempts: int
    generation: int
    customer_id: uuid.UUID | None
    conversation_id: uuid.UUID | None
    message_id: uuid.UUID | None
    trace_id: uuid.UUID
    payload: object
    errors: list[FailureOut]
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ReplayedOut(Out):
    """A dead letter that is a waiting job again: the same job, whose timeline goes on."""

    id: uuid.UUID
    queue: str
    state: Literal["WAITING"] = "WAITING"


@router.get("")
async def list_dead_letters(
    *,
    app: Here,
    who: Anyone,
    customer_id: CustomerId = None,
    queue: Annotated[QueueName | None, Query()] = None,
    reason: Annotated[Reason | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DeadLetterOut]:
    """Dead letters, newest job first; every customer's, where the operator names none."""
    found = await dead_letters.list_page(
        app.database,
        customer_id=who.one_or_all(customer_id),
        queue=queue,
        reason=reason,
        before=cursor,
        limit=limit + 1,
    )
    shown = page(found, limit, DeadLetterOut)
    without_stacks((error for dead in shown.data for error in dead.errors), who)
    return shown


@router.get("/{job_id}")
async def get_dead_letter(job_id: uuid.UUID, app: Here, who: Anyone, customer_id: CustomerId = None) -> DeadLetterOut:
    """One dead letter."""
    found = await dead_letters.get(app.database, job_id, customer_id=who.one_or_all(customer_id))
    if found is None:
        raise not_found("dead letter")
    shown = DeadLetterOut.model_validate(found)
    without_stacks(shown.errors, who)
    return shown


@router.post("/{job_id}/replay", status_code=202)
async def replay_dead_letter(job_id: uuid.UUID, app: Here, customer_id: TenantOrAll) -> ReplayedOut:
    """Run it again with no attempts used; a message rejoins its conversation's lane, so order is kept."""
    try:
        replayed = await app.replay(job_id, customer_id=customer_id)
    except NotReplayable as error:
        raise await _refusal(app, job_id, customer_id, error) from error
    return ReplayedOut(id=replayed.id, queue=replayed.queue)


@router.delete("/{job_id}", status_code=204)
async def discard_dead_letter(job_id: uuid.UUID, app: Here, customer_id: TenantOrAll) -> Response:
    """Delete it for good."""
    try:
        await app.discard(job_id, customer_id=customer_id)
    except NotReplayable as error:
        raise await _refusal(app, job_id, customer_id, error) from error
    return Response(status_code=204)


async def _refusal(app: App, job_id: uuid.UUID, customer_id: uuid.UUID | None, error: NotReplayable) -> Problem:
    """Not there, or there but not now: only the second is worth trying again."""
    if await dead_letters.get(app.database, job_id, customer_id=customer_id) is None:
        return not_found("dead letter")
    return Problem(409, "not_replayable", str(error))

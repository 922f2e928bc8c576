"""What a customer used, for their bill and their own eyes."""

import datetime as time
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from replyline.store import usage
from replyline.web.auth import Here, Tenant
from replyline.web.guards import KeyedRoute
from replyline.web.problems import Problem
from replyline.web.wire import Out

router = APIRouter(prefix="/v1/usage", tags=["usage"], route_class=KeyedRoute)

_DEFAULT_DAYS = 30
_MOST_DAYS = 366
_FIRST = time.date(2000, 1, 1)
_LAST = time.date(2999, 12, 31)


class UsageOut(Out):
    """The facts of one day (UTC), kind, channel, provider, model and category.

    `unmeasured` answers reported no tokens, which is not 0.
    """

    day: time.date
    kind: str
    channel: str | None
    provider: str | None
    model: str | None
    category: str | None
    count: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    unmeasured: int
    cost: Decimal | None


class UsagePeriodOut(Out):
    """The sums of the days from `since` to `until`, both included."""

    since: time.date
    until: time.date
    data: list[UsageOut]


@router.get("")
async def get_usage(
    app: Here,
    customer_id: Tenant,
    since: Annotated[
        time.date | None, Query(ge=_FIRST, le=_LAST, description="First day (UTC); 30 days before `until` without.")
    ] = None,
    until: Annotated[time.date | None, Query(ge=_FIRST, le=_LAST, description="Last day (UTC); today without.")] = None,
    kind: Literal["message_received", "ai_answer", "message_sent"] | None = None,
) -> UsagePeriodOut:
    """Messages received and sent, and AI answers with their tokens, summed by day."""
    last = until or time.datetime.now(time.UTC).date()
    first = since or last - time.timedelta(days=_DEFAULT_DAYS)
    if not 0 <= (last - first).days < _MOST_DAYS:
        raise Problem(422, "invalid", f"until must not be before since, nor more than {_MOST_DAYS} days later")
    sums = await usage.sums(
        app.database,
        customer_id=customer_id,
        since=_midnight(first),
        until=_midnight(last) + time.timedelta(days=1),
        kind=kind,
    )
    return UsagePeriodOut(since=first, until=last, data=[UsageOut.model_validate(row) for row in sums])


def _midnight(day: time.date) -> time.datetime:
    return time.datetime.combine(day, time.time.min, time.UTC)

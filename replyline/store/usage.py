"""What a customer used, summed: messages received and sent, what channels charge for, and answers of models with their tokens."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from replyline.store.database import Database


@dataclass(frozen=True, slots=True)
class UsageSum:
    """The facts of one day (UTC), kind, channel, provider, model and category.

    Token counts are sums over the facts that report them; `unmeasured` is how many answers report none, which is not zero
    tokens. `cost` is in the provider's currency, None where nothing was reported.
    """

    day: date
    kind: str
    channel: str | None
    provider: str | None
    model: str | None
    category: str | None
    """What the channel charges for, in its own words; None for other kinds."""
    count: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    unmeasured: int
    cost: Decimal | None


_SUMS = """
SELECT (created_at AT TIME ZONE 'UTC')::date AS day, kind, channel_kind AS channel, provider, model, category,
       count(*)::int AS count,
       coalesce(sum(input_tokens), 0)::bigint AS input_tokens, coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
       coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
       count(*) FILTER (WHERE kind = 'ai_answer' AND input_tokens IS NULL AND output_tokens IS NULL)::int AS unmeasured,
       sum(cost) AS cost
FROM usage_logs
WHERE customer_id = $1 AND created_at >= $2 AND created_at < $3 AND ($4::text IS NULL OR kind = $4)
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
"""


# Postgres' month (UTC): what was received has its times, and a door whose clock is wrong is in another month.
_OF_THIS_MONTH = """
SELECT extract(epoch FROM (month.begins + interval '1 month') AT TIME ZONE 'UTC' - now())::float8 AS ends_in_s, (
    SELECT count(*) FROM usage_logs
    WHERE customer_id = $1 AND created_at >= month.begins AT TIME ZONE 'UTC' AND kind = 'message_received'
      AND channel_kind = $2
) AS received
FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AS begins) month
"""


@dataclass(frozen=True, slots=True)
class ThisMonth:
    """How many messages were received in the running month (UTC), and in how many seconds it ends."""

    received: int
    ends_in_s: float


async def received_this_month(db: Database, *, customer_id: uuid.UUID, channel_kind: str) -> ThisMonth:
    """What the customer received on one kind of channel in the month that Postgres' clock is in."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_OF_THIS_MONTH, customer_id, channel_kind)
    if record is None:
        raise LookupError("a query that always has a row had none")
    return ThisMonth(record["received"], record["ends_in_s"])


async def sums(
    db: Database, *, customer_id: uuid.UUID, since: datetime, until: datetime, kind: str | None = None
) -> Sequence[UsageSum]:
    """What the customer used from `since` to before `until` (both aware of their zone), oldest day first."""
    async with db.connection() as connection:
        return [UsageSum(**dict(record)) for record in await connection.fetch(_SUMS, customer_id, since, until, kind)]

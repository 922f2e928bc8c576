"""Whether a contender lost, doubled or reordered anything: by what arrived outside, and by one query at the end."""

from bench.pipeline.contenders import Contender

_STORED = """
SELECT count(*) FILTER (WHERE direction = 'INBOUND') AS received,
       count(*) FILTER (WHERE direction = 'OUTBOUND' AND status = 'SENT') AS sent,
       count(*) FILTER (WHERE direction = 'OUTBOUND' AND status <> 'SENT') AS others
FROM messages
"""


async def wrong(contender: Contender) -> list[str]:
    """What is wrong, a line each."""
    ledger = contender.outside.ledger
    arrived = {
        "sent twice": ledger.errors.doubled,
        "sent out of their order": ledger.errors.out_of_order,
        "sent to somebody who did not ask": ledger.errors.unknown,
        "calls that were not made as they should be": contender.outside.refused,
    }
    totals = {} if ledger.given_up else await _totals(contender)
    return [f"{contender.name}: {count} {what}" for what, count in {**arrived, **totals}.items() if count]


async def _totals(contender: Contender) -> dict[str, int]:
    ledger = contender.outside.ledger
    (row,) = await contender.servers.rows(_STORED)
    asked = ledger.asked + contender.stored_before
    return {
        "lost on the way to their contacts": ledger.lost,
        "webhooks lost": ledger.answered - ledger.hooks,
        "messages missing in Postgres": asked - row["received"],
        "answers missing in Postgres": asked - row["sent"],
        "answers in another state than SENT": row["others"],
    }

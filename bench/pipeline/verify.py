"""Whether a contender lost, doubled or reordered anything: by what arrived outside, and by one query at the end."""

from bench.pipeline.contenders import Contender

_STORED = """
SELECT count(*) FILTER (WHERE direction = 'INBOUND') AS received,
       count(*) FILTER (WHERE direction = 'OUTBOUND' AND status = 'SENT') AS sent,
       count(*) FILTER (WHERE direction = 'OUTBOUND' AND status <> 'SENT') AS others
FROM messages
"""


async def wrong(contender: Contender, *, stored_before: int = 0) -> list[str]:
    """What is wrong, a line each. `stored_before` is how many messages the tables held of each direction before the load."""
    ledger = contender.outside.ledger
    (row,) = await contender.servers.rows(_STORED)
    asked = ledger.asked + stored_before
    found = {
        "lost on the way to their contacts": ledger.lost,
        "sent twice": ledger.errors.doubled,
        "sent out of their order": ledger.errors.out_of_order,
        "sent to somebody who did not ask": ledger.errors.unknown,
        "calls that were not made as they should be": contender.outside.refused,
        "webhooks lost": ledger.answered - ledger.hooks,
        "messages missing in Postgres": asked - row["received"],
        "answers missing in Postgres": asked - row["sent"],
        "answers in another state than SENT": row["others"],
    }
    return [f"{contender.name}: {count} {what}" for what, count in found.items() if count]

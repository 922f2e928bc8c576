"""The move `see`: an open page has our messages, or its visitor has read them."""

import uuid
from dataclasses import dataclass
from typing import Literal

from replyline.statuses import climbs
from replyline.store.database import Connection
from replyline.store.moves.announce import announce
from replyline.store.moves.delivery import announcement, lock_messages
from replyline.store.outbox import Outbox, insert_jobs

MOST_AT_ONCE = 500
"""Messages that one report lifts; the newest."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The page has every message of ours up to place `up_to` of the conversation's log."""

    conversation_id: uuid.UUID
    customer_id: uuid.UUID
    up_to: int
    status: Literal["DELIVERED", "READ"]


# `IS TRUE`: the index by customer must not fit.
_FIND = """
SELECT id FROM messages
WHERE conversation_id = $1 AND (customer_id = $2) IS TRUE AND direction = 'OUTBOUND' AND log_seq <= $3
  AND (status = 'SENT' OR status = 'DELIVERED' AND $4 = 'READ')
ORDER BY log_seq DESC LIMIT $5
"""
_LIFT = """
UPDATE messages SET status = $2, delivered_at = coalesce(delivered_at, now()),
    read_at = CASE WHEN $2 = 'READ' THEN coalesce(read_at, now()) ELSE read_at END
WHERE id = ANY($1::uuid[])
"""


async def see(connection: Connection, row: Seen, outbox: Outbox) -> int:
    """Lift the messages that this says something new of; returns how many."""
    found = await connection.fetch(_FIND, row.conversation_id, row.customer_id, row.up_to, row.status, MOST_AT_ONCE)
    locked = await lock_messages(connection, [record["id"] for record in found])
    lifted = [message for message in locked.values() if climbs(message.status, row.status)]
    if not lifted:
        return 0
    await connection.execute(_LIFT, [message.id for message in lifted], row.status)
    events = await announce(connection, [announcement(message, row.status) for message in lifted])
    await insert_jobs(connection, events, outbox)
    return len(lifted)

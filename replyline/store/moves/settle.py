"""The move `settle`: a channel took our message; its lane goes on."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from replyline.statuses import climbs
from replyline.store.database import Connection
from replyline.store.moves.announce import announce
from replyline.store.moves.delivery import OurMessage, announcement, lock_messages, sent_fact
from replyline.store.moves.lane import leave
from replyline.store.moves.metering import meter
from replyline.store.moves.work import Run, finish, lock_conversations, save_conversations
from replyline.store.outbox import Outbox, insert_jobs


@dataclass(frozen=True, slots=True)
class Settle:
    """A message that the channel accepted under `external_id` (None where a status already told us its id)."""

    run: Run
    conversation_id: uuid.UUID
    message_id: uuid.UUID
    external_id: str | None


_ACCEPTED = """
UPDATE messages m
SET external_id = coalesce(m.external_id, r.external_id), sent_at = coalesce(m.sent_at, now()),
    status = CASE WHEN r.climbs THEN 'SENT' ELSE m.status END
FROM unnest($1::uuid[], $2::text[], $3::bool[]) AS r (id, external_id, climbs)
WHERE m.id = r.id
"""

_UNKNOWN = """
UPDATE messages SET status = 'UNKNOWN', unknown_since = now() WHERE id = $1 AND customer_id = $2 AND status = 'SENDING'
"""
_SENDING = """
UPDATE messages SET status = 'SENDING', unknown_since = NULL
WHERE id = $1 AND customer_id = $2 AND status IN ('UNKNOWN', 'QUEUED')
"""


async def settle(connection: Connection, rows: Sequence[Settle], outbox: Outbox) -> list[bool]:
    """Record that the messages were accepted; False for those whose job another run had finished."""
    locked = await lock_conversations(connection, [row.conversation_id for row in rows])
    done = await finish(connection, [row.run for row in rows])
    mine = [row for row in rows if row.run.job_id in done and row.conversation_id in locked]
    messages = await lock_messages(connection, [row.message_id for row in mine])
    accepted = [(row, messages[row.message_id]) for row in mine if row.message_id in messages]
    newly_sent: list[tuple[Settle, OurMessage]] = [pair for pair in accepted if climbs(pair[1].status, "SENT")]
    if accepted:
        await connection.execute(
            _ACCEPTED,
            [message.id for _, message in accepted],
            [row.external_id for row, _ in accepted],
            [climbs(message.status, "SENT") for _, message in accepted],
        )
    leaving = [(locked[row.conversation_id], row.run.job_id) for row in mine]
    following = await leave(connection, leaving, outbox)
    await save_conversations(connection, {conversation.id: conversation for conversation, _ in leaving})
    await meter(connection, [sent_fact(message) for _, message in accepted])
    events = await announce(
        connection,
        [
            announcement(message, "SENT", external_id=row.external_id, parent_id=row.run.job_id)
            for row, message in newly_sent
        ],
    )
    await insert_jobs(connection, [*following, *events], outbox)
    return [row.run.job_id in done for row in rows]


async def mark_unknown(connection: Connection, message_id: uuid.UUID, *, customer_id: uuid.UUID) -> None:
    """A send whose outcome is not known says so, until a status or a repeat settles it."""
    await connection.execute(_UNKNOWN, message_id, customer_id)


async def mark_sending(connection: Connection, message_id: uuid.UUID, *, customer_id: uuid.UUID) -> None:
    """A send is about to be repeated: should the worker die in it, its outcome is unknown again."""
    await connection.execute(_SENDING, message_id, customer_id)

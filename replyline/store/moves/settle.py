"""The move `settle`: a send has ended, one way or another; its lane goes on."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from replyline.statuses import climbs
from replyline.store.database import Connection
from replyline.store.moves.announce import Announcement, announce
from replyline.store.moves.delivery import OurMessage, announcement, lock_messages, sent_fact
from replyline.store.moves.lane import leave
from replyline.store.moves.metering import meter
from replyline.store.moves.statuses import apply_parked
from replyline.store.moves.work import Run, finish, lock_conversations, save_conversations
from replyline.store.outbox import Outbox, insert_jobs

Outcome = Literal["sent", "accepted", "blocked_window", "withdrawn"]
"""sent: the channel has it. accepted: it will say when it has. blocked_window: it may not be sent to this person now.
withdrawn: it was cancelled before it went out."""


@dataclass(frozen=True, slots=True)
class Settle:
    """The send of a message has ended; `external_id` is None where nothing was sent, or where a status had told it already."""

    run: Run
    conversation_id: uuid.UUID
    message_id: uuid.UUID
    external_id: str | None = None
    outcome: Outcome = "sent"
    sent_as: str | None = None
    """What was sent in place of the text, in words (a template, say)."""


_ACCEPTED = """
UPDATE messages m
SET external_id = coalesce(m.external_id, r.external_id), accepted_at = coalesce(m.accepted_at, now()),
    sent_as = coalesce(r.sent_as, m.sent_as), unknown_since = NULL,
    sent_at = CASE WHEN r.is_sent THEN coalesce(m.sent_at, now()) ELSE m.sent_at END,
    status = CASE WHEN r.is_sent AND r.climbs THEN 'SENT' WHEN m.status IN ('QUEUED', 'UNKNOWN') THEN 'SENDING' ELSE m.status END
FROM unnest($1::uuid[], $2::text[], $3::bool[], $4::bool[], $5::text[]) AS r (id, external_id, is_sent, climbs, sent_as)
WHERE m.id = r.id
"""
_BLOCKED = """
UPDATE messages SET status = 'BLOCKED_WINDOW', failed_at = now(), error_reason = 'window_closed',
    error_detail = 'the person has not written for 24 hours, and the channel has no template to send instead'
WHERE id = ANY($1::uuid[]) AND status IN ('QUEUED', 'SENDING', 'UNKNOWN')
RETURNING id
"""

_Pair = tuple[Settle, OurMessage]


async def settle(connection: Connection, rows: Sequence[Settle], outbox: Outbox) -> list[bool]:
    """Record how the sends ended; False for those whose job another run had finished."""
    locked = await lock_conversations(connection, [row.conversation_id for row in rows])
    done = await finish(connection, [row.run for row in rows])
    mine = [row for row in rows if row.run.job_id in done and row.conversation_id in locked]
    messages = await lock_messages(connection, [row.message_id for row in mine])
    known: list[_Pair] = [(row, messages[row.message_id]) for row in mine if row.message_id in messages]
    said = await _accept(connection, [pair for pair in known if pair[0].outcome in {"sent", "accepted"}])
    said += await _block(connection, [pair for pair in known if pair[0].outcome == "blocked_window"])
    for row in mine:
        if done[row.run.job_id]:  # an external worker did it out of its turn
            locked[row.conversation_id].leave_lane()
    heads = [(locked[row.conversation_id], row.run.job_id) for row in mine if not done[row.run.job_id]]
    following = await leave(connection, heads, outbox)
    await save_conversations(connection, {row.conversation_id: locked[row.conversation_id] for row in mine})
    await insert_jobs(connection, [*following, *await announce(connection, said)], outbox)
    await apply_parked(connection, [(message, row.external_id) for row, message in known if row.external_id], outbox)
    return [row.run.job_id in done for row in rows]


async def _accept(connection: Connection, pairs: Sequence[_Pair]) -> list[Announcement]:
    if not pairs:
        return []
    is_sent = [row.outcome == "sent" for row, _ in pairs]
    await connection.execute(
        _ACCEPTED,
        [message.id for _, message in pairs],
        [row.external_id for row, _ in pairs],
        is_sent,
        [climbs(message.status, "SENT") for _, message in pairs],
        [row.sent_as for row, _ in pairs],
    )
    sent = [pair for pair, counts in zip(pairs, is_sent, strict=True) if counts]
    await meter(connection, [sent_fact(message) for _, message in sent])
    return [
        announcement(message, "SENT", external_id=row.external_id, parent_id=row.run.job_id)
        for row, message in sent
        if climbs(message.status, "SENT")
    ]


async def _block(connection: Connection, pairs: Sequence[_Pair]) -> list[Announcement]:
    if not pairs:
        return []
    blocked = {record["id"] for record in await connection.fetch(_BLOCKED, [message.id for _, message in pairs])}
    return [
        announcement(message, "BLOCKED_WINDOW", error_reason="window_closed", parent_id=row.run.job_id)
        for row, message in pairs
        if message.id in blocked
    ]

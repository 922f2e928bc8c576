"""The move `apply_status`: what a channel reports about our messages, applied upward only."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from replyline.statuses import StatusUpdate, climbs
from replyline.store.database import Connection
from replyline.store.moves.announce import announce
from replyline.store.moves.delivery import OurMessage, announcement, lock_messages
from replyline.store.outbox import Outbox, insert_jobs


@dataclass(frozen=True, slots=True)
class ReportedStatus:
    """One status from the callback of one channel of one customer."""

    channel_id: uuid.UUID
    customer_id: uuid.UUID
    update: StatusUpdate


_FIND = """
SELECT r.ord, coalesce(own.id, m.id) AS id
FROM unnest($1::uuid[], $2::uuid[], $3::text[]) WITH ORDINALITY AS r (channel_id, message_id, external_id, ord)
LEFT JOIN messages own ON own.id = r.message_id AND own.channel_id = r.channel_id
LEFT JOIN messages m ON m.channel_id = r.channel_id AND m.external_id = r.external_id
WHERE coalesce(own.id, m.id) IS NOT NULL
"""

_APPLY = """
UPDATE messages m
SET status = r.status, external_id = coalesce(m.external_id, r.external_id),
    sent_at = CASE WHEN r.status IN ('SENT', 'DELIVERED', 'READ') THEN coalesce(m.sent_at, r.at) ELSE m.sent_at END,
    delivered_at = CASE WHEN r.status IN ('DELIVERED', 'READ') THEN coalesce(m.delivered_at, r.at) ELSE m.delivered_at END,
    read_at = CASE WHEN r.status = 'READ' THEN coalesce(m.read_at, r.at) ELSE m.read_at END,
    failed_at = CASE WHEN r.status = 'FAILED' THEN r.at ELSE m.failed_at END,
    error_reason = CASE WHEN r.status = 'FAILED' THEN r.error_reason END,
    error_detail = CASE WHEN r.status = 'FAILED' THEN r.error_detail END
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
  AS r (id, status, external_id, at, error_reason, error_detail)
WHERE m.id = r.id
"""


async def apply_statuses(connection: Connection, rows: Sequence[ReportedStatus], outbox: Outbox) -> list[bool]:
    """Apply each status that lifts its message; False where it is unknown (another program's message), or was known already."""
    found: dict[int, uuid.UUID] = {
        record["ord"] - 1: record["id"]
        for record in await connection.fetch(
            _FIND,
            [row.channel_id for row in rows],
            [row.update.message_id for row in rows],
            [row.update.external_id for row in rows],
        )
    }
    messages = await lock_messages(connection, list(found.values()))
    reached: dict[uuid.UUID, str] = {id_: message.status for id_, message in messages.items()}
    lifted: list[tuple[int, ReportedStatus, OurMessage]] = []
    for index, row in enumerate(rows):
        message = messages.get(found[index]) if index in found else None
        if message is None or message.customer_id != row.customer_id:
            continue
        if climbs(reached[message.id], row.update.status):
            reached[message.id] = row.update.status
            lifted.append((index, row, message))
    await _write(connection, {message.id: row.update for _, row, message in lifted}, messages)
    events = await announce(
        connection,
        [
            announcement(
                message,
                row.update.status,
                external_id=row.update.external_id,
                error_reason=row.update.error_reason,
            )
            for _, row, message in lifted
        ],
    )
    await insert_jobs(connection, events, outbox)
    applied = {index for index, _, _ in lifted}
    return [index in applied for index in range(len(rows))]


async def _write(
    connection: Connection, last: dict[uuid.UUID, StatusUpdate], messages: dict[uuid.UUID, OurMessage]
) -> None:
    if not last:
        return
    await connection.execute(
        _APPLY,
        list(last),
        [update.status for update in last.values()],
        [update.external_id for update in last.values()],
        [update.at for update in last.values()],
        [update.error_reason for update in last.values()],
        [update.error_detail for update in last.values()],
    )

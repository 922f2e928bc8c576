"""The move `apply_status`: what a channel reports about our messages, applied upward only, and parked until they are known."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from replyline.contents import Template, encode_content, in_words
from replyline.ids import new_id
from replyline.statuses import DeliveryStatus, Pricing, StatusUpdate, climbs
from replyline.store.database import Connection
from replyline.store.moves.announce import announce
from replyline.store.moves.delivery import OurMessage, announcement, lock_messages, price_fact, sent_fact
from replyline.store.moves.lane import Utterance, say
from replyline.store.moves.metering import meter
from replyline.store.moves.notices import OPTED_OUT, RefusedMarketing, opt_out
from replyline.store.moves.work import LockedConversation, lock_conversations, save_conversations
from replyline.store.outbox import Enqueue, Outbox, insert_jobs


@dataclass(frozen=True, slots=True)
class ReportedStatus:
    """One status from the callback of one channel of one customer.

    `instead` is what is sent in place of a message that came too late for free text, if the channel has anything.
    """

    channel_id: uuid.UUID
    customer_id: uuid.UUID
    update: StatusUpdate
    instead: Template | None = None


class _Parked(msgspec.Struct, frozen=True):
    """A status as it is kept until its message is known."""

    status: DeliveryStatus
    at: datetime
    error_reason: str | None = None
    error_code: int | None = None
    error_title: str | None = None
    error_detail: str | None = None
    category: str | None = None
    pricing_type: str | None = None


_FIND = """
SELECT r.ord, coalesce(own.id, m.id) AS id, coalesce(own.conversation_id, m.conversation_id) AS conversation_id
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
    error_code = CASE WHEN r.status = 'FAILED' THEN r.error_code END,
    error_title = CASE WHEN r.status = 'FAILED' THEN r.error_title END,
    error_detail = CASE WHEN r.status = 'FAILED' THEN r.error_detail END
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::int[], $7::text[], $8::text[])
  AS r (id, status, external_id, at, error_reason, error_code, error_title, error_detail)
WHERE m.id = r.id
"""

_PARK = """
INSERT INTO parked_statuses (channel_id, external_id, status, customer_id, report)
SELECT channel_id, external_id, status, customer_id, report::jsonb
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[])
  AS new (channel_id, external_id, status, customer_id, report)
ON CONFLICT DO NOTHING
"""
_UNPARK = """
DELETE FROM parked_statuses p USING unnest($1::uuid[], $2::text[]) AS r (channel_id, external_id)
WHERE p.channel_id = r.channel_id AND p.external_id = r.external_id
RETURNING p.channel_id, p.customer_id, p.external_id, p.report::text AS report
"""
_CAUGHT_UP = """
SELECT p.channel_id, p.external_id FROM parked_statuses p
JOIN messages m ON m.channel_id = p.channel_id AND m.external_id = p.external_id LIMIT $1
"""


async def apply_statuses(connection: Connection, rows: Sequence[ReportedStatus], outbox: Outbox) -> list[bool]:
    """Apply each status that lifts its message; False where it was known, or is parked because its message is not known."""
    found = await _find(connection, rows)
    refused = [
        RefusedMarketing(found[index][0], row.customer_id, row.update.at)
        for index, row in enumerate(rows)
        if index in found and row.update.error_reason == OPTED_OUT
    ]
    await opt_out(connection, refused, outbox)
    late = [found[index][1] for index, row in enumerate(rows) if index in found and row.instead is not None]
    locked = await lock_conversations(connection, late)
    messages = await lock_messages(connection, [message_id for message_id, _ in found.values()])
    reached: dict[uuid.UUID, str] = {id_: message.status for id_, message in messages.items()}
    mine: list[tuple[int, ReportedStatus, OurMessage]] = [
        (index, row, messages[found[index][0]])
        for index, row in enumerate(rows)
        if index in found and found[index][0] in messages and messages[found[index][0]].customer_id == row.customer_id
    ]
    lifted: list[tuple[int, ReportedStatus, OurMessage]] = []
    for index, row, message in mine:
        if climbs(reached[message.id], row.update.status):
            reached[message.id] = row.update.status
            lifted.append((index, row, message))
    await _write(connection, {message.id: row.update for _, row, message in lifted})
    await _park(connection, [row for index, row in enumerate(rows) if index not in found])
    await _meter(connection, mine, lifted)
    heads = await _say_instead(connection, [(row, message) for _, row, message in lifted], locked, outbox)
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
    await insert_jobs(connection, [*heads, *events], outbox)
    applied = {index for index, _, _ in lifted}
    return [index in applied for index in range(len(rows))]


async def apply_parked(connection: Connection, known: Sequence[tuple[OurMessage, str]], outbox: Outbox) -> None:
    """Apply the statuses that came before these messages' channel ids were known to us."""
    if known:
        await _apply_parked(
            connection, [message.channel_id for message, _ in known], [external_id for _, external_id in known], outbox
        )


async def catch_up(connection: Connection, outbox: Outbox, *, limit: int = 500) -> int:
    """Apply parked statuses whose message has become known since: a send and its status may have passed each other unseen."""
    found = await connection.fetch(_CAUGHT_UP, limit)
    if found:
        await _apply_parked(
            connection, [record["channel_id"] for record in found], [record["external_id"] for record in found], outbox
        )
    return len(found)


async def _apply_parked(
    connection: Connection, channel_ids: Sequence[uuid.UUID], external_ids: Sequence[str], outbox: Outbox
) -> None:
    records = await connection.fetch(_UNPARK, channel_ids, external_ids)
    rows = [
        ReportedStatus(record["channel_id"], record["customer_id"], _unparked(record["external_id"], record["report"]))
        for record in records
    ]
    if rows:
        await apply_statuses(connection, sorted(rows, key=lambda row: row.update.at), outbox)


async def _find(connection: Connection, rows: Sequence[ReportedStatus]) -> dict[int, tuple[uuid.UUID, uuid.UUID]]:
    """The message and conversation of each status that has one."""
    records = await connection.fetch(
        _FIND,
        [row.channel_id for row in rows],
        [row.update.message_id for row in rows],
        [row.update.external_id for row in rows],
    )
    return {record["ord"] - 1: (record["id"], record["conversation_id"]) for record in records}


async def _write(connection: Connection, last: Mapping[uuid.UUID, StatusUpdate]) -> None:
    if not last:
        return
    await connection.execute(
        _APPLY,
        list(last),
        [update.status for update in last.values()],
        [update.external_id for update in last.values()],
        [update.at for update in last.values()],
        [update.error_reason for update in last.values()],
        [update.error_code for update in last.values()],
        [update.error_title for update in last.values()],
        [update.error_detail for update in last.values()],
    )


async def _park(connection: Connection, rows: Sequence[ReportedStatus]) -> None:
    """Kept for a while: ours, if the send's own answer is still on its way, else another program's on the same number."""
    if not rows:
        return
    await connection.execute(
        _PARK,
        [row.channel_id for row in rows],
        [row.update.external_id for row in rows],
        [row.update.status for row in rows],
        [row.customer_id for row in rows],
        [msgspec.json.encode(_parked(row.update)).decode() for row in rows],
    )


def _parked(update: StatusUpdate) -> _Parked:
    pricing = update.pricing
    return _Parked(
        update.status,
        update.at,
        update.error_reason,
        update.error_code,
        update.error_title,
        update.error_detail,
        None if pricing is None else pricing.category,
        None if pricing is None else pricing.type,
    )


def _unparked(external_id: str, report: str) -> StatusUpdate:
    parked = msgspec.json.decode(report.encode(), type=_Parked)
    return StatusUpdate(
        external_id,
        parked.status,
        parked.at,
        error_reason=parked.error_reason,
        error_code=parked.error_code,
        error_title=parked.error_title,
        error_detail=parked.error_detail,
        pricing=None if parked.category is None else Pricing(parked.category, parked.pricing_type or ""),
    )


async def _meter(
    connection: Connection,
    mine: Sequence[tuple[int, ReportedStatus, OurMessage]],
    lifted: Sequence[tuple[int, ReportedStatus, OurMessage]],
) -> None:
    """What the channel charges, once a message; and that it was sent, where no answer of a send has said so."""
    facts = [
        price_fact(message, row.update.external_id, row.update.pricing)
        for _, row, message in mine
        if row.update.pricing is not None
    ]
    facts += [
        sent_fact(message)
        for _, row, message in lifted
        if row.update.status != "FAILED" and message.status in {"QUEUED", "SENDING", "UNKNOWN"}
    ]
    await meter(connection, list({fact.key: fact for fact in facts}.values()))


async def _say_instead(
    connection: Connection,
    lifted: Sequence[tuple[ReportedStatus, OurMessage]],
    locked: dict[uuid.UUID, LockedConversation],
    outbox: Outbox,
) -> list[Enqueue]:
    """Free text came too late, and Meta found out: the channel's template takes its place, once (contracts §1.6: 131047)."""
    said = [
        Utterance(
            locked[message.conversation_id],
            in_words(row.instead),
            message.trace_id,
            message_id=new_id(),
            parent_id=message.id,
            role="system",
            synthetic=True,
            body=encode_content(row.instead),
        )
        for row, message in lifted
        if row.instead is not None and not message.is_template and message.conversation_id in locked
    ]
    heads = await say(connection, said, outbox)
    await save_conversations(connection, {utterance.conversation.id: utterance.conversation for utterance in said})
    return heads

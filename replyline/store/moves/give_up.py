"""The move `give_up`: a job becomes a dead letter, together with what that means for the person and the customer."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import msgspec

from replyline.ids import new_id
from replyline.jobs import DEAD_LETTER
from replyline.store.database import Connection
from replyline.store.ended import ENDED, KEPT
from replyline.store.moves.announce import Announcement, announce
from replyline.store.moves.delivery import announcement, lock_messages
from replyline.store.moves.inbound_lane import go_on
from replyline.store.moves.lane import Utterance, leave, say
from replyline.store.moves.media import fail_file
from replyline.store.moves.notices import OPTED_OUT, RefusedMarketing, opt_out
from replyline.store.moves.setbacks import MAX_ERRORS_KEPT, Failure
from replyline.store.moves.work import LockedConversation, Run, lock_conversations, save_conversations
from replyline.store.outbox import Enqueue, NewJob, Outbox, insert_jobs

FALLBACK_PAUSE_S = 600.0
"""One apology an incident: a conversation that got the fallback text this recently (seconds) does not get it again."""


@dataclass(frozen=True, slots=True)
class TurnGivenUp:
    """The turn of an ai-processing job that will not be answered; `say` is the chatbot's fallback text."""

    after_seq: int
    through_seq: int
    say: str


@dataclass(frozen=True, slots=True)
class Consequence:
    """What giving a job up means outside the queue; of the last four at most one is set."""

    conversation_id: uuid.UUID | None = None
    turn: TurnGivenUp | None = None
    failed_message_id: uuid.UUID | None = None
    failed_event_id: uuid.UUID | None = None
    failed_media_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A job that is given up, why, and what that means."""

    run: Run
    reason: str
    failure: Failure
    consequence: Consequence


_BURIED = KEPT.replace("payload", "payload || turn::jsonb").replace("attempts", "attempts + 1")

_BURY = f"""
WITH gone AS (
    DELETE FROM jobs j USING unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[])
      AS r (id, reason, started_at, worker, failure, turn)
    WHERE j.id = r.id AND j.finished_at IS NULL
    RETURNING j.*, r.reason AS given_up_for, r.started_at AS ran_from, r.worker AS ran_by, r.failure, r.turn
), buried AS (
    INSERT INTO dead_jobs ({KEPT}, {ENDED}, lane_key, reason)
    SELECT {_BURIED}, waits_of(waits, wait_reason, wait_since, run_at), keep_last(errors || failure::jsonb, $7), ran_from, now(),
           ran_by, lane_key, given_up_for
    FROM gone
)
SELECT id, queue, run_at = 'infinity' AND held_by IS NULL AS behind, lane_key, customer_id, trace_id, generation,
       attempts + 1 AS attempts, priority::int AS priority
FROM gone
"""  # noqa: S608  the columns are constants

_FAIL_MESSAGES = """
UPDATE messages m SET status = 'FAILED', failed_at = now(), error_reason = r.reason, error_detail = r.detail
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS r (id, reason, detail)
WHERE m.id = r.id AND m.status IN ('QUEUED', 'SENDING', 'UNKNOWN')
RETURNING m.id
"""

_FAIL_EVENTS = """
UPDATE webhook_events SET status = 'FAILED', finished_at = now() WHERE id = ANY($1::uuid[]) AND status = 'PENDING'
"""


async def give_up(connection: Connection, rows: Sequence[GivenUp], outbox: Outbox) -> list[bool]:
    """Bury the jobs that still wait; False for the others, of which nothing else is written."""
    await _opt_out(connection, rows, outbox)
    locked = await lock_conversations(connection, [row.consequence.conversation_id for row in rows])
    buried = await _bury(connection, rows)
    mine = [row for row in rows if row.run.job_id in buried]
    heads = await _apologise(connection, mine, locked, buried, outbox)
    following, announcements = await _fail_messages(connection, mine, locked, buried, outbox)
    await save_conversations(connection, locked)
    events = [row.consequence.failed_event_id for row in mine if row.consequence.failed_event_id is not None]
    if events:
        await connection.execute(_FAIL_EVENTS, events)
    for row in mine:
        if row.consequence.failed_media_id is not None:
            await fail_file(connection, row.consequence.failed_media_id, row.reason)
    webhooks = await announce(connection, announcements)
    await insert_jobs(connection, [*heads, *following, *webhooks], outbox)
    await go_on(connection, (record["lane_key"] for record in buried.values() if record["lane_key"]), outbox)
    outbox.extend(_notice(row, buried[row.run.job_id]) for row in mine)
    return [row.run.job_id in buried for row in rows]


async def _opt_out(connection: Connection, rows: Sequence[GivenUp], outbox: Outbox) -> None:
    """What the channel said holds whether or not another run has buried the job."""
    refused = [row.consequence.failed_message_id for row in rows if row.reason == OPTED_OUT]
    messages = [message_id for message_id in refused if message_id is not None]
    if messages:
        owners = await connection.fetch("SELECT id, customer_id FROM messages WHERE id = ANY($1::uuid[])", messages)
        await opt_out(connection, [RefusedMarketing(one["id"], one["customer_id"]) for one in owners], outbox)


async def _bury(connection: Connection, rows: Sequence[GivenUp]) -> dict[uuid.UUID, asyncpg.Record]:
    records = await connection.fetch(
        _BURY,
        [row.run.job_id for row in rows],
        [row.reason for row in rows],
        [row.run.started_at for row in rows],
        [row.run.worker for row in rows],
        [msgspec.json.encode(row.failure).decode() for row in rows],
        [_turn_range(row.consequence.turn) for row in rows],
        MAX_ERRORS_KEPT,
    )
    return {record["id"]: record for record in records}


def _turn_range(turn: TurnGivenUp | None) -> str:
    """Kept in the payload, so that a replay answers this turn and no other."""
    if turn is None:
        return "{}"
    return msgspec.json.encode({"afterSeq": turn.after_seq, "throughSeq": turn.through_seq}).decode()


async def _apologise(
    connection: Connection,
    rows: Sequence[GivenUp],
    locked: Mapping[uuid.UUID, LockedConversation],
    buried: Mapping[uuid.UUID, asyncpg.Record],
    outbox: Outbox,
) -> list[Enqueue]:
    """Say the fallback text for turns given up, once an incident, and let the conversation's next turn begin."""
    spoken: list[Utterance] = []
    turns: list[Enqueue] = []
    for row in rows:
        conversation = locked.get(row.consequence.conversation_id) if row.consequence.conversation_id else None
        if row.consequence.turn is None or conversation is None:
            continue
        trace_id = buried[row.run.job_id]["trace_id"]
        conversation.answered_seq = max(conversation.answered_seq, row.consequence.turn.through_seq)
        if conversation.owner == "BOT" and _may_apologise(conversation):
            conversation.fell_back_now = True
            spoken.append(_fallback(conversation, row.consequence.turn, trace_id, row.run.job_id))
        if conversation.owner == "BOT" and conversation.last_inbound_seq > conversation.answered_seq:
            turns.append(conversation.next_turn(trace_id, row.run.job_id))
    return [*await say(connection, spoken, outbox), *turns]


def _may_apologise(conversation: LockedConversation) -> bool:
    if conversation.fell_back_now:
        return False
    return conversation.seconds_since_fallback is None or conversation.seconds_since_fallback > FALLBACK_PAUSE_S


def _fallback(
    conversation: LockedConversation, turn: TurnGivenUp, trace_id: uuid.UUID, parent_id: uuid.UUID
) -> Utterance:
    return Utterance(
        conversation,
        turn.say,
        trace_id,
        message_id=new_id(),
        parent_id=parent_id,
        turn_after_seq=turn.after_seq,
        turn_through_seq=turn.through_seq,
        synthetic=True,
    )


async def _fail_messages(
    connection: Connection,
    rows: Sequence[GivenUp],
    locked: Mapping[uuid.UUID, LockedConversation],
    buried: Mapping[uuid.UUID, asyncpg.Record],
    outbox: Outbox,
) -> tuple[list[Enqueue], list[Announcement]]:
    failed = {row.consequence.failed_message_id: row for row in rows if row.consequence.failed_message_id is not None}
    if not failed:
        return [], []
    messages = await lock_messages(connection, list(failed))
    records = await connection.fetch(
        _FAIL_MESSAGES,
        list(failed),
        [row.reason for row in failed.values()],
        [row.failure.message for row in failed.values()],
    )
    now_failed = {record["id"] for record in records}
    leaving = [
        (locked[row.consequence.conversation_id], row.run.job_id)
        for row in failed.values()
        if row.consequence.conversation_id is not None and row.consequence.conversation_id in locked
    ]
    for conversation, job_id in leaving:
        if buried[job_id]["behind"]:
            conversation.leave_lane()
    following = await leave(connection, [pair for pair in leaving if not buried[pair[1]]["behind"]], outbox)
    announcements = [
        announcement(messages[id_], "FAILED", error_reason=row.reason, parent_id=row.run.job_id)
        for id_, row in failed.items()
        if id_ in now_failed and id_ in messages
    ]
    return following, announcements


def _notice(row: GivenUp, record: asyncpg.Record) -> NewJob:
    """What BullMQ's tools are shown of a dead letter; the dead letter itself is the row."""
    payload = {
        "jobId": str(row.run.job_id),
        "queue": record["queue"],
        "reason": row.reason,
        "error": row.failure.message,
        "attempts": record["attempts"],
        "customerId": record["customer_id"] and str(record["customer_id"]),
        "traceId": str(record["trace_id"]),
        "diedAt": datetime.now(UTC).isoformat(),
    }
    return NewJob(
        row.run.job_id,
        DEAD_LETTER,
        "dead-letter",
        msgspec.json.encode(payload),
        record["priority"],
        generation=record["generation"],
    )

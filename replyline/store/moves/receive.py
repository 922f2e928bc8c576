"""The move `receive`: an incoming message becomes part of its conversation, and a turn is made sure of."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from replyline.jobs import AiProcessingJob, IncomingMessageJob
from replyline.store.database import Connection
from replyline.store.moves.announce import Announcement, announce
from replyline.store.moves.metering import Fact, meter
from replyline.store.moves.people import Place, find_places
from replyline.store.moves.work import LockedConversation, Run, lock_conversations, save_conversations
from replyline.store.outbox import Enqueue, Outbox, insert_jobs


@dataclass(frozen=True, slots=True)
class Receive:
    """One incoming message, with the run of its job."""

    run: Run
    job: IncomingMessageJob


class Received(Enum):
    """What became of it."""

    SAVED = auto()
    ALREADY_DONE = auto()
    BEHIND_EARLIER = auto()
    """An earlier message of the same person is not saved yet; try again in a moment."""
    REFUSED = auto()
    """The channel does not exist for this customer, or the named conversation is another's."""


# A message whose sender has an earlier one still waiting is not finished: order is kept by whoever comes first at the door.
_FINISH_IN_ORDER = """
UPDATE jobs j
SET state = 'DONE', finished_at = now(), started_at = r.started_at, worker = r.worker, wait_reason = NULL,
    conversation_id = r.conversation_id
FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::uuid[]) AS r (id, started_at, worker, conversation_id)
WHERE j.id = r.id AND j.state = 'WAITING' AND NOT EXISTS (
    SELECT 1 FROM jobs e
    WHERE e.lane_key = j.lane_key AND e.state = 'WAITING' AND e.id < j.id AND e.id <> ALL($1::uuid[])
)
RETURNING j.id
"""

_STILL_WAITING = "SELECT id FROM jobs WHERE id = ANY($1::uuid[]) AND state = 'WAITING'"

_INSERT = """
INSERT INTO messages (id, customer_id, conversation_id, channel_id, seq, direction, role, status, content, content_type,
                      external_id, trace_id, provider_at)
SELECT id, customer_id, conversation_id, channel_id, seq, 'INBOUND', 'user', 'RECEIVED', content, content_type, external_id,
       trace_id, to_timestamp(provider_at)
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::uuid[],
            $10::float8[])
  AS new (id, customer_id, conversation_id, channel_id, seq, content, content_type, external_id, trace_id, provider_at)
ON CONFLICT DO NOTHING
RETURNING id
"""

# A newer message extends the quiet window of a turn not yet answered, up to its maximum; a retry's wait is not shortened.
_EXTEND = """
UPDATE jobs j
SET run_at = greatest(
    j.run_at, least(j.created_at + make_interval(secs => r.window_max_s), now() + make_interval(secs => r.window_s))
)
FROM unnest($1::uuid[], $2::float8[], $3::float8[]) AS r (conversation_id, window_s, window_max_s)
WHERE j.conversation_id = r.conversation_id AND j.queue = 'ai-processing' AND j.state = 'WAITING'
RETURNING j.conversation_id
"""


@dataclass(frozen=True, slots=True)
class _Saved:
    row: Receive
    conversation: LockedConversation
    place: Place
    seq: int


async def receive(connection: Connection, rows: Sequence[Receive], outbox: Outbox) -> list[Received]:
    """Save the messages in the order of their jobs; see `Received` for what may become of each."""
    order = sorted(range(len(rows)), key=lambda index: rows[index].run.job_id)
    places = dict(zip(order, await find_places(connection, [rows[index].job for index in order]), strict=True))
    locked = await lock_conversations(connection, [place.conversation_id for place in places.values() if place])
    results = dict.fromkeys(order, Received.REFUSED)
    placed = {index: place for index, place in places.items() if place is not None}
    finished = await _finish_in_order(connection, rows, placed, results)
    saved = await _save(connection, [(rows[index], placed[index]) for index in order if index in finished], locked)
    await save_conversations(connection, {entry.conversation.id: entry.conversation for entry in saved})
    await meter(connection, [_fact(entry) for entry in saved])
    events = await announce(connection, [_announcement(entry) for entry in saved])
    await insert_jobs(connection, [*await _turns(connection, saved), *events], outbox)
    return [results[index] for index in range(len(rows))]


async def _finish_in_order(
    connection: Connection, rows: Sequence[Receive], placed: Mapping[int, Place], results: dict[int, Received]
) -> set[int]:
    runs = [rows[index].run for index in placed]
    records = await connection.fetch(
        _FINISH_IN_ORDER,
        [run.job_id for run in runs],
        [run.started_at for run in runs],
        [run.worker for run in runs],
        [place.conversation_id for place in placed.values()],
    )
    done = {record["id"] for record in records}
    finished = {index for index in placed if rows[index].run.job_id in done}
    left = {rows[index].run.job_id: index for index in placed if index not in finished}
    waiting = {record["id"] for record in await connection.fetch(_STILL_WAITING, list(left))} if left else set()
    for job_id, index in left.items():
        results[index] = Received.BEHIND_EARLIER if job_id in waiting else Received.ALREADY_DONE
    results.update(dict.fromkeys(finished, Received.SAVED))
    return finished


async def _save(
    connection: Connection,
    rows: Sequence[tuple[Receive, Place]],
    locked: Mapping[uuid.UUID, LockedConversation],
) -> list[_Saved]:
    if not rows:
        return []
    entries = [
        _Saved(row, locked[place.conversation_id], place, locked[place.conversation_id].next_seq())
        for row, place in rows
    ]
    records = await connection.fetch(
        _INSERT,
        [entry.row.job.message_id for entry in entries],
        [entry.conversation.customer_id for entry in entries],
        [entry.conversation.id for entry in entries],
        [entry.conversation.channel_id for entry in entries],
        [entry.seq for entry in entries],
        [entry.row.job.content for entry in entries],
        [entry.row.job.content_type for entry in entries],
        [entry.row.job.external_message_id for entry in entries],
        [entry.row.job.trace_id for entry in entries],
        [entry.row.job.provider_timestamp for entry in entries],
    )
    new = {record["id"] for record in records}
    saved = [entry for entry in entries if entry.row.job.message_id in new]
    for entry in saved:
        entry.conversation.last_inbound_seq = max(entry.conversation.last_inbound_seq, entry.seq)
        entry.conversation.reply_to = entry.row.job.reply_to or entry.row.job.external_user_id
        entry.conversation.wrote_now = True
    return saved


async def _turns(connection: Connection, saved: Sequence[_Saved]) -> list[Enqueue]:
    """One waiting ai-processing job for each conversation that the bot owns and that has something new."""
    first: dict[uuid.UUID, _Saved] = {}
    for entry in saved:
        if entry.conversation.owner == "BOT":
            first.setdefault(entry.conversation.id, entry)
    if not first:
        return []
    entries = list(first.values())
    extended = {
        record["conversation_id"]
        for record in await connection.fetch(
            _EXTEND,
            list(first),
            [entry.place.window_s for entry in entries],
            [entry.place.window_max_s for entry in entries],
        )
    }
    return [_turn(entry) for entry in entries if entry.conversation.id not in extended]


def _turn(entry: _Saved) -> Enqueue:
    conversation, job = entry.conversation, entry.row.job
    trace_id = _trace(job)
    return Enqueue(
        AiProcessingJob(
            customer_id=conversation.customer_id,
            trace_id=trace_id,
            conversation_id=conversation.id,
            message_id=job.message_id,
        ),
        conversation.priority,
        trace_id,
        delay_s=min(entry.place.window_s, entry.place.window_max_s),
        parent_id=entry.row.run.job_id,
    )


def _fact(entry: _Saved) -> Fact:
    conversation = entry.conversation
    return Fact(
        key=f"message_received:{entry.row.job.message_id}",
        kind="message_received",
        customer_id=conversation.customer_id,
        channel=conversation.channel,
        chatbot_id=conversation.chatbot_id,
        conversation_id=conversation.id,
        message_id=entry.row.job.message_id,
    )


def _announcement(entry: _Saved) -> Announcement:
    conversation, job = entry.conversation, entry.row.job
    if job.message_id is None:
        raise ValueError("a received job must name its message")
    return Announcement(
        type="message.received",
        customer_id=conversation.customer_id,
        priority=conversation.priority,
        message_id=job.message_id,
        trace_id=_trace(job),
        parent_id=entry.row.run.job_id,
        data={
            "message_id": str(job.message_id),
            "conversation_id": str(conversation.id),
            "contact_id": str(conversation.contact_id),
            "chatbot_id": str(conversation.chatbot_id),
            "channel_id": str(conversation.channel_id),
            "channel": conversation.channel,
            "direction": "INBOUND",
            "status": "RECEIVED",
            "seq": entry.seq,
            "external_id": job.external_message_id,
            "content": job.content,
            "received_at": datetime.now(UTC).isoformat(),
        },
    )


def _trace(job: IncomingMessageJob) -> uuid.UUID:
    if job.trace_id is None:
        raise ValueError("a received job must name its trace")
    return job.trace_id

"""The move `receive`: what came in becomes part of its conversation, and a turn is made sure of where it asks for one."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import msgspec
import structlog

from replyline.ids import new_id
from replyline.inbound_content import encode_inbound
from replyline.jobs import AiProcessingJob, IncomingMessageJob
from replyline.store.database import Connection, concerns_the_store
from replyline.store.moves.accept import lane_key
from replyline.store.moves.amend import AMENDMENTS, Amended, Original, amend, apply_parked
from replyline.store.moves.announce import announce
from replyline.store.moves.arrival import received_event, received_fact
from replyline.store.moves.identities import add_names, link_identities, rename
from replyline.store.moves.inbound_lane import (
    LaneJob,
    Receive,
    by_themselves,
    lock_front,
    released,
    together,
    wait_behind,
    with_finish,
)
from replyline.store.moves.lane import Utterance, say
from replyline.store.moves.media import IncomingFile, attach_uploads, fetch_files
from replyline.store.moves.metering import meter
from replyline.store.moves.people import Manners, Place, find_places
from replyline.store.moves.takeover import withdraw_replies
from replyline.store.moves.work import LockedConversation, lock_conversations, save_conversations
from replyline.store.outbox import Enqueue, Outbox, insert_jobs

log = structlog.get_logger(__name__)

APOLOGY_PAUSE_S = 3600.0
"""What cannot be read is apologised for once in so many seconds (contracts §2.5)."""


class Received(Enum):
    """What became of it."""

    SAVED = auto()
    ALREADY_DONE = auto()
    BEHIND_EARLIER = auto()
    """An earlier message of the same person is not saved yet: the row waits behind it, and gets a new job when it is its turn."""
    CONTACT_BUSY = auto()
    """Somebody known by the person's new name has something on its way; try again when it is done."""
    REFUSED = auto()
    """The channel does not exist for this customer, or the named conversation is another's."""


# An echo is ours, written by a human on the telephone. `synthetic` is what no model reads: a reaction, something unreadable.
_INSERT = """
INSERT INTO messages (id, customer_id, conversation_id, channel_id, seq, direction, role, status, content, content_type,
                      synthetic, external_id, trace_id, provider_at, sent_at, log_seq, body, quotes)
SELECT id, customer_id, conversation_id, channel_id, seq,
       CASE WHEN kind = 'echo' THEN 'OUTBOUND' ELSE 'INBOUND' END, CASE WHEN kind = 'echo' THEN 'agent' ELSE 'user' END,
       CASE WHEN kind = 'echo' THEN 'SENT' ELSE 'RECEIVED' END, content, content_type,
       kind IN ('reaction', 'note', 'unsupported'), external_id, trace_id, to_timestamp(provider_at),
       CASE WHEN kind = 'echo' THEN now() END, log_seq, body::jsonb,
       -- Of this conversation only: a client that was tampered with can quote any id.
       coalesce((SELECT q.id FROM messages q WHERE q.channel_id = new.channel_id AND q.external_id = new.about
                   AND (q.conversation_id = new.conversation_id) IS TRUE LIMIT 1),
                (SELECT q.id FROM messages q WHERE q.id = new.about_id AND q.conversation_id = new.conversation_id),
                new.quotes)
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::uuid[],
            $10::float8[], $11::text[], $12::bigint[], $13::text[], $14::text[], $15::uuid[], $16::uuid[])
  AS new (id, customer_id, conversation_id, channel_id, seq, content, content_type, external_id, trace_id, provider_at, kind,
          log_seq, body, about, about_id, quotes)
ON CONFLICT DO NOTHING
RETURNING id, (SELECT p.external_id FROM parked_amendments p
               WHERE p.channel_id = messages.channel_id AND p.external_id = messages.external_id LIMIT 1
              ) IS NOT NULL AS was_changed
"""

_SAVE = with_finish(_INSERT, parameters=16)

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

_KEPT = ("message", "reaction", "note", "unsupported", "echo")


@dataclass(frozen=True, slots=True)
class _Saved:
    row: Receive
    conversation: LockedConversation
    manners: Manners
    seq: int

    def as_now(self, amended: Amended) -> "_Saved":
        """The same with the words that a change has put in place of what came."""
        job = msgspec.structs.replace(self.row.job, content=amended.content, body=amended.body)
        return replace(self, row=Receive(self.row.run, job))

    @property
    def about(self) -> str | None:
        """The channel's id of the message that this one replies or reacts to."""
        body = self.row.job.body
        quoted = body.quoted.external_id if body is not None and body.quoted is not None else None
        return quoted or self.row.job.target_id

    @property
    def about_id(self) -> uuid.UUID | None:
        """The same on the widget, whose messages of ours have no other id than our own."""
        if self.about is None or self.row.job.channel != "WIDGET":
            return None
        try:
            return uuid.UUID(self.about)
        except ValueError:  # what another producer calls a message
            return None


async def receive(connection: Connection, rows: Sequence[Receive], outbox: Outbox) -> list[Received]:
    """Take in the jobs and those that wait in their lanes, in their order; see `Received` for what may become of each."""
    waiting = await lock_front(connection, [(row.run.job_id, lane_key(row.job)) for row in rows])
    if any(job.payload is not None for job in waiting):
        collected = Outbox()
        try:
            async with connection.transaction():
                results = await _receive(connection, rows, waiting, together, collected)
        except Exception as error:
            if concerns_the_store(error):
                raise
            # What is wrong may be with one that came along: those who were asked for must not suffer for it.
            log.warning("receive.without_others", jobs=len(waiting), error=type(error).__name__)
        else:
            outbox.add(collected)
            return results
    return await _receive(connection, rows, waiting, by_themselves, outbox)


async def _receive(
    connection: Connection,
    rows: Sequence[Receive],
    waiting: Sequence[LaneJob],
    choose: Callable[[Sequence[Receive], Sequence[LaneJob]], tuple[list[Receive], list[uuid.UUID]]],
    outbox: Outbox,
) -> list[Received]:
    chosen, behind = choose(rows, waiting)
    results = dict.fromkeys((row.run.job_id for row in rows), Received.ALREADY_DONE)
    results.update(dict.fromkeys((row.run.job_id for row in chosen), Received.REFUSED))
    results.update(dict.fromkeys(behind, Received.BEHIND_EARLIER))
    await wait_behind(connection, behind, waiting, outbox)
    placed = await _place(connection, list(enumerate(chosen)), results)
    locked = await lock_conversations(connection, [place.conversation_id for place in placed.values() if place])
    mine = [(chosen[index], placed[index]) for index in sorted(placed)]
    results.update((row.run.job_id, Received.SAVED) for row, _ in mine)
    saved = await _save(connection, mine, locked, outbox)
    outbox.grown.update(entry.conversation.id for entry in saved if entry.conversation.channel == "WIDGET")
    await _amend(connection, mine, locked)
    await _take_over(connection, saved)
    apologies = await _apologise(connection, saved, outbox)
    files = await fetch_files(connection, _files(saved))
    await attach_uploads(connection, [(entry.row.job, entry.conversation.channel_id) for entry in saved])
    turns = await _turns(connection, saved)
    await save_conversations(connection, _touched(mine, locked))
    theirs = [entry for entry in saved if entry.row.job.kind != "echo"]
    await meter(connection, [received_fact(entry.row.job, entry.conversation) for entry in theirs])
    events = await announce(
        connection,
        [
            received_event(entry.row.job, entry.conversation, entry.seq, entry.row.run.job_id)
            for entry in saved
            if entry.row.job.kind == "message"
        ],
    )
    await insert_jobs(connection, [*turns, *apologies, *files, *events], outbox)
    return [results[row.run.job_id] for row in rows]


async def _place(
    connection: Connection, rows: Sequence[tuple[int, Receive]], results: dict[uuid.UUID, Received]
) -> dict[int, Place | None]:
    """Where each job belongs: None is no conversation, but a person's new name; what has no place is left out."""
    talking = [(index, row.job) for index, row in rows if row.job.kind != "identity"]
    renamed = [(index, row) for index, row in rows if row.job.kind == "identity"]
    named = [job for _, job in talking if job.also_known_as]
    if named:
        await link_identities(connection, named)
    places = await find_places(connection, [job for _, job in talking])
    if named:
        await add_names(connection, named)
    busy = {index for index, row in renamed if not await rename(connection, row.job)}
    results.update((row.run.job_id, Received.CONTACT_BUSY) for index, row in renamed if index in busy)
    placed: dict[int, Place | None] = {
        index: place for (index, _), place in zip(talking, places, strict=True) if place is not None
    }
    return placed | {index: None for index, _ in renamed if index not in busy}


async def _save(
    connection: Connection,
    rows: Sequence[tuple[Receive, Place | None]],
    locked: Mapping[uuid.UUID, LockedConversation],
    outbox: Outbox,
) -> list[_Saved]:
    """Finish the jobs, write what they hold, and let the next of their lanes go."""
    if not rows:
        return []
    kept = [(row, place) for row, place in rows if place is not None and row.job.kind in _KEPT]
    entries = [
        _Saved(row, locked[place.conversation_id], place.manners, locked[place.conversation_id].next_seq())
        for row, place in kept
    ]
    records = await connection.fetch(
        _SAVE,
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
        [entry.row.job.kind for entry in entries],
        [entry.conversation.next_log_seq() for entry in entries],
        [None if (raw := encode_inbound(entry.row.job.body)) is None else raw.decode() for entry in entries],
        [entry.about for entry in entries],
        [entry.about_id for entry in entries],
        _quoted_here(entries),
        [row.run.job_id for row, _ in rows],
        [row.run.started_at for row, _ in rows],
        [row.run.worker for row, _ in rows],
        [place and place.conversation_id for _, place in rows],
        sorted({lane_key(row.job) for row, _ in rows}),
    )
    outbox.extend(released(records))
    new: dict[uuid.UUID | None, bool] = {
        record["saved"]: record["was_changed"] for record in records if record["saved"] is not None
    }
    saved = [entry for entry in entries if entry.row.job.message_id in new]
    if any(new.values()):
        saved = await _change_already(connection, saved)
    for entry in saved:
        if entry.row.job.kind != "echo":
            _note_writing(entry)
    return saved


async def _change_already(connection: Connection, saved: Sequence[_Saved]) -> list[_Saved]:
    """Edits and deletions that came before their messages: from here on, the messages are what they were made."""
    changed = await apply_parked(
        connection,
        [
            Original(job.message_id, entry.conversation.channel_id, job.external_message_id, entry.conversation.id)
            for entry in saved
            if (job := entry.row.job).message_id is not None and job.external_message_id is not None
        ],
    )
    return [
        entry if (now := changed.get(entry.row.job.message_id or entry.conversation.id)) is None else entry.as_now(now)
        for entry in saved
    ]


def _quoted_here(entries: Sequence[_Saved]) -> list[uuid.UUID | None]:
    """Our ids of the messages replied to that are saved by the same statement, which does not see them yet."""
    here = {(entry.conversation.id, entry.row.job.external_message_id): entry.row.job.message_id for entry in entries}
    return [here.get((entry.conversation.id, entry.about)) if entry.about else None for entry in entries]


def _note_writing(entry: _Saved) -> None:
    """The person wrote: that is where the answer goes, from when the window runs, and maybe where a human's hold ends."""
    conversation, job = entry.conversation, entry.row.job
    if conversation.hold_over and conversation.owner == "HUMAN":
        conversation.give_back()
    conversation.reply_to = job.reply_to or job.external_user_id
    conversation.wrote_now = True
    if job.provider_timestamp is not None:
        conversation.wrote_at = max(conversation.wrote_at or 0.0, job.provider_timestamp)
    if job.kind == "message":
        conversation.last_inbound_seq = max(conversation.last_inbound_seq, entry.seq)


async def _amend(
    connection: Connection,
    rows: Sequence[tuple[Receive, Place | None]],
    locked: Mapping[uuid.UUID, LockedConversation],
) -> None:
    changes = [
        (row.job, locked[place.conversation_id])
        for row, place in rows
        if place is not None and row.job.kind in AMENDMENTS
    ]
    if changes:
        await amend(connection, changes)


async def _take_over(connection: Connection, saved: Sequence[_Saved]) -> None:
    """A human wrote on the business's telephone: the bot is silent there, where the chatbot is set so."""
    taken = [entry for entry in saved if entry.row.job.kind == "echo" and entry.manners.human_takeover]
    if not taken:
        return
    for entry in taken:
        entry.conversation.take_over(entry.manners.human_hold_s)
    await withdraw_replies(connection, [entry.conversation for entry in taken])


def _files(saved: Sequence[_Saved]) -> list[IncomingFile]:
    return [
        IncomingFile(entry.row.job, entry.row.job.media, entry.conversation, entry.row.run.job_id)
        for entry in saved
        if entry.row.job.media is not None
    ]


async def _apologise(connection: Connection, saved: Sequence[_Saved], outbox: Outbox) -> list[Enqueue]:
    """Say once an hour that a message cannot be read."""
    said: list[Utterance] = []
    for entry in saved:
        conversation = entry.conversation
        since = conversation.seconds_since_unsupported
        recently = conversation.could_not_read_now or (since is not None and since <= APOLOGY_PAUSE_S)
        if entry.row.job.kind != "unsupported" or conversation.owner != "BOT" or recently:
            continue
        conversation.could_not_read_now = True
        said.append(
            Utterance(
                conversation,
                entry.manners.unsupported_text,
                _trace(entry.row.job),
                message_id=new_id(),
                parent_id=entry.row.run.job_id,
                synthetic=True,
            )
        )
    return await say(connection, said, outbox)


def _touched(
    rows: Sequence[tuple[Receive, Place | None]], locked: Mapping[uuid.UUID, LockedConversation]
) -> dict[uuid.UUID, LockedConversation]:
    return {place.conversation_id: locked[place.conversation_id] for _, place in rows if place is not None}


async def _turns(connection: Connection, saved: Sequence[_Saved]) -> list[Enqueue]:
    """One waiting ai-processing job for each conversation that the bot owns and that has something new."""
    first: dict[uuid.UUID, _Saved] = {}
    for entry in saved:
        if entry.conversation.owner == "BOT" and entry.row.job.kind == "message":
            first.setdefault(entry.conversation.id, entry)
    if not first:
        return []
    entries = list(first.values())
    extended = {
        record["conversation_id"]
        for record in await connection.fetch(
            _EXTEND,
            list(first),
            [entry.manners.window_s for entry in entries],
            [entry.manners.window_max_s for entry in entries],
        )
    }
    return [_turn(entry) for entry in entries if entry.conversation.id not in extended]


def _turn(entry: _Saved) -> Enqueue:
    conversation, job = entry.conversation, entry.row.job
    trace_id = _trace(job)
    window_s = min(entry.manners.window_s, entry.manners.window_max_s)
    return Enqueue(
        AiProcessingJob(
            customer_id=conversation.customer_id,
            trace_id=trace_id,
            conversation_id=conversation.id,
            message_id=job.message_id,
        ),
        conversation.priority,
        trace_id,
        delay_s=window_s,
        wait_reason="quiet_window" if window_s else None,
        parent_id=entry.row.run.job_id,
    )


def _trace(job: IncomingMessageJob) -> uuid.UUID:
    if job.trace_id is None:
        raise ValueError("a received job must name its trace")
    return job.trace_id

"""The move `answer`: a turn's reply is committed, unless a newer message or a human came first."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto
from typing import Protocol

import msgspec

from replyline.ids import new_id
from replyline.jobs import AiProcessingJob, ChannelKind
from replyline.store.database import Connection
from replyline.store.moves.lane import Utterance, say
from replyline.store.moves.metering import Fact, meter
from replyline.store.moves.setbacks import MAX_ERRORS_KEPT, Failure
from replyline.store.moves.work import LockedConversation, Run, finish, lock_conversations, save_conversations
from replyline.store.outbox import Enqueue, Outbox, insert_jobs

MAX_SUPERSEDES = 2
"""A turn overtaken by newer messages is asked again this often; then its answer is sent anyway and the rest is the next turn."""


@dataclass(frozen=True, slots=True)
class AiUse:
    """What one provider call consumed; None where the provider did not say."""

    provider: str
    model: str
    latency_ms: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply to the messages after `after_seq` through `through_seq`, given under owner epoch `owner_epoch`.

    `texts` are its messages in order, more than one where it is long. There are none where there was nothing to answer: the job
    ends if that still holds. `amendments` is how often the person had edited or deleted a message when it was asked.
    """

    run: Run
    job: AiProcessingJob
    conversation_id: uuid.UUID
    owner_epoch: int
    after_seq: int
    through_seq: int
    amendments: int
    texts: tuple[str, ...]
    use: AiUse | None
    quotes: uuid.UUID | None = None
    """Our id of the message that the first of them quotes."""
    message_id: uuid.UUID | None = None
    """The id that the first of them gets, where an open page has been shown it under one already."""
    notes: tuple[Failure, ...] = ()
    """What the timeline should say of it, although it was sent: that it was cut, say."""


class Answered(Enum):
    """What became of it."""

    COMMITTED = auto()
    SUPERSEDED = auto()
    """A newer message came: the job still waits and is to be asked again with all of them."""
    OWNER_CHANGED = auto()
    """A human took over (or the bot was turned off): the job is done, nothing is said."""
    ALREADY_DONE = auto()


_WAITING = "SELECT id, supersedes FROM jobs WHERE id = ANY($1::uuid[]) AND finished_at IS NULL"
_NOTE = """
UPDATE jobs j SET errors = keep_last(j.errors || r.note::jsonb, $3)
FROM unnest($1::uuid[], $2::text[]) AS r (id, note) WHERE j.id = r.id AND j.finished_at IS NULL
"""
_SUPERSEDE = "UPDATE jobs SET supersedes = supersedes + 1 WHERE id = ANY($1::uuid[]) AND finished_at IS NULL"


async def answer(connection: Connection, rows: Sequence[Answer], outbox: Outbox) -> list[Answered]:
    """Commit the replies that still stand."""
    locked = await lock_conversations(connection, [row.conversation_id for row in rows])
    supersedes: dict[uuid.UUID, int] = {
        record["id"]: record["supersedes"]
        for record in await connection.fetch(_WAITING, [row.run.job_id for row in rows])
    }
    results = [_judge(row, locked.get(row.conversation_id), supersedes) for row in rows]
    committed = [row for row, result in zip(rows, results, strict=True) if result is Answered.COMMITTED]
    await _note(connection, committed)
    await _finish_judged(connection, rows, results)
    spoken = [(row, utterance) for row in committed for utterance in _utterances(row, locked[row.conversation_id])]
    heads = await say(connection, [utterance for _, utterance in spoken], outbox)
    turns = [turn for row in committed if (turn := _rest(row, locked[row.conversation_id])) is not None]
    await save_conversations(connection, {row.conversation_id: locked[row.conversation_id] for row in committed})
    said = {row.run.job_id: utterance.message_id for row, utterance in reversed(spoken)}
    await meter(connection, _facts(rows, locked, said))
    await insert_jobs(connection, [*heads, *turns], outbox)
    return results


def _judge(row: Answer, conversation: LockedConversation | None, supersedes: Mapping[uuid.UUID, int]) -> Answered:
    if row.run.job_id not in supersedes:
        return Answered.ALREADY_DONE
    if conversation is None or conversation.owner != "BOT" or conversation.owner_epoch != row.owner_epoch:
        return Answered.OWNER_CHANGED
    replayed = row.job.through_seq is not None
    overtaken = conversation.last_inbound_seq > row.through_seq or conversation.amendments != row.amendments
    if overtaken and not replayed and (not row.texts or supersedes[row.run.job_id] < MAX_SUPERSEDES):
        return Answered.SUPERSEDED
    return Answered.COMMITTED


async def _note(connection: Connection, rows: Sequence[Answer]) -> None:
    noted = [row for row in rows if row.notes]
    if noted:
        notes = [msgspec.json.encode(row.notes).decode() for row in noted]
        await connection.execute(_NOTE, [row.run.job_id for row in noted], notes, MAX_ERRORS_KEPT)


async def _finish_judged(connection: Connection, rows: Sequence[Answer], results: Sequence[Answered]) -> None:
    ending = (Answered.COMMITTED, Answered.OWNER_CHANGED)
    await finish(connection, [row.run for row, result in zip(rows, results, strict=True) if result in ending])
    superseded = [row.run.job_id for row, result in zip(rows, results, strict=True) if result is Answered.SUPERSEDED]
    if superseded:
        await connection.execute(_SUPERSEDE, superseded)


def _utterances(row: Answer, conversation: LockedConversation) -> list[Utterance]:
    """Also a turn with nothing left to answer is answered: its messages were taken back."""
    conversation.answered_seq = max(conversation.answered_seq, row.through_seq)
    return [
        Utterance(
            conversation,
            text,
            row.job.trace_id or row.run.job_id,
            message_id=(row.message_id if index == 0 else None) or new_id(),
            parent_id=row.run.job_id,
            turn_after_seq=row.after_seq,
            turn_through_seq=row.through_seq,
            quotes=row.quotes if index == 0 else None,
        )
        for index, text in enumerate(row.texts)
    ]


def _rest(row: Answer, conversation: LockedConversation) -> Enqueue | None:
    """The next turn, where the answer was sent although newer messages had come."""
    if conversation.last_inbound_seq <= conversation.answered_seq:
        return None
    return conversation.next_turn(row.job.trace_id or row.run.job_id, row.run.job_id)


def _facts(
    rows: Sequence[Answer], locked: Mapping[uuid.UUID, LockedConversation], said: Mapping[uuid.UUID, uuid.UUID]
) -> list[Fact]:
    """Each provider call is metered once, also when its answer was not used: it was paid for."""
    return [
        call_fact(row.run, row.use, conversation, conversation.id, message_id=said.get(row.run.job_id))
        for row in rows
        if row.use is not None and (conversation := locked.get(row.conversation_id)) is not None
    ]


class _Whose(Protocol):
    """Whom a call was for: a conversation, or a turn of one."""

    @property
    def customer_id(self) -> uuid.UUID: ...
    @property
    def chatbot_id(self) -> uuid.UUID: ...
    @property
    def channel(self) -> ChannelKind: ...


def call_fact(
    run: Run, use: AiUse, whose: _Whose, conversation_id: uuid.UUID, *, message_id: uuid.UUID | None = None
) -> Fact:
    """The billable fact that a run called a provider; a run calls once."""
    return Fact(
        key=f"ai_answer:{run.id}",
        kind="ai_answer",
        customer_id=whose.customer_id,
        channel=whose.channel,
        chatbot_id=whose.chatbot_id,
        conversation_id=conversation_id,
        message_id=message_id,
        provider=use.provider,
        model=use.model,
        input_tokens=use.input_tokens,
        output_tokens=use.output_tokens,
        cached_tokens=use.cached_tokens,
        cost=use.cost,
        latency_ms=use.latency_ms,
    )

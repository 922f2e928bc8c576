"""The move `accept`: the door keeps a message that came in."""

import uuid
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import asyncpg
import msgspec

from replyline.errors import Permanent
from replyline.ids import new_id
from replyline.jobs import ChannelKind, IncomingMessageJob
from replyline.produced import Produced, as_id
from replyline.store.database import Connection
from replyline.store.moves.inbound_lane import go_on_unless_locked
from replyline.store.outbox import Enqueue, Outbox, insert_jobs


@dataclass(frozen=True, slots=True)
class Accept:
    """One message at the door; its job names customer, channel, message and trace."""

    job: IncomingMessageJob
    priority: int
    dedupe_key: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the sender may be told. A duplicate carries the ids of the first."""

    job_id: uuid.UUID
    message_id: uuid.UUID
    trace_id: uuid.UUID
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which channel the sender of a message means; `chatbot` is our id of it, or, if `by_reference`, maybe its reference."""

    chatbot: str
    by_reference: bool
    kind: ChannelKind
    channel_id: uuid.UUID | None
    customer_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Place:
    """An enabled channel, and the priority that its customer's plan buys."""

    channel_id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    priority: int


# An id goes before a reference, so that no reference can take the place of another customer's chatbot.
_CHANNELS = """
WITH named AS (
    SELECT id FROM chatbots WHERE id = $1
    UNION ALL
    SELECT id FROM chatbots WHERE external_reference = $5 AND NOT EXISTS (SELECT 1 FROM chatbots WHERE id = $1)
)
SELECT c.id, c.customer_id, c.chatbot_id, u.priority::int AS priority FROM named
JOIN channels c ON c.chatbot_id = named.id JOIN customers u ON u.id = c.customer_id
WHERE c.kind = $2 AND ($3::uuid IS NULL OR c.id = $3) AND ($4::uuid IS NULL OR c.customer_id = $4)
  AND c.enabled
ORDER BY c.id LIMIT 2
"""

# A page may have been told its conversation's id before the conversation exists.
_IS_CONVERSATION = """
SELECT EXISTS (SELECT 1 FROM conversations WHERE id = $1 AND channel_id = $2) OR EXISTS (
    SELECT 1 FROM visitors WHERE channel_id = $2 AND identity_kind = $3 AND identity = $4 AND conversation_id = $1
)
"""

_KNOWN = "SELECT dedupe_key, id, message_id, trace_id FROM all_jobs WHERE dedupe_key = ANY($1::text[])"


_ACCEPTED_AS = "SELECT message_id FROM all_jobs WHERE dedupe_key = $1 AND customer_id = $2"


async def accepted_as(connection: Connection, key: str, *, customer_id: uuid.UUID) -> uuid.UUID | None:
    """Our id of the message that was accepted from the customer's people under that dedupe key."""
    found: uuid.UUID | None = await connection.fetchval(_ACCEPTED_AS, key, customer_id)
    return found


def dedupe_key(channel_id: uuid.UUID, external_message_id: str) -> str:
    """What makes a repeated message recognisable: the channel's own id of it."""
    return f"{channel_id}:{external_message_id}"


def lane_key(job: IncomingMessageJob) -> str:
    """What keeps the messages of one person in order until their conversation is known."""
    return f"{job.channel_id}:{job.external_user_id}"


def wanted_by(job: IncomingMessageJob, *, customer_id: uuid.UUID | None, chatbot: str | None = None) -> Wanted:
    """What its sender says of the channel: with `chatbot` the chatbot is meant by our id of it, or its external reference."""
    return Wanted(chatbot or str(job.chatbot_id), chatbot is not None, job.channel, job.channel_id, customer_id)


async def find_places(connection: Connection, wanted: Wanted) -> tuple[Place, ...]:
    """The enabled channels that fit; at most two, because one of several is none."""
    reference = wanted.chatbot if wanted.by_reference else None
    found = await connection.fetch(
        _CHANNELS, as_id(wanted.chatbot), wanted.kind, wanted.channel_id, wanted.customer_id, reference
    )
    return tuple(Place(*record) for record in found)


def address(job: IncomingMessageJob, wanted: Wanted, places: Sequence[Place], *, unnamed: str | None = None) -> Accept:
    """Fill in what the sender of a message could not know: its customer, channel and priority, and ids where they are missing.

    A message with an `externalMessageId` is accepted once in its channel; one without, once for each `unnamed` key.

    Raises:
        Permanent: the chatbot has no channel of that kind (of that customer, where one is given), or several and the job does
            not say which.
    """
    if len(places) != 1:
        count = "no" if not places else "more than one"
        hint = "; name one by channelId" if places else ""
        raise Permanent(f"chatbot {wanted.chatbot} has {count} {wanted.kind} channel{hint}", reason="unknown_channel")
    place = places[0]
    full = msgspec.structs.replace(
        job,
        customer_id=place.customer_id,
        channel_id=place.channel_id,
        chatbot_id=place.chatbot_id,
        message_id=job.message_id or new_id(),
        trace_id=job.trace_id or new_id(),
    )
    key = dedupe_key(place.channel_id, job.external_message_id) if job.external_message_id else unnamed
    return Accept(full, place.priority, key)


async def address_produced(
    connection: Connection, produced: Produced, *, customer_id: uuid.UUID | None, unnamed: str | None = None
) -> Accept:
    """The same for a message whose producer may use names of its own for the chatbot and the conversation.

    Raises:
        Permanent: see `address`.
    """
    wanted = wanted_by(produced.message, customer_id=customer_id, chatbot=produced.chatbot)
    row = address(produced.message, wanted, await find_places(connection, wanted), unnamed=unnamed)
    return row if produced.conversation is None else await in_conversation(connection, row, produced.conversation)


async def in_conversation(connection: Connection, row: Accept, name: str) -> Accept:
    """The row with the conversation that the producer names: by our id where it is one, else by a reference."""
    job, ours = row.job, as_id(name)
    if ours is not None and await connection.fetchval(
        _IS_CONVERSATION, ours, job.channel_id, job.identity_kind or "external", job.external_user_id
    ):
        return replace(row, job=msgspec.structs.replace(job, conversation_id=ours))
    return replace(row, job=msgspec.structs.replace(job, conversation_reference=name))


async def accept(connection: Connection, rows: Sequence[Accept], outbox: Outbox) -> list[Accepted]:
    """Insert a job for each message that is not known yet."""
    enqueued = [_enqueue(row) for row in rows]
    # In key order, so that two batches with the same keys cannot wait for each other.
    try:
        inserted = await insert_jobs(
            connection, sorted(enqueued, key=lambda row: (row.dedupe_key or "", row.id)), outbox
        )
    except asyncpg.ForeignKeyViolationError as error:  # the door looked them up a moment before
        raise Permanent("the customer was deleted", reason="unknown_channel") from error
    await go_on_unless_locked(connection, _leaderless(enqueued, inserted), outbox)
    repeated = [row.dedupe_key for row in enqueued if row.id not in inserted]
    known = {record["dedupe_key"]: record for record in await connection.fetch(_KNOWN, repeated)} if repeated else {}
    results: list[Accepted] = []
    for row in enqueued:
        if row.id in inserted:
            if row.job.message_id is None:
                raise ValueError("an accepted job must name its message")
            results.append(Accepted(row.id, row.job.message_id, row.trace_id, duplicate=False))
        else:
            first = known[row.dedupe_key]
            results.append(Accepted(first["id"], first["message_id"], first["trace_id"], duplicate=True))
    return results


def _leaderless(rows: Sequence[Enqueue], inserted: Set[uuid.UUID]) -> set[str]:
    """Lanes whose first row here was a duplicate: what was to wait behind it may wait behind nothing."""
    first: dict[str | None, uuid.UUID] = {}
    for row in sorted(rows, key=lambda row: row.id):
        first.setdefault(row.lane_key, row.id)
    return {row.lane_key for row in rows if row.lane_key and row.id in inserted and first[row.lane_key] not in inserted}


def _enqueue(row: Accept) -> Enqueue:
    if row.job.customer_id is None or row.job.trace_id is None or row.job.channel_id is None:
        raise ValueError("an accepted job must name its customer, channel and trace")
    return Enqueue(row.job, row.priority, row.job.trace_id, dedupe_key=row.dedupe_key, lane_key=lane_key(row.job))

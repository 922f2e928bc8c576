"""The health of channels: what one that fails as a whole holds back, how it is tried again, and what lets everything go on."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import asyncpg

from replyline.ids import new_id
from replyline.store.database import Connection, Database
from replyline.store.moves.announce import Announcement, announce
from replyline.store.moves.work import Run
from replyline.store.outbox import NewJob, Outbox, insert_jobs

DEGRADED = "degraded"
"""The reason of a channel that takes messages, of which none is confirmed: only a confirmation heals it."""
RELEASE_AT_ONCE = 1_000
"""Held jobs that one transaction lets go; the sweeper lets the rest go."""


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """A channel that cannot send: why, in a word and in a sentence, and how long looking again would be no use, in seconds."""

    channel_id: uuid.UUID
    customer_id: uuid.UUID
    reason: str
    detail: str
    probe_after_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """A send job whose channel is not healthy; its run has sent nothing."""

    run: Run
    channel_id: uuid.UUID
    reason: str


class Held(Enum):
    """What became of a job that was to be held."""

    HELD = auto()
    CHANNEL_IS_WELL = auto()
    """The channel was mended meanwhile: the job may go on."""
    ALREADY_DONE = auto()


@dataclass(frozen=True, slots=True)
class Patient:
    """A channel that is not healthy, and how often it was looked at since."""

    id: uuid.UUID
    customer_id: uuid.UUID
    reason: str
    probes: int


@dataclass(frozen=True, slots=True)
class OverdueJob:
    """A job that has been held for too long."""

    id: uuid.UUID
    conversation_id: uuid.UUID | None
    message_id: uuid.UUID | None


_MARK = """
UPDATE channels c
SET health = 'UNHEALTHY', health_reason = $3, health_detail = $4, updated_at = now(), trial_job_id = NULL,
    unhealthy_since = coalesce(CASE WHEN c.health = 'UNHEALTHY' THEN c.unhealthy_since END, now()),
    probe_at = greatest(CASE WHEN c.health = 'UNHEALTHY' THEN c.probe_at END, now() + make_interval(secs => $5))
FROM (SELECT id, health FROM channels WHERE id = $1 AND customer_id = $2 FOR UPDATE) old
WHERE c.id = old.id
RETURNING old.health = 'HEALTHY' AS newly
"""
_HEAL = """
UPDATE channels
SET health = 'HEALTHY', health_reason = NULL, health_detail = NULL, unhealthy_since = NULL, probe_at = NULL, probes = 0,
    healthy_since = now(),
    trial_job_id = NULL, updated_at = now()
WHERE id = $1 AND customer_id = $2 AND health = 'UNHEALTHY' RETURNING id
"""
_SUBJECT = """
SELECT c.id, c.name, c.kind, c.chatbot_id, u.priority::int AS priority FROM channels c JOIN customers u ON u.id = c.customer_id
WHERE c.id = $1
"""

# The lock makes who holds and who heals wait for each other: no job is held by a channel that works again.
_HEALTH = "SELECT id, health FROM channels WHERE id = ANY($1::uuid[]) ORDER BY id FOR SHARE"
_HOLD = """
UPDATE jobs j
SET run_at = 'infinity', held_by = r.channel_id, held_at = coalesce(j.held_at, now()), wait_reason = r.reason,
    wait_since = now(), waits = waits_of(j.waits, j.wait_reason, j.wait_since, j.run_at),
    send_run = CASE WHEN j.send_run = r.run_id THEN NULL ELSE j.send_run END
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[]) AS r (id, channel_id, reason, run_id)
WHERE j.id = r.id AND j.finished_at IS NULL
RETURNING j.id, j.message_id, j.send_run IS NULL AS nothing_sent
"""
# Nothing went out, so a later run need not ask what became of it.
_NOT_SENT = """
UPDATE messages SET status = 'QUEUED', unknown_since = NULL
WHERE id = ANY($1::uuid[]) AND status = 'SENDING' AND accepted_at IS NULL
"""
# The next generation: BullMQ knows this one as completed.
_RELEASE = """
UPDATE jobs j
SET run_at = now(), held_by = NULL, held_at = CASE WHEN $3 THEN j.held_at END, wait_reason = NULL, generation = j.generation + 1,
    wait_since = NULL, waits = waits_of(j.waits, j.wait_reason, j.wait_since, j.run_at)
WHERE j.id IN (
    SELECT id FROM jobs WHERE held_by = $1 AND finished_at IS NULL ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING j.id, j.queue, j.name, j.payload::text AS payload, j.priority::int AS priority, j.generation
"""
_TRY = "UPDATE channels SET trial_job_id = $2 WHERE id = $1 AND health = 'UNHEALTHY'"

_PATIENTS = """
UPDATE channels SET probes = probes + 1,
    probe_at = now() + make_interval(secs => least($3, $2 * power(2, least(probes, 20))))
WHERE id IN (
    SELECT id FROM channels WHERE health = 'UNHEALTHY' AND probe_at <= now() ORDER BY probe_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING id, customer_id, coalesce(health_reason, '') AS reason, probes
"""
_FORGOTTEN = """
SELECT DISTINCT j.held_by FROM jobs j JOIN channels c ON c.id = j.held_by AND c.health = 'HEALTHY'
WHERE j.finished_at IS NULL AND j.held_by IS NOT NULL LIMIT 100
"""
_OVERDUE = """
SELECT id, conversation_id, message_id FROM jobs
WHERE finished_at IS NULL AND held_by IS NOT NULL AND held_at < now() - make_interval(secs => $1) ORDER BY id LIMIT $2
"""
_DEGRADED = """
SELECT c.id, c.customer_id, count(*)::int AS messages
FROM messages m JOIN channels c ON c.id = m.channel_id AND c.kind = 'WHATSAPP_QR' AND c.health = 'HEALTHY'
WHERE m.status = 'SENDING' AND m.accepted_at < now() - make_interval(secs => $1)
  AND m.accepted_at > greatest(c.healthy_since, c.confirmed_at, now() - make_interval(secs => $2))
GROUP BY c.id, c.customer_id
"""
_COUNT = """
SELECT c.kind, coalesce(c.health_reason, '') AS reason, count(*)::int AS channels,
       coalesce(sum((SELECT count(*) FROM jobs j WHERE j.held_by = c.id AND j.finished_at IS NULL)), 0)::int AS held
FROM channels c WHERE c.health = 'UNHEALTHY' GROUP BY 1, 2
"""
_CONFIRMED = """
UPDATE channels SET confirmed_at = now()
WHERE id = $1 AND customer_id = $2 AND (confirmed_at IS NULL OR confirmed_at < now() - interval '2 seconds')
"""
_TAKE_EVENT = """
INSERT INTO session_events (channel_id, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING event_id
"""
_STATE = "UPDATE channels SET session = $3::jsonb, updated_at = now() WHERE id = $1 AND customer_id = $2"


async def mark_unhealthy(connection: Connection, channel: Unhealthy, outbox: Outbox) -> bool:
    """Note why a channel cannot send; True where it was healthy until now, which its customer is told."""
    newly: bool | None = await connection.fetchval(
        _MARK, channel.channel_id, channel.customer_id, channel.reason, channel.detail, channel.probe_after_s
    )
    if newly:
        more: dict[str, object] = {"error_reason": channel.reason, "error_detail": channel.detail}
        await _announce(connection, channel.channel_id, channel.customer_id, "channel.unhealthy", more, outbox)
    return bool(newly)


async def heal(connection: Connection, channel_id: uuid.UUID, *, customer_id: uuid.UUID, outbox: Outbox) -> bool:
    """The channel works again: what it held goes on, at the pace of its limits. False if it was healthy already."""
    if await connection.fetchval(_HEAL, channel_id, customer_id) is None:
        return False
    await release(connection, channel_id, outbox)
    await _announce(connection, channel_id, customer_id, "channel.healthy", {}, outbox)
    return True


async def hold(connection: Connection, rows: Sequence[Hold], outbox: Outbox) -> list[Held]:
    """Hold the jobs until their channels are healthy."""
    channel_ids = sorted({row.channel_id for row in rows})
    health = {record["id"]: record["health"] for record in await connection.fetch(_HEALTH, channel_ids)}
    sick = [row for row in rows if health.get(row.channel_id) == "UNHEALTHY"]
    records = await connection.fetch(
        _HOLD,
        [row.run.job_id for row in sick],
        [row.channel_id for row in sick],
        [row.reason for row in sick],
        [row.run.id for row in sick],
    )
    held = {record["id"] for record in records}
    await connection.execute(_NOT_SENT, [record["message_id"] for record in records if record["nothing_sent"]])
    well = {row.run.job_id for row in rows} - {row.run.job_id for row in sick}
    return [
        Held.HELD if row.run.job_id in held else Held.CHANNEL_IS_WELL if row.run.job_id in well else Held.ALREADY_DONE
        for row in rows
    ]


async def release(
    connection: Connection,
    channel_id: uuid.UUID,
    outbox: Outbox,
    *,
    limit: int = RELEASE_AT_ONCE,
    on_trial: bool = False,
) -> list[uuid.UUID]:
    """Let held jobs of a channel go, the oldest first; on trial they keep the time since when they are held."""
    records = await connection.fetch(_RELEASE, channel_id, limit, on_trial)
    for record in sorted(records, key=lambda record: record["id"]):
        outbox.extend([_published(record)])
    return [record["id"] for record in records]


async def send_on_trial(connection: Connection, channel_id: uuid.UUID, outbox: Outbox) -> bool:
    """Let one held job test whether the channel works again; False if none is held."""
    released = await release(connection, channel_id, outbox, limit=1, on_trial=True)
    if released:
        await connection.execute(_TRY, channel_id, released[0])
    return bool(released)


async def due_patients(connection: Connection, *, first_s: float, longest_s: float, limit: int = 20) -> list[Patient]:
    """Channels to be looked at now; the next look is twice as far off as the last, from `first_s` to `longest_s` seconds."""
    records = await connection.fetch(_PATIENTS, limit, first_s, longest_s)
    return [Patient(**dict(record)) for record in records]


async def release_forgotten(connection: Connection, outbox: Outbox) -> int:
    """Let go what is still held by healthy channels: more than one transaction took, or a process died in between."""
    released = 0
    for record in await connection.fetch(_FORGOTTEN):
        released += len(await release(connection, record["held_by"], outbox))
    return released


async def overdue(connection: Connection, *, longest_s: float, limit: int = 100) -> list[OverdueJob]:
    """Jobs that have been held longer than `longest_s` seconds."""
    return [OverdueJob(**dict(record)) for record in await connection.fetch(_OVERDUE, longest_s, limit)]


async def degraded(
    connection: Connection, *, after_s: float, within_s: float
) -> list[tuple[uuid.UUID, uuid.UUID, int]]:
    """QR channels that look connected, but whose messages WhatsApp has not confirmed for `after_s` seconds: (channel, customer,
    how many). What is older than `within_s` seconds is an old story."""
    records = await connection.fetch(_DEGRADED, after_s, within_s)
    return [(record["id"], record["customer_id"], record["messages"]) for record in records]


async def count_unhealthy(db: Database) -> list[tuple[str, str, int, int]]:
    """The channels that cannot send, as (kind, reason, how many, jobs they hold)."""
    async with db.connection() as connection:
        records = await connection.fetch(_COUNT)
    return [(record["kind"], record["reason"], record["channels"], record["held"]) for record in records]


async def note_confirmed(connection: Connection, channel_id: uuid.UUID, *, customer_id: uuid.UUID) -> None:
    """WhatsApp has confirmed a message of the channel just now."""
    await connection.execute(_CONFIRMED, channel_id, customer_id)


async def take_session_event(connection: Connection, channel_id: uuid.UUID, event_id: str) -> bool:
    """Remember an event of the channel's session; False where it was taken before."""
    return await connection.fetchval(_TAKE_EVENT, channel_id, event_id) is not None


async def note_session(
    connection: Connection, channel_id: uuid.UUID, *, customer_id: uuid.UUID, session: bytes
) -> None:
    """Keep what the gateway last said of the channel's session."""
    await connection.execute(_STATE, channel_id, customer_id, session.decode())


async def _announce(  # noqa: PLR0917  one event, said of one channel
    connection: Connection,
    channel_id: uuid.UUID,
    customer_id: uuid.UUID,
    event: str,
    more: Mapping[str, object],
    outbox: Outbox,
) -> None:
    subject = await connection.fetchrow(_SUBJECT, channel_id)
    if subject is None:
        return
    said = Announcement(
        type=event,
        customer_id=customer_id,
        priority=subject["priority"],
        message_id=None,
        trace_id=new_id(),
        data={
            "channel_id": str(channel_id),
            "channel": subject["kind"],
            "channel_name": subject["name"],
            "chatbot_id": str(subject["chatbot_id"]),
            **more,
        },
    )
    await insert_jobs(connection, await announce(connection, [said]), outbox)


def _published(record: asyncpg.Record) -> NewJob:
    return NewJob(
        record["id"],
        record["queue"],
        record["name"],
        record["payload"].encode(),
        record["priority"],
        generation=record["generation"],
    )

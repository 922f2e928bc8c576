"""The move `claim`: one run of a send job says that it may now send, and reads what; what is not claimed is not sent.

The claim is in Postgres before the call, so whoever comes later knows that a send may have begun: after a crash, after Redis came
back with an older state, or while the first run is still sending. Only the run that has the claim ends it: it says that nothing
was sent (`put_off`, `hold`), or how the send ended (`settle`, `give_up`).
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from replyline.contents import Content, decode_content
from replyline.store.database import Connection
from replyline.store.moves.work import Run
from replyline.store.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that wants to send. If a repeat is safe (the receiver recognises it), it takes over the claim of an earlier run.

    No receiver of ours recognises what an external worker has sent.
    """

    run: Run
    repeat_is_safe: bool


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message of ours on its way out, and where it goes."""

    message_id: uuid.UUID
    conversation_id: uuid.UUID
    customer_id: uuid.UUID
    channel_id: uuid.UUID
    status: str
    content: str
    body: Content | None
    """What it is, where it is not plain text."""
    external_id: str | None
    accepted: bool
    quotes: str | None
    """The channel's id of the message that it replies to."""
    reply_to: str
    phone: str | None
    """A phone number of the person, where one is known."""
    silent_for_s: float | None
    """How long ago the person last wrote, in seconds; None if never."""
    unknown_for_s: float
    """How long its outcome has been unknown, in seconds; 0 if it is not."""
    claimed: bool
    """Whether the run that asked may send it now."""
    claimed_before: uuid.UUID | None
    """The run that had claimed it before, and of which it is not known what it did."""
    handed_over: bool
    """Whether an external worker was given it before its queue became ours, and of which it is not known what it did."""


# One statement and no transaction around it: a claim costs one round trip, and the commit that makes it known.
_CLAIM = """
WITH asked AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::bool[]) WITH ORDINALITY
      AS r (job_id, generation, run_id, repeat_is_safe, ord)
), claimed AS (
    UPDATE jobs j SET send_run = r.run_id FROM asked r
    WHERE j.id = r.job_id AND j.finished_at IS NULL AND j.generation <= r.generation
      AND (j.send_run IS NULL AND j.handed_over_at IS NULL OR j.send_run = r.run_id
           OR r.repeat_is_safe AND j.handed_over_at IS NULL)
    RETURNING j.id
)
SELECT r.ord, m.id AS message_id, m.conversation_id, m.customer_id, m.channel_id, m.status, m.content, m.body::text AS body,
       m.external_id, m.accepted_at IS NOT NULL AS accepted, q.external_id AS quotes, v.reply_to,
       CASE WHEN v.reply_to ~ '^[A-Z]{2}[.]' THEN (
           SELECT i.value FROM contact_identities i
           WHERE i.contact_id = v.contact_id AND i.kind IN ('wa_id', 'phone')
           ORDER BY i.created_at DESC LIMIT 1
       ) END AS phone,
       extract(epoch FROM now() - v.window_from)::float8 AS silent_for_s,
       coalesce(extract(epoch FROM now() - m.unknown_since), 0)::float8 AS unknown_for_s,
       c.id IS NOT NULL AS claimed, j.send_run AS claimed_before,
       j.handed_over_at IS NOT NULL AS handed_over
FROM asked r
JOIN jobs j ON j.id = r.job_id AND j.finished_at IS NULL AND j.generation <= r.generation
JOIN messages m ON m.id = j.message_id AND m.direction = 'OUTBOUND'
JOIN conversations v ON v.id = m.conversation_id
LEFT JOIN claimed c ON c.id = j.id
LEFT JOIN messages q ON q.id = m.quotes AND q.channel_id = m.channel_id
"""

# Runs that waited for the same outcome wake together: the first takes the claim of the run before, the others find it taken.
_CLAIM_REPEAT = """
WITH claimed AS (
    UPDATE jobs SET send_run = $2, handed_over_at = NULL
    WHERE id = $1 AND finished_at IS NULL AND generation <= $3 AND send_run IS NOT DISTINCT FROM $4
    RETURNING message_id
)
UPDATE messages m SET status = 'SENDING', unknown_since = NULL FROM claimed c
WHERE m.id = c.message_id AND m.customer_id = $5 AND m.status = 'UNKNOWN'
RETURNING m.id
"""
_UNKNOWN = """
UPDATE messages SET status = 'UNKNOWN', unknown_since = now()
WHERE id = $1 AND customer_id = $2 AND status IN ('QUEUED', 'SENDING') AND accepted_at IS NULL
"""
# What only an external worker needs goes, so that this is asked once: the first time that a worker of ours has the job. Whoever
# published it again (a replay, an operator's decision) has decided whether it may be sent.
_TAKE_OVER = """
UPDATE jobs
SET payload = payload - '{channel,channelId,channelExternalId,to,content,body,quotes}'::text[],
    handed_over_at = CASE WHEN $2 = 0 THEN coalesce(handed_over_at, now()) ELSE handed_over_at END
WHERE id = $1 AND finished_at IS NULL AND generation <= $2 AND payload ? 'to'
"""
_SENDING = (
    "UPDATE messages SET status = 'SENDING' WHERE id = $1 AND customer_id = $2 AND status = 'QUEUED' RETURNING id"
)


async def claim(connection: Connection, rows: Sequence[Claim], _outbox: Outbox) -> list[Outbound | None]:
    """Claim the sends that no other run has claimed, and read the message of each; a run may claim again what it has claimed.

    None where the job was finished by another run, or was published again since this run's generation.
    """
    found: list[Outbound | None] = [None] * len(rows)
    records = await connection.fetch(
        _CLAIM,
        [row.run.job_id for row in rows],
        [row.run.generation for row in rows],
        [row.run.id for row in rows],
        [row.repeat_is_safe for row in rows],
    )
    for record in records:
        fields = dict(record)
        index = fields.pop("ord") - 1
        body = fields.pop("body")
        found[index] = Outbound(**fields, body=None if body is None else decode_content(body.encode()))
    return found


async def claim_repeat(connection: Connection, run: Run, message: Outbound) -> bool:
    """Claim a send again whose outcome stayed unknown; False where another run did, or its outcome has become known."""
    before = run.id if message.claimed else message.claimed_before
    return bool(
        await connection.fetchval(_CLAIM_REPEAT, run.job_id, run.id, run.generation, before, message.customer_id)
    )


async def take_over(connection: Connection, run: Run) -> None:
    """A job that was made for an external worker is ours now, and may have been done by one that never told."""
    await connection.execute(_TAKE_OVER, run.job_id, run.generation)


async def mark_unknown(connection: Connection, message_id: uuid.UUID, *, customer_id: uuid.UUID) -> None:
    """A send whose outcome is not known says so, until a status or a repeat settles it."""
    await connection.execute(_UNKNOWN, message_id, customer_id)


async def mark_sending(connection: Connection, message_id: uuid.UUID, *, customer_id: uuid.UUID) -> bool:
    """A message that was queued (a replay, or held by its channel) is on its way; False if it was withdrawn meanwhile."""
    return bool(await connection.fetchval(_SENDING, message_id, customer_id))

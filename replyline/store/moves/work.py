"""Finishing jobs and locking conversations: what every move does first."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from replyline.ids import new_id
from replyline.jobs import AiProcessingJob, ChannelKind
from replyline.store.database import Connection
from replyline.store.ended import ENDED, KEPT
from replyline.store.outbox import Enqueue


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one job by one worker."""

    job_id: uuid.UUID
    started_at: datetime
    worker: str
    generation: int = 0
    """Of the job, as BullMQ was told of it: a run of an older generation than the row's does nothing."""
    id: uuid.UUID = field(default_factory=new_id)
    """This run, and no other: also where Redis has forgotten that there was one before."""


@dataclass(slots=True)
class LockedConversation:
    """The row that decides, locked until the transaction ends. Moves change it in place; `save` writes it back."""

    id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    channel_id: uuid.UUID
    channel: ChannelKind
    contact_id: uuid.UUID
    priority: int
    owner: str
    owner_epoch: int
    last_seq: int
    last_inbound_seq: int
    answered_seq: int
    log_seq: int
    lane_length: int
    reply_to: str
    amendments: int
    """How often a message of the person was edited or deleted: an answer given before that is out of date."""
    hold_over: bool
    """Whether a human's hold of the conversation has run out."""
    seconds_since_fallback: float | None
    seconds_since_unsupported: float | None
    wrote_now: bool = False
    wrote_at: float | None = None
    """When the person wrote last, Unix seconds, as the channel says; the 24-hour window runs from there."""
    fell_back_now: bool = False
    could_not_read_now: bool = False
    human_for_s: float | None = None
    """Set where a human takes over: how long, in seconds; 0 until they give it back. -1 gives it back to the bot."""

    def next_seq(self) -> int:
        """The next place in the conversation."""
        self.last_seq += 1
        return self.last_seq

    def next_log_seq(self) -> int | None:
        """The next place in the log that open pages read; None for a channel that has none."""
        if self.channel != "WIDGET":
            return None
        self.log_seq += 1
        return self.log_seq

    def leave_lane(self) -> None:
        """One message less is on its way out."""
        self.lane_length = max(0, self.lane_length - 1)

    def take_over(self, hold_s: float) -> None:
        """A human answers from now on, for `hold_s` seconds (0: until they say otherwise)."""
        if self.owner != "HUMAN":
            self.owner, self.owner_epoch = "HUMAN", self.owner_epoch + 1
        self.human_for_s = hold_s

    def give_back(self) -> None:
        """The bot answers again, from the next message on: what came meanwhile was a human's to answer."""
        self.owner, self.owner_epoch = "BOT", self.owner_epoch + 1
        self.answered_seq = self.last_inbound_seq
        self.human_for_s = -1.0

    def next_turn(self, trace_id: uuid.UUID, parent_id: uuid.UUID) -> Enqueue:
        """The job that answers what has come since the last turn, due at once."""
        job = AiProcessingJob(customer_id=self.customer_id, trace_id=trace_id, conversation_id=self.id)
        return Enqueue(job, self.priority, trace_id, parent_id=parent_id)


# OF v: the joined rows are only read. In id order, so that two transactions never wait for each other.
_LOCK = """
SELECT v.id, v.customer_id, v.chatbot_id, v.channel_id, c.kind AS channel, v.contact_id, u.priority::int AS priority, v.owner,
       v.owner_epoch, v.last_seq, v.last_inbound_seq, v.answered_seq, v.log_seq, v.lane_length, v.reply_to, v.amendments,
       coalesce(v.owner = 'HUMAN' AND v.human_until <= now(), false) AS hold_over,
       extract(epoch FROM now() - v.fallback_at)::float8 AS seconds_since_fallback,
       extract(epoch FROM now() - v.unsupported_at)::float8 AS seconds_since_unsupported
FROM conversations v JOIN channels c ON c.id = v.channel_id JOIN customers u ON u.id = v.customer_id
WHERE v.id = ANY($1::uuid[]) ORDER BY v.id FOR UPDATE OF v
"""

_SAVE = """
UPDATE conversations v
SET last_seq = r.last_seq, last_inbound_seq = r.last_inbound_seq, answered_seq = r.answered_seq, log_seq = r.log_seq,
    lane_length = r.lane_length, reply_to = r.reply_to, updated_at = now(), owner = r.owner, owner_epoch = r.owner_epoch,
    amendments = r.amendments,
    last_inbound_at = CASE WHEN r.wrote_now THEN now() ELSE v.last_inbound_at END,
    window_from = CASE WHEN r.wrote_now THEN greatest(v.window_from, least(now(), coalesce(to_timestamp(r.wrote_at), now())))
                       ELSE v.window_from END,
    fallback_at = CASE WHEN r.fell_back_now THEN now() ELSE v.fallback_at END,
    unsupported_at = CASE WHEN r.could_not_read_now THEN now() ELSE v.unsupported_at END,
    human_until = CASE WHEN r.human_for_s IS NULL THEN v.human_until WHEN r.human_for_s <= 0 THEN NULL
                       ELSE now() + make_interval(secs => r.human_for_s) END
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::int[], $6::text[], $7::bool[], $8::bool[], $9::text[],
            $10::int[], $11::int[], $12::float8[], $13::bool[], $14::float8[], $15::bigint[])
  AS r (id, last_seq, last_inbound_seq, answered_seq, lane_length, reply_to, wrote_now, fell_back_now, owner, owner_epoch,
        amendments, wrote_at, could_not_read_now, human_for_s, log_seq)
WHERE v.id = r.id
"""

_FINISH = f"""
WITH gone AS (
    DELETE FROM jobs j USING unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS r (id, started_at, worker)
    WHERE j.id = r.id AND j.finished_at IS NULL
    RETURNING j.*, r.started_at AS ran_from, r.worker AS ran_by
), kept AS (
    INSERT INTO finished_jobs ({KEPT}, {ENDED})
    SELECT {KEPT}, waits_of(waits, wait_reason, wait_since, run_at), errors, ran_from, now(), ran_by FROM gone
)
SELECT id, run_at = 'infinity' AND held_by IS NULL AS behind FROM gone
"""  # noqa: S608  the columns are constants


async def lock_conversations(
    connection: Connection, ids: Sequence[uuid.UUID | None]
) -> dict[uuid.UUID, LockedConversation]:
    """Lock the conversations in id order and return them as they are now."""
    wanted = sorted({id_ for id_ in ids if id_ is not None})
    if not wanted:
        return {}
    return {record["id"]: LockedConversation(**dict(record)) for record in await connection.fetch(_LOCK, wanted)}


async def save_conversations(connection: Connection, locked: Mapping[uuid.UUID, LockedConversation]) -> None:
    """Write back what a move changed on the conversations it locked."""
    rows = list(locked.values())
    if not rows:
        return
    await connection.execute(
        _SAVE,
        [row.id for row in rows],
        [row.last_seq for row in rows],
        [row.last_inbound_seq for row in rows],
        [row.answered_seq for row in rows],
        [row.lane_length for row in rows],
        [row.reply_to for row in rows],
        [row.wrote_now for row in rows],
        [row.fell_back_now for row in rows],
        [row.owner for row in rows],
        [row.owner_epoch for row in rows],
        [row.amendments for row in rows],
        [row.wrote_at for row in rows],
        [row.could_not_read_now for row in rows],
        [row.human_for_s for row in rows],
        [row.log_seq for row in rows],
    )


async def finish(connection: Connection, runs: Sequence[Run]) -> dict[uuid.UUID, bool]:
    """Move the jobs that still wait to the finished ones; for each, whether it waited behind another message of its lane.

    This is the idempotency of every processor: a job that is not returned was finished by another run, and nothing else of its
    row may be written.
    """
    if not runs:
        return {}
    records = await connection.fetch(
        _FINISH, [run.job_id for run in runs], [run.started_at for run in runs], [run.worker for run in runs]
    )
    return {record["id"]: record["behind"] for record in records}

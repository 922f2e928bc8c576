"""Jobs on their way out: written with the state that causes them, published to BullMQ after the commit."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from replyline import jobs
from replyline.ids import new_id
from replyline.store.database import Connection


@dataclass(frozen=True, slots=True)
class NewJob:
    """What BullMQ must be told about one job row."""

    id: uuid.UUID
    queue: str
    name: str
    payload: bytes
    priority: int
    delay_s: float = 0.0
    generation: int = 0

    @property
    def bullmq_id(self) -> str:
        """BullMQ's id of this generation of the job; a later generation is a new BullMQ job of the same row."""
        return f"{self.id}-{self.generation}"


@dataclass(frozen=True, slots=True)
class Enqueue:
    """A job to be inserted."""

    job: jobs.ANY_JOB
    priority: int
    trace_id: uuid.UUID
    delay_s: float = 0.0
    parent_id: uuid.UUID | None = None
    dedupe_key: str | None = None
    lane_key: str | None = None
    wait_reason: str | None = None
    """Why it is not due before `delay_s` is over."""
    id: uuid.UUID = field(default_factory=new_id)

    def published(self) -> NewJob:
        """The same job as BullMQ is told of it."""
        return NewJob(self.id, self.job.queue, self.job.job_name, jobs.encode(self.job), self.priority, self.delay_s)


class Outbox:
    """Collects, during one transaction, what is to be published once it has committed."""

    def __init__(self) -> None:
        self.jobs: list[NewJob] = []
        self.grown: set[uuid.UUID] = set()
        """Conversations whose log, which open pages read, has something new."""

    def extend(self, new_jobs: Iterable[NewJob]) -> None:
        """Add jobs whose rows are already written."""
        self.jobs.extend(new_jobs)


_INSERT = """
INSERT INTO jobs (id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key,
                  lane_key, priority, run_at, wait_reason, wait_since)
SELECT id, queue, name, payload::jsonb, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key,
       lane_key, priority, now() + make_interval(secs => delay_s), wait_reason,
       CASE WHEN wait_reason IS NOT NULL THEN now() END
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::uuid[], $8::uuid[], $9::uuid[],
            $10::text[], $11::text[], $12::int[], $13::float8[], $14::text[])
  AS new (id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key,
          lane_key, priority, delay_s, wait_reason)
ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO NOTHING
RETURNING id
"""


async def insert_jobs(connection: Connection, rows: Sequence[Enqueue], outbox: Outbox) -> set[uuid.UUID]:
    """Insert `rows` and note them for publication; returns the ids of those whose dedupe key was not known yet."""
    if not rows:
        return set()
    published = [row.published() for row in rows]
    inserted = await connection.fetch(
        _INSERT,
        [row.id for row in rows],
        [row.job.queue for row in rows],
        [row.job.job_name for row in rows],
        [new.payload.decode() for new in published],
        [row.job.customer_id for row in rows],
        [row.job.conversation_id for row in rows],
        [row.job.message_id for row in rows],
        [row.trace_id for row in rows],
        [row.parent_id for row in rows],
        [row.dedupe_key for row in rows],
        [row.lane_key for row in rows],
        [row.priority for row in rows],
        [row.delay_s for row in rows],
        [row.wait_reason for row in rows],
    )
    new_ids = {record["id"] for record in inserted}
    outbox.extend(new for new in published if new.id in new_ids)
    return new_ids

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

    def add(self, other: "Outbox") -> None:
        """Add everything that another one has collected."""
        self.jobs.extend(other.jobs)
        self.grown |= other.grown


# A job of a lane waits behind a row of it that is not being finished, or behind the first of its lane in these rows (`leads`);
# the rules are in `store/moves/inbound_lane.py`. SKIP LOCKED, because the door must not wait for a worker.
_INSERT = """
WITH ahead AS MATERIALIZED (
    SELECT lane.key FROM unnest($15::text[]) AS lane (key)
    CROSS JOIN LATERAL (
        SELECT FROM jobs w WHERE w.lane_key = lane.key AND w.finished_at IS NULL
        ORDER BY w.id DESC LIMIT 1 FOR SHARE SKIP LOCKED
    ) e
)
INSERT INTO jobs (id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key,
                  lane_key, priority, run_at, wait_reason, wait_since)
SELECT id, queue, name, payload::jsonb, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key,
       lane_key, priority, CASE WHEN behind THEN 'infinity' ELSE now() + make_interval(secs => delay_s) END,
       CASE WHEN behind THEN 'behind_earlier' ELSE wait_reason END,
       CASE WHEN behind OR wait_reason IS NOT NULL THEN now() END
FROM (
    SELECT *, lane_key IS NOT NULL AND (NOT leads OR lane_key IN (SELECT key FROM ahead)) AS behind
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::uuid[], $8::uuid[], $9::uuid[],
                $10::text[], $11::text[], $12::int[], $13::float8[], $14::text[], $16::bool[])
      AS row (id, queue, name, payload, customer_id, conversation_id, message_id, trace_id, parent_id, dedupe_key,
              lane_key, priority, delay_s, wait_reason, leads)
) new
ON CONFLICT (dedupe_key) WHERE dedupe_key IS NOT NULL DO NOTHING
RETURNING id, run_at = 'infinity' AS behind
"""


# What waits is known by the unique index; what ended, by this. The index lets a repeated key in only once the first job with it
# has left `jobs`, by a transaction that has committed (an insert waits for one that has not). This statement begins after the
# insert, so it sees that commit. Scalar subqueries, because EXISTS may become a join that reads a whole table.
_REMOVE_KNOWN = """
DELETE FROM jobs j USING unnest($1::uuid[], $2::text[]) AS r (id, key)
WHERE j.id = r.id AND j.finished_at IS NULL AND (
    (SELECT f.id FROM finished_jobs f WHERE f.dedupe_key = r.key LIMIT 1) IS NOT NULL
    OR (SELECT d.id FROM dead_jobs d WHERE d.dedupe_key = r.key LIMIT 1) IS NOT NULL
)
RETURNING j.id
"""


async def insert_jobs(connection: Connection, rows: Sequence[Enqueue], outbox: Outbox) -> set[uuid.UUID]:
    """Insert `rows` and note them for publication; returns the ids of those whose dedupe key was not known yet.

    Jobs that wait behind another of their lane are published when they are let go.
    """
    if not rows:
        return set()
    published = [row.published() for row in rows]
    leads: dict[str, uuid.UUID] = {}
    for row in sorted(rows, key=lambda row: row.id):
        if row.lane_key is not None:
            leads.setdefault(row.lane_key, row.id)
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
        list(leads),
        [row.lane_key is not None and leads[row.lane_key] == row.id for row in rows],
    )
    behind: dict[uuid.UUID, bool] = {record["id"]: record["behind"] for record in inserted}
    keyed = [row for row in rows if row.dedupe_key is not None and row.id in behind]
    if keyed:
        keys = [row.dedupe_key for row in keyed]
        for record in await connection.fetch(_REMOVE_KNOWN, [row.id for row in keyed], keys):
            del behind[record["id"]]
    outbox.extend(new for new in published if behind.get(new.id) is False)
    return set(behind)

"""The inbound lane: of the messages of one sender only the first has a job in BullMQ; the others wait behind it as rows.

Three rules keep a lane going, and none of them waits for a lock that another process holds for long:

* `insert_jobs` lets a message wait only behind a row that it has locked against being finished (`FOR SHARE SKIP LOCKED`). If
  there is none, the message becomes a head of its own: two heads in a lane do no harm, because of the next rule.
* `receive` takes the front of the lane, whichever job of the lane it runs, and in the order of arrival.
* Whoever ends a job of the lane gives the first row that waits behind it a job, by a statement that begins after the row was
  locked and so sees everything that was let wait behind it.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg
import msgspec

from replyline.jobs import INCOMING_MESSAGES, IncomingMessageJob, decode
from replyline.store.database import Connection
from replyline.store.ended import ENDED, KEPT
from replyline.store.moves.work import Run
from replyline.store.outbox import NewJob, Outbox

MOST_TAKEN = 128
"""At most so many messages are received in one transaction, shared evenly among the lanes in it."""


@dataclass(frozen=True, slots=True)
class Receive:
    """One incoming message, with the run of its job."""

    run: Run
    job: IncomingMessageJob


@dataclass(frozen=True, slots=True)
class LaneJob:
    """A waiting job of a lane, locked until the transaction ends."""

    id: uuid.UUID
    lane_key: str | None
    in_front: bool
    """Whether it is among the first of its lane, which may be taken now."""
    payload: bytes | None
    """Of those that were not asked for by their id."""


_LOCK_FRONT = """
WITH front AS MATERIALIZED (
    SELECT e.id FROM unnest($2::text[]) AS lane (key)
    CROSS JOIN LATERAL (
        SELECT w.id FROM jobs w WHERE w.lane_key = lane.key AND w.finished_at IS NULL ORDER BY w.id LIMIT $3
    ) e
)
SELECT j.id, j.lane_key, j.id = ANY(ARRAY(SELECT id FROM front)) AS in_front,
       CASE WHEN j.id = ANY($1::uuid[]) THEN NULL ELSE j.payload::text END AS payload
FROM jobs j
WHERE j.id = ANY($1::uuid[] || ARRAY(SELECT id FROM front)) AND j.finished_at IS NULL
ORDER BY j.id FOR UPDATE OF j
"""

_RELEASED = "j.id, j.queue, j.name, j.payload::text AS payload, j.priority::int AS priority, j.generation"

_RELEASE = f"""
UPDATE jobs j SET run_at = now(), wait_reason = NULL, wait_since = NULL,
    waits = waits_of(j.waits, j.wait_reason, j.wait_since, j.run_at)
FROM (
    SELECT e.id FROM unnest($1::text[]) AS lane (key)
    CROSS JOIN LATERAL (
        SELECT w.id FROM jobs w
        WHERE w.lane_key = lane.key AND w.run_at = 'infinity' AND w.finished_at IS NULL ORDER BY w.id LIMIT 1
    ) e
) next
WHERE j.id = next.id AND j.run_at = 'infinity' AND j.finished_at IS NULL
RETURNING {_RELEASED}
"""  # noqa: S608  constants of this module

# The finished rows still wait in the snapshot that the statement reads, so they are left out by their ids.
_WITH_FINISH = """
WITH gone AS (
    DELETE FROM jobs j
    USING unnest(${ids}::uuid[], ${started}::timestamptz[], ${workers}::text[], ${conversations}::uuid[])
      AS r (id, started_at, worker, conversation_id)
    WHERE j.id = r.id
    RETURNING j.*, r.started_at AS ran_from, r.worker AS ran_by, r.conversation_id AS talked_in
), finished AS (
    INSERT INTO finished_jobs ({columns})
    SELECT {kept}, waits_of(waits, wait_reason, wait_since, run_at), errors, ran_from, now(), ran_by FROM gone
), next AS (
    SELECT e.id FROM unnest(${lanes}::text[]) AS lane (key)
    CROSS JOIN LATERAL (
        SELECT w.id FROM jobs w
        WHERE w.lane_key = lane.key AND w.run_at = 'infinity' AND w.finished_at IS NULL AND w.id <> ALL(${ids}::uuid[])
        ORDER BY w.id LIMIT 1
    ) e
), released AS (
    UPDATE jobs j SET run_at = now(), wait_reason = NULL, wait_since = NULL,
        waits = waits_of(j.waits, j.wait_reason, j.wait_since, j.run_at)
    FROM next WHERE j.id = next.id AND j.run_at = 'infinity' AND j.finished_at IS NULL
    RETURNING {released}
), saved AS ({insert})
SELECT s.id AS saved, s.was_changed, NULL::uuid AS id, NULL AS queue, NULL AS name, NULL AS payload, NULL::int AS priority,
       NULL::int AS generation
FROM saved s
UNION ALL
SELECT NULL, NULL, r.id, r.queue, r.name, r.payload, r.priority, r.generation FROM released r
"""

# The next generation, because BullMQ knows this one: it runs at this moment.
_WAIT_BEHIND = """
UPDATE jobs j SET run_at = 'infinity', wait_reason = 'behind_earlier', wait_since = now(), generation = j.generation + 1,
    waits = waits_of(j.waits, j.wait_reason, j.wait_since, j.run_at)
WHERE j.id = ANY($1::uuid[]) AND j.finished_at IS NULL AND isfinite(j.run_at)
"""

# Lane after lane by index, so that a lane costs the same however much waits in it.
_WITHOUT_HEAD = """
WITH RECURSIVE lane (key) AS (
    (SELECT w.lane_key FROM jobs w
     WHERE w.lane_key IS NOT NULL AND w.run_at = 'infinity' AND w.finished_at IS NULL ORDER BY w.lane_key LIMIT 1)
    UNION ALL
    SELECT (SELECT w.lane_key FROM jobs w
            WHERE w.lane_key > lane.key AND w.run_at = 'infinity' AND w.finished_at IS NULL ORDER BY w.lane_key LIMIT 1)
    FROM lane WHERE lane.key IS NOT NULL
)
SELECT key FROM lane
WHERE key IS NOT NULL AND (
    SELECT h.id FROM jobs h WHERE h.lane_key = lane.key AND h.finished_at IS NULL AND isfinite(h.run_at) LIMIT 1
) IS NULL
LIMIT $1
"""


async def lock_front(connection: Connection, wanted: Sequence[tuple[uuid.UUID, str]]) -> list[LaneJob]:
    """Lock the wanted jobs (each with its lane) and the fronts of their lanes, oldest first; what is finished is left out."""
    lanes = sorted({lane for _, lane in wanted})
    records = await connection.fetch(
        _LOCK_FRONT, [job_id for job_id, _ in wanted], lanes, max(1, MOST_TAKEN // max(1, len(lanes)))
    )
    return [
        LaneJob(
            record["id"],
            record["lane_key"],
            record["in_front"],
            None if record["payload"] is None else record["payload"].encode(),
        )
        for record in records
    ]


def together(rows: Sequence[Receive], waiting: Sequence[LaneJob]) -> tuple[list[Receive], list[uuid.UUID]]:
    """What is received now, the fronts of the lanes; and which of the rows must wait, being further behind."""
    own = {row.run.job_id: row for row in rows}
    runs = {job.lane_key: own[job.id].run for job in waiting if job.id in own}
    chosen: list[Receive] = []
    behind: list[uuid.UUID] = []
    for job in waiting:
        row = own.get(job.id) or _along(job, runs.get(job.lane_key))
        if not job.in_front:
            behind.append(job.id)
        elif row is not None:
            chosen.append(row)
    return chosen, behind


def by_themselves(rows: Sequence[Receive], waiting: Sequence[LaneJob]) -> tuple[list[Receive], list[uuid.UUID]]:
    """The same without any but the rows themselves: one with an earlier job in its lane waits."""
    own = {row.run.job_id: row for row in rows}
    blocked: set[str | None] = set()
    chosen: list[Receive] = []
    behind: list[uuid.UUID] = []
    for job in waiting:
        row = own.get(job.id)
        if row is None:
            blocked.add(job.lane_key)
        elif job.lane_key in blocked or not job.in_front:
            behind.append(job.id)
        else:
            chosen.append(row)
    return chosen, behind


def _along(job: LaneJob, run: Run | None) -> Receive | None:
    """A job that comes along with a run of its lane; None where it cannot be read, which its own run will tell."""
    if job.payload is None or run is None:
        return None
    try:
        payload = decode(INCOMING_MESSAGES, job.payload)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    if not isinstance(payload, IncomingMessageJob):
        return None
    return Receive(Run(job.id, run.started_at, run.worker), payload)


async def wait_behind(
    connection: Connection, job_ids: Sequence[uuid.UUID], waiting: Sequence[LaneJob], outbox: Outbox
) -> None:
    """Let jobs that run at this moment wait as rows; who ends an earlier job of their lane lets them go.

    `waiting` is what `lock_front` returned. Where another process ended the whole front while it was waited for, nobody is left
    who would let the lane go on: that is done here.
    """
    if not job_ids:
        return
    await connection.execute(_WAIT_BEHIND, job_ids)
    led = {job.lane_key for job in waiting if job.in_front}
    await go_on_unless_locked(connection, {job.lane_key for job in waiting if job.lane_key} - led, outbox)


def with_finish(insert: str, *, parameters: int) -> str:
    """A statement that inserts messages (RETURNING id, was_changed), extended: it also finishes jobs and releases the next.

    `insert` has so many `parameters` of its own; five follow: the jobs' ids, when their runs started, their workers, their
    conversations, and the lanes. Read its rows by `released`.
    """
    names = ("ids", "started", "workers", "conversations", "lanes")
    places = {name: parameters + number for number, name in enumerate(names, 1)}
    kept = KEPT.replace("conversation_id", "talked_in").replace(
        "run_at", "CASE WHEN run_at = 'infinity' THEN created_at ELSE run_at END"
    )
    return _WITH_FINISH.format(insert=insert, released=_RELEASED, columns=f"{KEPT}, {ENDED}", kept=kept, **places)


def released(records: Iterable[asyncpg.Record]) -> list[NewJob]:
    """The jobs that were let go, to be published."""
    return [
        NewJob(
            record["id"],
            record["queue"],
            record["name"],
            record["payload"].encode(),
            record["priority"],
            generation=record["generation"],
        )
        for record in records
        if record["id"] is not None
    ]


# Who takes in a message holds locks of its own: waiting for a front that another process has locked could be a deadlock.
_RELEASE_FREE = _RELEASE.replace("ORDER BY w.id LIMIT 1", "ORDER BY w.id LIMIT 1 FOR UPDATE SKIP LOCKED")


async def go_on_unless_locked(connection: Connection, lanes: Iterable[str], outbox: Outbox) -> None:
    """Like `go_on`, passing over rows that another process has locked: it, or the sweeper, lets those lanes go on."""
    keys = sorted(set(lanes))
    if keys:
        outbox.extend(released(await connection.fetch(_RELEASE_FREE, keys)))


async def go_on(connection: Connection, lanes: Iterable[str], outbox: Outbox) -> None:
    """Give the first job that waits behind another in each lane its turn; the one that was ahead must have been ended before."""
    keys = sorted(set(lanes))
    if keys:
        outbox.extend(released(await connection.fetch(_RELEASE, keys)))


async def free_lanes(connection: Connection, outbox: Outbox, *, limit: int = 1000) -> int:
    """Let lanes go on in which every job waits behind another one, which was deleted, say; returns how many."""
    stuck = [record["key"] for record in await connection.fetch(_WITHOUT_HEAD, limit)]
    await go_on(connection, stuck, outbox)
    return len(stuck)

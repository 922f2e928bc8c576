"""Moves of a job that did not succeed but is not given up: it is put off, and keeps what went wrong."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from replyline.store.database import Connection
from replyline.store.outbox import Outbox

MAX_ERRORS_KEPT = 20

STORE_BUSY = "store_busy"
"""Why a job waits that met a lock or a timeout of Postgres."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One failed try, with secrets and personal text already redacted. `at` is ISO 8601, UTC."""

    at: str
    attempt: int
    worker: str
    reason: str
    message: str
    stack: str


@dataclass(frozen=True, slots=True)
class Setback:
    """The job runs again in `after_s` seconds. With a `failure` an attempt was used; without one it only waits.

    `nothing_sent_by` is a run that is known not to have sent anything: if the job's send was claimed by it, it is free again.
    """

    job_id: uuid.UUID
    after_s: float
    wait_reason: str
    failure: Failure | None
    nothing_sent_by: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a job has come: what the decision about its next try needs."""

    attempts: int
    postponed_s: float
    waiting: bool
    busy_times: int
    """How often in a row Postgres could not do what it asked in time."""
    busy_s: float
    """Since when, in seconds; 0 where it did the last time."""


# The same failure again is one whose first writing was committed, though nobody heard so.
_WRITE = """
UPDATE jobs j
SET run_at = now() + make_interval(secs => r.after_s), wait_reason = r.wait_reason,
    wait_since = now(), waits = waits_of(j.waits, j.wait_reason, j.wait_since, j.run_at),
    attempts = j.attempts + (r.failure IS NOT NULL AND r.failure::jsonb IS DISTINCT FROM j.errors -> -1)::int,
    send_run = CASE WHEN j.send_run = r.nothing_sent_by THEN NULL ELSE j.send_run END,
    errors = CASE WHEN r.failure IS NULL OR r.failure::jsonb = j.errors -> -1 THEN j.errors
                  ELSE keep_last(j.errors || r.failure::jsonb, $6) END,
    postponed_since = CASE WHEN r.wait_reason = $7 THEN j.postponed_since
                           WHEN r.failure IS NULL THEN coalesce(j.postponed_since, now()) END
FROM unnest($1::uuid[], $2::float8[], $3::text[], $4::text[], $5::uuid[])
  AS r (id, after_s, wait_reason, failure, nothing_sent_by)
WHERE j.id = r.id AND j.finished_at IS NULL
RETURNING j.id
"""

# `waits` has the waits of the same reason that followed one another in one entry, but for the one that ends with this run.
_STANDING = """
SELECT j.id, j.attempts, j.finished_at IS NULL AS waiting,
       coalesce(extract(epoch FROM now() - j.postponed_since), 0)::float8 AS postponed_s,
       CASE WHEN j.wait_reason = $2 THEN 1 + coalesce(before.times, 0) ELSE 0 END AS busy_times,
       CASE WHEN j.wait_reason = $2 THEN extract(epoch FROM now() - coalesce(before.since, j.wait_since))::float8
            ELSE 0 END AS busy_s
FROM jobs j
LEFT JOIN LATERAL (
    SELECT (j.waits -> -1 ->> 'times')::int AS times, (j.waits -> -1 ->> 'since')::timestamptz AS since
    WHERE j.waits -> -1 ->> 'reason' = $2
) before ON true
WHERE j.id = ANY($1::uuid[])
"""


async def put_off(connection: Connection, rows: Sequence[Setback], outbox: Outbox) -> list[bool]:
    """Write the setbacks; False where another run had finished the job meanwhile."""
    ordered = sorted(rows, key=lambda row: row.job_id)
    records = await connection.fetch(
        _WRITE,
        [row.job_id for row in ordered],
        [row.after_s for row in ordered],
        [row.wait_reason for row in ordered],
        [None if row.failure is None else msgspec.json.encode(row.failure).decode() for row in ordered],
        [row.nothing_sent_by for row in ordered],
        MAX_ERRORS_KEPT,
        STORE_BUSY,
    )
    written = {record["id"] for record in records}
    return [row.job_id in written for row in rows]


async def standings(connection: Connection, job_ids: Sequence[uuid.UUID], _outbox: Outbox) -> list[Standing | None]:
    """The standing of each job; None if there is no row."""
    found = {
        record["id"]: Standing(
            record["attempts"], record["postponed_s"], record["waiting"], record["busy_times"], record["busy_s"]
        )
        for record in await connection.fetch(_STANDING, job_ids, STORE_BUSY)
    }
    return [found.get(job_id) for job_id in job_ids]

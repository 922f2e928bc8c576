"""How fast the queues go: what was finished of late, from the rows themselves, so it is the same whoever asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from replyline.store.database import Database


@dataclass(frozen=True, slots=True)
class Rate:
    """One queue's last `window_s` seconds. Times are in seconds, None where nothing was finished."""

    queue: str
    done: int
    average_run_s: float | None
    average_wait_s: float | None
    """From when a job was due to when its last run began."""


_RATES = """
SELECT queue, count(*)::int AS done,
       avg(extract(epoch FROM finished_at - started_at))::float8 AS average_run_s,
       avg(greatest(0, extract(epoch FROM started_at - run_at)))::float8 AS average_wait_s
FROM finished_jobs WHERE finished_at > now() - make_interval(secs => $1)
GROUP BY queue ORDER BY queue
"""


async def read_rates(db: Database, *, window_s: float = 60.0) -> Sequence[Rate]:
    """The queues that finished anything in the last `window_s` seconds."""
    async with db.connection() as connection:
        return [Rate(**dict(record)) for record in await connection.fetch(_RATES, window_s)]

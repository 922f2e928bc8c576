"""The words of the queue engine: what is published, what a worker holds, and how a job can end."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from replyline.broker.keys import NAMES

JobState: TypeAlias = Literal["active", "waiting", "prioritized", "delayed", "completed", "failed", "waiting-children"]


class BrokerUnavailable(Exception):
    """Redis cannot be reached, does not answer in time, or cannot take commands now; trying again later may help."""


class NotAcknowledged(BrokerUnavailable):
    """Some publications were not acknowledged; sending exactly those again is safe, because a known id is ignored.

    Those that Redis refused in the same write are among them.
    """

    def __init__(self, cause: str, unacknowledged: "tuple[Publication, ...]") -> None:
        super().__init__(f"{len(unacknowledged)} jobs not acknowledged: {cause}")
        self.unacknowledged = unacknowledged


class CommandRefused(Exception):
    """Redis refused this command (no permission, a key of another type); the same again is refused until somebody acts."""


class PublicationsRefused(CommandRefused):
    """Redis refused some publications and took the others."""

    def __init__(self, cause: str, refused: "tuple[Publication, ...]") -> None:
        super().__init__(f"{len(refused)} jobs refused: {cause}")
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Publication:
    """A job to be added to a queue. An id already present in the queue is ignored, as BullMQ does."""

    queue: str
    job_id: str
    name: str
    data: bytes
    """UTF-8 JSON."""
    priority: int
    """1 to 2,097,151, lower runs first; 0 is no priority, and overtakes every other."""
    delay_ms: int = 0
    """From now, whatever `timestamp_ms` says."""
    attempts: int = 4
    """Only shown to BullMQ's tools: whoever handles the job decides about retries."""
    timestamp_ms: int | None = None
    """When the job was made, milliseconds since 1970; None is now."""
    keep_completed_s: int = 3600
    keep_failed_s: int = 86400
    keep_completed_jobs: int | None = None
    """At most so many ended jobs of the queue stay, the newest; None is any number."""
    keep_failed_jobs: int | None = None

    def __post_init__(self) -> None:
        # BullMQ for Node refuses such ids: ":" separates its keys, and bare integers are the ids it generates itself.
        if not self.job_id or ":" in self.job_id or self.job_id.isdecimal():
            raise ValueError(f"a job id must not be empty, contain ':' or be an integer: {self.job_id!r}")
        if self.job_id in NAMES:  # its hash would stand where the queue keeps its own list or set
            raise ValueError(f"a job id must not be the name of one of the queue's keys: {self.job_id!r}")
        if not 0 <= self.priority <= 2_097_151:
            raise ValueError(f"priority must be between 0 and 2097151: {self.priority}")
        if self.delay_ms < 0:
            raise ValueError(f"delay_ms must not be negative: {self.delay_ms}")


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that a worker holds, as it was when it was fetched."""

    queue: str
    id: str
    name: str
    data: bytes
    """As stored: the producer meant JSON, but nobody has looked yet."""
    priority: int
    timestamp_ms: int
    """When the job was added, milliseconds since 1970."""
    processed_ms: int
    """When this run was started, milliseconds since 1970."""
    starts: int
    """How often the job was started, this time included; above 1, an earlier run may have got anywhere."""
    attempts_made: int
    stalled: int
    """How often a worker was lost while it held the job."""
    retried: bool
    """Whether it had ended as failed, and one of BullMQ's tools let it run again."""
    scheduler: str | None
    """The job scheduler of which this is an iteration; None for any other job."""
    deferred_failure: str | None
    """Set when workers were lost under this job more often than allowed; the handler decides what to do."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The job is done; `result` is UTF-8 JSON."""

    result: bytes = b"null"


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the job again after `after_ms`; an attempt is used."""

    after_ms: int
    reason: str
    stack: str = ""
    note: str = ""
    """A line for the job's log in BullMQ's tools; '' is none."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """Run the job again after `after_ms`; no attempt is used."""

    after_ms: int
    note: str = ""
    """A line for the job's log in BullMQ's tools; '' is none."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The job is given up."""

    reason: str
    stack: str = ""
    note: str = ""
    """A line for the job's log in BullMQ's tools; '' is none."""


Outcome: TypeAlias = Completed | Retry | Postpone | Failed
Handler: TypeAlias = Callable[[ActiveJob], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class WorkerClient:
    """A connected worker of one queue. `worker` is its name, empty for one that gave none; `connected_s` in seconds."""

    worker: str
    address: str
    connected_s: int


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many jobs of one queue are in each state."""

    waiting: int
    prioritized: int
    delayed: int
    active: int
    completed: int
    failed: int
    paused: int
    """Jobs in the list that older BullMQ versions used while paused; 0 for a queue that only new versions touched."""
    is_paused: bool

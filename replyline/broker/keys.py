"""The names of one queue's keys, as BullMQ lays them out."""

from dataclasses import dataclass

NAMES = (
    "active",
    "completed",
    "delayed",
    "events",
    "failed",
    "id",
    "limiter",
    "marker",
    "meta",
    "paused",
    "pc",
    "prioritized",
    "repeat",
    "stalled",
    "stalled-check",
    "wait",
    "waiting-children",
)


@dataclass(frozen=True, slots=True)
class Keys:
    """`prefix` ends in a colon; a job's hash is `prefix` and its id."""

    queue: str
    prefix: str
    named: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.named[name]

    def all(self, *names: str) -> list[str]:
        """Several, in the order a script wants them."""
        return [self.named[name] for name in names]

    def job(self, job_id: str) -> str:
        """The key of a job's hash."""
        return f"{self.prefix}{job_id}"


def keys_of(prefix: str, queue: str) -> Keys:
    """The keys of `queue` under `prefix` (BullMQ's default is `bull`)."""
    base = f"{prefix}:{queue}:"
    return Keys(queue, base, {name: f"{base}{name}" for name in NAMES})

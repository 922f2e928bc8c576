"""The names of one queue's keys, as BullMQ lays them out; and how a foreign name becomes part of a key of ours."""

import base64
import hashlib
import re
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


# CLIENT SETNAME takes printable ASCII without spaces.
_NOT_IN_A_NAME = re.compile(r"[^!-~]")
_PLAIN = re.compile(r"[A-Za-z0-9_.:@-]{1,64}", re.ASCII)


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

    def worker_client(self, worker: str) -> str:
        """The name of the connection on which `worker` waits for this queue, as BullMQ's `Queue.getWorkers` looks for it."""
        return f"{self._client}:w:{_NOT_IN_A_NAME.sub('_', worker)}"

    def worker_of(self, client: str) -> str | None:
        """The worker that a connection of this name belongs to; None where it is not a worker's of this queue."""
        if client == self._client:  # BullMQ for Node without the option `name`
            return ""
        head, mark, worker = client.partition(":w:")
        return worker if mark and head == self._client else None

    @property
    def _client(self) -> str:
        prefix = self.prefix.removesuffix(f"{self.queue}:")
        return f"{prefix}{base64.b64encode(self.queue.encode()).decode()}"

    def job(self, job_id: str) -> str:
        """The key of a job's hash."""
        return f"{self.prefix}{job_id}"


def keys_of(prefix: str, queue: str) -> Keys:
    """The keys of `queue` under `prefix` (BullMQ's default is `bull`)."""
    base = f"{prefix}:{queue}:"
    return Keys(queue, base, {name: f"{base}{name}" for name in NAMES})


def short(name: str) -> str:
    """`name` as part of a key: as it is where it is short and plain, else a digest of it (no other name gives the same).

    No input makes a key long, or ends a hash tag early.
    """
    if _PLAIN.fullmatch(name):
        return name
    return "#" + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()

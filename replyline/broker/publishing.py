"""Turning publications into the commands that add them, as BullMQ for Node would."""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import msgpack

from replyline.broker.contract import Publication
from replyline.broker.keys import Keys
from replyline.broker.scripts import ADD_DELAYED, ADD_PRIORITIZED, ADD_STANDARD
from replyline.broker.wire import bulk

_PRIORITIZED = ("marker", "meta", "id", "prioritized", "delayed", "completed", "active", "events", "pc")
_STANDARD = ("wait", "paused", "meta", "id", "completed", "delayed", "active", "events", "marker")
_DELAYED = ("marker", "meta", "id", "delayed", "completed", "events")
_BACKOFF_MS = 1000


Kept: TypeAlias = tuple[int, int | None]
"""For how many seconds ended jobs are kept, and how many of them at most."""


def keep_jobs(seconds: int, jobs: int | None) -> dict[str, int]:
    """The same in BullMQ's words."""
    return {"age": seconds} if jobs is None else {"age": seconds, "count": jobs}


class Adder:
    """Makes the add commands of one queue; what does not change from job to job is packed once."""

    def __init__(self, keys: Keys, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._prefix = keys.prefix
        self._prioritized = ADD_PRIORITIZED.head(9 + 4) + _bulks(keys.all(*_PRIORITIZED))
        self._standard = ADD_STANDARD.head(9 + 4) + _bulks(keys.all(*_STANDARD))
        self._delayed = ADD_DELAYED.head(6 + 4) + _bulks(keys.all(*_DELAYED))

    def command(self, new: Publication) -> bytes:
        """The command that adds `new`."""
        now = self._now_ms()
        made = now if new.timestamp_ms is None else new.timestamp_ms
        delay_ms = new.delay_ms
        if delay_ms:
            delay_ms += now - made  # BullMQ counts a delay from the job's timestamp
            head, last = self._delayed, delay_ms
        elif new.priority:
            head, last = self._prioritized, made
        else:
            head, last = self._standard, made
        # Prefix, id, name, time; parent key, parent dependencies, parent, repeat key and deduplication key are not used.
        arguments = msgpack.packb([self._prefix, new.job_id, new.name, made, None, None, None, None, None])
        completed = (new.keep_completed_s, new.keep_completed_jobs)
        options = _options(new.priority, delay_ms, new.attempts, completed, (new.keep_failed_s, new.keep_failed_jobs))
        return b"".join((head, bulk(arguments), bulk(new.data), bulk(options), bulk(str(last).encode())))


@lru_cache(maxsize=1024)
def _options(priority: int, delay_ms: int, attempts: int, completed: Kept, failed: Kept) -> bytes:
    options: dict[str, object] = {
        "attempts": attempts,
        "backoff": {"type": "exponential", "delay": _BACKOFF_MS},
        "removeOnComplete": keep_jobs(*completed),
        "removeOnFail": keep_jobs(*failed),
    }
    if priority:
        options["priority"] = priority
    if delay_ms:
        options["delay"] = delay_ms
    packed: bytes = msgpack.packb(options)
    return packed


def _bulks(words: list[str]) -> bytes:
    return b"".join(bulk(word.encode()) for word in words)

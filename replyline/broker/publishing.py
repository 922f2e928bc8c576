"""Turning publications into the commands that add them, as BullMQ for Node would, and sending those."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol, TypeAlias

import msgpack

from replyline.broker.connection import Connection
from replyline.broker.contract import (
    BrokerUnavailable,
    CommandRefused,
    NotAcknowledged,
    Publication,
    PublicationsRefused,
)
from replyline.broker.keys import Keys
from replyline.broker.scripts import ADD_AND_TAKE, ADD_DELAYED, ADD_PRIORITIZED, ADD_STANDARD, REMOVE_REMAINS
from replyline.broker.wire import Answer, Reply, bulk

_PRIORITIZED = ("marker", "meta", "id", "prioritized", "delayed", "completed", "active", "events", "pc")
_STANDARD = ("wait", "paused", "meta", "id", "completed", "delayed", "active", "events", "marker")
_DELAYED = ("marker", "meta", "id", "delayed", "completed", "events")
_TAKING = (*_PRIORITIZED, "wait", "stalled", "limiter", "paused")
_LISTED = ("completed", "failed", "delayed", "active", "wait", "paused", "waiting-children", "prioritized")
_BACKOFF_MS = 1000


Kept: TypeAlias = tuple[int, int | None]
"""For how many seconds ended jobs are kept, and how many of them at most."""


def keep_jobs(seconds: int, jobs: int | None) -> dict[str, int]:
    """The same in BullMQ's words."""
    return {"age": seconds} if jobs is None else {"age": seconds, "count": jobs}


class Taker(Protocol):
    """What takes the jobs of a queue in this process, and may be brought some by the calls that add them."""

    @property
    def ended(self) -> bool:
        """Whether it takes no more for good."""

    def reserve(self) -> bytes | None:
        """Keep a free slot for a job, and give the arguments of a call that takes one; None if it wants none now.

        Such a call must end with `brought` or `lost`.
        """

    def brought(self, reply: Reply) -> None:
        """What the call gave."""

    def lost(self) -> None:
        """The call failed, and nobody knows whether it has taken a job."""


class Publishing:
    """Adds jobs.

    A job that this process can run at once is added and taken in one call (decision 0002). What is taken is the first of the
    queue, as always: perhaps another job.
    """

    def __init__(self, connection: Connection, keys: Callable[[str], Keys]) -> None:
        self._connection = connection
        self._keys = keys
        self._adders: dict[str, Adder] = {}
        self._takers: defaultdict[str, list[Taker]] = defaultdict(list)

    def bring_to(self, queue: str, taker: Taker) -> None:
        """Let `taker` have jobs of `queue` with the calls that add them, until it has ended."""
        self._takers[queue] = [*(known for known in self._takers[queue] if not known.ended), taker]

    async def publish(self, publications: Sequence[Publication]) -> None:
        """See `Broker.publish`."""
        calls = [self._call(new) for new in publications]
        answers: Sequence[Answer] | None = None
        try:
            answers = await self._connection.run_all([command for command, _ in calls])
        except BrokerUnavailable as error:
            raise NotAcknowledged(str(error), tuple(publications)) from error
        finally:  # also if this task is cancelled: a job that was taken must not be forgotten
            _tell([taker for _, taker in calls], answers)
        pairs = list(zip(publications, answers, strict=True))
        not_now = [answer for answer in answers if isinstance(answer, BrokerUnavailable)]
        if not_now:
            missing = (new for new, answer in pairs if isinstance(answer, BrokerUnavailable | CommandRefused))
            raise NotAcknowledged(str(not_now[0]), tuple(missing))
        refusals = [answer for answer in answers if isinstance(answer, CommandRefused)]
        if refusals:
            refused = tuple(new for new, answer in pairs if isinstance(answer, CommandRefused))
            raise PublicationsRefused(str(refusals[0]), refused)

    async def publish_again(self, publications: Sequence[Publication]) -> None:
        """See `Broker.publish_again`."""
        removals = [self._removal_of_remains(new) for new in publications]
        try:
            answers = await self._connection.run_all(removals)
        except BrokerUnavailable as error:
            raise NotAcknowledged(str(error), tuple(publications)) from error
        pairs = list(zip(publications, answers, strict=True))
        refusals = {new: said for new, said in pairs if isinstance(said, BrokerUnavailable | CommandRefused)}
        missing = [new for new, said in pairs if said == 1]
        if missing:
            try:
                await self.publish(missing)
            except PublicationsRefused as error:
                refusals |= dict.fromkeys(error.refused, error)
        if refusals:
            raise PublicationsRefused(str(next(iter(refusals.values()))), tuple(refusals))

    def _removal_of_remains(self, new: Publication) -> bytes:
        keys = self._keys(new.queue)
        return REMOVE_REMAINS.call(*keys.all(*_LISTED), keys.job(new.job_id), new.job_id)

    def _call(self, new: Publication) -> tuple[bytes, Taker | None]:
        """The command that adds a job, and who is brought what it takes."""
        if new.queue not in self._adders:
            self._adders[new.queue] = Adder(self._keys(new.queue), self._connection.clock.now_ms)
        adder = self._adders[new.queue]
        if new.priority and not new.delay_ms:
            for taker in self._takers.get(new.queue, ()):
                take = taker.reserve()
                if take is not None:
                    return adder.command_that_takes(new, take), taker
        return adder.command(new), None


def _tell(takers: Sequence[Taker | None], answers: Sequence[Answer] | None) -> None:
    for index, taker in enumerate(takers):
        if taker is None:
            continue
        answer = None if answers is None else answers[index]
        if answer is None or isinstance(answer, BrokerUnavailable | CommandRefused):
            taker.lost()  # also if Redis refuses it: a script may be refused in its middle
        else:
            taker.brought(answer)


class Adder:
    """Makes the add commands of one queue; what does not change from job to job is packed once."""

    def __init__(self, keys: Keys, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._prefix = keys.prefix
        self._prioritized = ADD_PRIORITIZED.head(9 + 4) + _bulks(keys.all(*_PRIORITIZED))
        self._standard = ADD_STANDARD.head(9 + 4) + _bulks(keys.all(*_STANDARD))
        self._delayed = ADD_DELAYED.head(6 + 4) + _bulks(keys.all(*_DELAYED))
        self._taking = ADD_AND_TAKE.head(13 + 3 + 3) + _bulks(keys.all(*_TAKING))

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
        return b"".join((head, self._arguments(new, made, delay_ms), bulk(str(last).encode())))

    def command_that_takes(self, new: Publication, take: bytes) -> bytes:
        """The command that adds `new`, which has a priority and no delay, and takes the first of the queue with `take`."""
        made = self._now_ms() if new.timestamp_ms is None else new.timestamp_ms
        return b"".join((self._taking, self._arguments(new, made, 0), take))

    def _arguments(self, new: Publication, made: int, delay_ms: int) -> bytes:
        # Prefix, id, name, time; parent key, parent dependencies, parent, repeat key and deduplication key are not used.
        arguments = msgpack.packb([self._prefix, new.job_id, new.name, made, None, None, None, None, None])
        completed = (new.keep_completed_s, new.keep_completed_jobs)
        options = _options(new.priority, delay_ms, new.attempts, completed, (new.keep_failed_s, new.keep_failed_jobs))
        return b"".join((bulk(arguments), bulk(new.data), bulk(options)))


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

"""One process' access to the queues: publishing, looking, steering, and making workers; and to what else is in Redis."""

from collections.abc import Callable, Sequence
from typing import get_args

from replyline.broker.connecting import Namespace
from replyline.broker.connection import Connection
from replyline.broker.contract import (
    BrokerUnavailable,
    CommandRefused,
    Handler,
    JobState,
    Publication,
    QueueCounts,
    WorkerClient,
)
from replyline.broker.endpoint import parse_endpoint
from replyline.broker.finished import Watch
from replyline.broker.keys import Keys, keys_of
from replyline.broker.listening import Listening
from replyline.broker.live import Live, LiveNames, Told, Written
from replyline.broker.pacing import Pacing
from replyline.broker.publishing import Publishing
from replyline.broker.scripts import DRAIN, GET_COUNTS, GET_STATE, PAUSE, PROMOTE, REMOVE
from replyline.broker.throttle import Throttle
from replyline.broker.wire import Answer, Reply, pack
from replyline.broker.worker import Worker
from replyline.supervision import Supervisor

_OPEN_WAIT_S = 1.0
_COUNTED = ("wait", "prioritized", "delayed", "active", "completed", "failed", "paused")
_STATES = ("completed", "failed", "delayed", "active", "wait", "paused", "waiting-children", "prioritized")
_TRIM_BATCH = 1000


class Broker:
    """BullMQ on one Redis. Every call raises BrokerUnavailable while Redis is away; the connection comes back by itself."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "bull",
        deployment: str | None = None,
        reply_timeout_s: float = 10.0,
        supervisor: Supervisor | None = None,
    ) -> None:
        """A connection on which nothing is answered for `reply_timeout_s` is dropped.

        All keys begin with `prefix`. With `deployment`, they are used only if they belong to that deployment, or to none yet.
        What runs in the background is started by `supervisor`, the process' own; without it by one of the broker's.
        Raises ValueError for a bad URL.
        """
        self._prefix = prefix
        self._namespace = Namespace(prefix, deployment)
        self._endpoint = parse_endpoint(url)
        self._supervisor = supervisor or Supervisor()
        self._connection = Connection(
            self._endpoint, self._namespace, self._supervisor, reply_timeout_s=reply_timeout_s
        )
        self._live_names = LiveNames(prefix, self._endpoint.database)
        self.pacing = Pacing(self._connection, prefix)
        self.live = Live(self._connection, self._live_names)
        self.throttle = Throttle(self._connection, prefix)
        self.watch = Watch(self._connection, prefix)
        self._keys: dict[str, Keys] = {}
        self._publishing = Publishing(self._connection, self._of)

    async def open(self) -> None:
        """Begin connecting and wait about a second for it; that Redis is away is no error."""
        await self._connection.open(_OPEN_WAIT_S)

    async def close(self) -> None:
        """Close the connection; close the workers first."""
        await self._connection.close()

    @property
    def failure(self) -> BrokerUnavailable | None:
        """Why there is no connection, while there is none: LoginRefused and WrongDeployment do not go away by themselves."""
        return self._connection.failure

    async def belong_to(self, deployment: str) -> None:
        """Use the keys from now on only if they are of that deployment; begins a new connection, which claims them."""
        self._namespace = Namespace(self._prefix, deployment)
        await self._connection.change_to(self._namespace)

    async def ping(self) -> None:
        """Ask whether Redis is there."""
        await self._connection.call("PING")

    def now_ms(self) -> int:
        """Redis' time, milliseconds since 1970: what is compared with the times of jobs is read from here."""
        return self._connection.clock.now_ms()

    async def check_writable(self) -> None:
        """See that Redis takes a write, as a replica, a full one and one with a full disk do not.

        Raises:
            BrokerUnavailable, CommandRefused: it does not; the message says why.
        """
        await self._connection.call("SET", f"{self._prefix}:replyline:writable", 1, "EX", 60)

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Add jobs in the order given, in one write; one whose id its queue already knows is ignored.

        A worker of this broker that has room takes a job with the call that adds one.

        Raises:
            NotAcknowledged: some or all may not have been added; sending those again is safe.
            PublicationsRefused: Redis refuses some, and has taken the others.
        """
        await self._publishing.publish(publications)

    async def publish_again(self, publications: Sequence[Publication]) -> None:
        """Like `publish`, for jobs that an earlier call may have added in part.

        A script that Redis refuses in its middle (a key of another type, a command without permission) leaves what it has
        written: a job that is in no list, and whose id is known all the same. What is left of such a job is removed first, by
        a script: another process may publish the same job at this moment, and what it has added stays.
        """
        await self._publishing.publish_again(publications)

    def _look(self, queue: str, job_id: str) -> bytes:
        keys = self._of(queue)
        return GET_STATE.call(*keys.all(*_STATES), job_id, keys.job(job_id))

    async def states(self, queue: str, job_ids: Sequence[str]) -> list[JobState | None]:
        """The state of each job; None where the queue does not know it."""
        answers = await self._connection.run_all([self._look(queue, job_id) for job_id in job_ids])
        return [_state(answer) for answer in answers]

    async def counts(self, queue: str) -> QueueCounts:
        """How many jobs are in each state."""
        keys = self._of(queue)
        answers = await self._connection.run_all(
            [GET_COUNTS.call(keys.prefix, *_COUNTED), pack("HEXISTS", keys["meta"], "paused")]
        )
        counts, paused = (_sound(answer) for answer in answers)
        if not isinstance(counts, list):
            raise BrokerUnavailable(f"unexpected counts of {queue}: {counts!r}")
        numbers = dict(zip(_COUNTED, (count if isinstance(count, int) else 0 for count in counts), strict=True))
        return QueueCounts(
            waiting=numbers["wait"],
            prioritized=numbers["prioritized"],
            delayed=numbers["delayed"],
            active=numbers["active"],
            completed=numbers["completed"],
            failed=numbers["failed"],
            paused=numbers["paused"],
            is_paused=paused == 1,
        )

    async def oldest_waiting_ms(self, queue: str) -> int | None:
        """When the oldest job that could run now was added (milliseconds since 1970), or None where none waits.

        Looks at the first of the list and of each plan's priority, not at every job: what a worker would take next.
        """
        keys = self._of(queue)
        looks = [pack("LINDEX", keys["wait"], -1)]
        looks += [
            pack("ZRANGEBYSCORE", keys["prioritized"], low << 32, f"({(low + 1) << 32}", "LIMIT", 0, 1)
            for low in (1, 3, 5)
        ]
        looks.append(pack("ZRANGE", keys["prioritized"], 0, 0))
        found = [_sound(answer) for answer in await self._connection.run_all(looks)]
        heads = {entry for reply in found for entry in (reply if isinstance(reply, list) else [reply])}
        ids = [entry.decode() for entry in heads if isinstance(entry, bytes)]
        stamps = await self._connection.run_all([pack("HGET", keys.job(job_id), "timestamp") for job_id in ids])
        times = [int(stamp) for stamp in stamps if isinstance(stamp, bytes)]
        return min(times, default=None)

    async def remove(self, queue: str, job_id: str) -> bool:
        """Remove a job that is not active, whatever its state; False if there is no such job or it is active."""
        keys = self._of(queue)
        if not await self._connection.call("EXISTS", keys.job(job_id)):
            return False
        return await self._connection.run(self._removal(keys, job_id)) == 1

    def _removal(self, keys: Keys, job_id: str) -> bytes:
        return REMOVE.call(keys.job(job_id), keys["repeat"], job_id, 0, keys.prefix)

    async def promote(self, queue: str, job_id: str) -> bool:
        """Let a delayed job run now; False where it is not delayed."""
        keys = self._of(queue)
        names = ("delayed", "wait", "paused", "meta", "prioritized", "active", "pc", "events", "marker")
        return await self._connection.run(PROMOTE.call(*keys.all(*names), keys.prefix, job_id)) == 0

    async def promote_late(self, queue: str, job_ids: Sequence[str], *, beyond_s: float) -> int:
        """Let those of the delayed jobs run now that would wait for more than `beyond_s` seconds; returns how many do."""
        keys = self._of(queue)
        scores = await self._connection.run_all([pack("ZSCORE", keys["delayed"], job_id) for job_id in job_ids])
        # BullMQ's score of a delayed job is its time with 12 bits of a counter below it.
        late = self.now_ms() + round(beyond_s * 1000)
        wanted = [
            job_id
            for job_id, score in zip(job_ids, scores, strict=True)
            if isinstance(score, bytes) and int(float(score)) >> 12 > late
        ]
        return sum([await self.promote(queue, job_id) for job_id in wanted])

    async def pause(self, queue: str) -> None:
        """Let no worker take jobs of this queue; what runs, runs on."""
        await self._pause(queue, "wait", "paused", "paused")

    async def resume(self, queue: str) -> None:
        """Undo `pause`."""
        await self._pause(queue, "paused", "wait", "resumed")

    async def _pause(self, queue: str, source: str, target: str, event: str) -> None:
        names = self._of(queue).all(source, target, "meta", "prioritized", "events", "delayed", "marker")
        await self._connection.run(PAUSE.call(*names, event, "1"))

    async def workers(self, queue: str) -> list[WorkerClient]:
        """The workers that are connected for a queue, as BullMQ's `Queue.getWorkers` finds them: ours, and those of others.

        Raises:
            CommandRefused: this Redis user may not read the list of clients.
        """
        keys = self._of(queue)
        listed = await self._connection.call("CLIENT", "LIST")
        found = []
        for line in listed.decode(errors="replace").splitlines() if isinstance(listed, bytes) else ():
            fields = dict(field.partition("=")[::2] for field in line.split(" "))
            worker = keys.worker_of(fields.get("name", ""))
            if worker is not None:
                found.append(WorkerClient(worker, fields.get("addr", ""), int(fields.get("age", 0))))
        return sorted(found, key=lambda client: client.worker)

    async def drain(self, queue: str) -> None:
        """Remove what waits; what is delayed or active stays."""
        keys = self._of(queue)
        names = keys.all("wait", "paused", "delayed", "prioritized", "repeat")
        await self._connection.run(DRAIN.call(*names, keys.prefix, "0"))

    async def trim(self, queue: str, *, keep: int) -> int:
        """Remove the oldest waiting jobs of a queue that nobody works, so that `keep` stay; returns how many went."""
        keys = self._of(queue)
        sizes = await self._connection.run_all([pack("LLEN", keys["wait"]), pack("ZCARD", keys["prioritized"])])
        if sum(size for size in sizes if isinstance(size, int)) <= keep:
            return 0
        reads = [pack("LRANGE", keys["wait"], 0, -1), pack("ZRANGE", keys["prioritized"], 0, -1, "WITHSCORES")]
        list_, set_ = await self._connection.run_all(reads)
        oldest_first = _oldest_first(list_, set_)
        excess = oldest_first[: max(0, len(oldest_first) - keep)]
        removed = 0
        for start in range(0, len(excess), _TRIM_BATCH):
            batch = [job_id.decode() for job_id in excess[start : start + _TRIM_BATCH]]
            answers = await self._connection.run_all([self._removal(keys, job_id) for job_id in batch])
            removed += sum(answer == 1 for answer in answers)
        return removed

    async def epoch(self) -> str | None:
        """What `set_epoch` set, or None: then this Redis has lost everything, or is new."""
        value = await self._connection.call("GET", self._epoch_key)
        return value.decode() if isinstance(value, bytes) else None

    async def set_epoch(self, value: str) -> None:
        """Leave a mark that is gone when everything else is, and claim the keys again, which was lost with it."""
        answers = await self._connection.run_all([*self._namespace.claim(), pack("SET", self._epoch_key, value)])
        for answer in answers:
            _sound(answer)

    @property
    def _epoch_key(self) -> str:
        return f"{self._prefix}:replyline:epoch"

    async def command(self, *words: str) -> Reply:
        """Any command, for inspection. Raises CommandRefused with what Redis said against it."""
        return await self._connection.call(*words)

    def worker(
        self,
        queue: str,
        handler: Handler,
        *,
        concurrency: int,
        name: str,
        lock_s: float = 30.0,
        stalled_every_s: float = 15.0,
        max_stalled: int = 2,
        rate_limit: tuple[int, float] | None = None,
        keep_completed_s: int = 3600,
        keep_failed_s: int = 86400,
        keep_completed_jobs: int | None = None,
        keep_failed_jobs: int | None = None,
        schedulers: bool = False,
    ) -> Worker:
        """A worker of `queue`; its `run` does the work.

        `lock_s` is how long a vanished worker's jobs stay with it, `max_stalled` how often that may happen to a job before it is
        handed over with `deferred_failure` set, `rate_limit` how many jobs may start in how many seconds, over all workers; the
        `keep`s are for jobs that do not say themselves. With `schedulers`, job schedulers go on."""
        worker = Worker(
            self._connection,
            self._supervisor,
            self._of(queue),
            handler,
            concurrency=concurrency,
            name=name,
            lock_s=lock_s,
            stalled_every_s=stalled_every_s,
            max_stalled=max_stalled,
            rate_limit=rate_limit,
            keep_completed=(keep_completed_s, keep_completed_jobs),
            keep_failed=(keep_failed_s, keep_failed_jobs),
            schedulers=schedulers,
        )
        self._publishing.bring_to(queue, worker.taker)
        return worker

    def listening(
        self,
        hear: Callable[[Told | Written], None],
        missed: Callable[[], None],
        *,
        ping_every_s: float = 10.0,
        confirm_within_s: float = 2.0,
    ) -> Listening:
        """A connection of its own on which to hear what `live` tells; open it, and close it before the broker.

        `hear` is called for each message of a conversation that is watched, in order; `missed` whenever some may have been lost.
        Both are called in the event loop and must be cheap. A Redis that says nothing for 1.5 to 2 times `ping_every_s` is given
        up, and `watching` after `confirm_within_s`.
        """
        return Listening(
            self._endpoint,
            self._supervisor,
            self._namespace,
            self._live_names,
            hear=hear,
            missed=missed,
            ping_every_s=ping_every_s,
            confirm_within_s=confirm_within_s,
        )

    def _of(self, queue: str) -> Keys:
        if queue not in self._keys:
            self._keys[queue] = keys_of(self._prefix, queue)
        return self._keys[queue]


def _state(answer: object) -> JobState | None:
    if isinstance(answer, BrokerUnavailable | CommandRefused):  # what cannot be looked at is not missing
        raise answer
    name = answer.decode() if isinstance(answer, bytes) else ""
    for state in get_args(JobState):
        if name == state:
            known: JobState = state
            return known
    return None


def _oldest_first(list_: Answer, set_: Answer) -> list[bytes]:
    """The ids of the waiting list, whose newest stands first, then those of the prioritized set.

    BullMQ's score there is the priority, and below it in 32 bits a counter of what was added.
    """
    listed = [entry for entry in list_ if isinstance(entry, bytes)] if isinstance(list_, list) else []
    flat = [entry for entry in set_ if isinstance(entry, bytes)] if isinstance(set_, list) else []
    counted = sorted(zip(flat[1::2], flat[::2], strict=True), key=lambda pair: int(float(pair[0])) & 0xFFFFFFFF)
    return [*reversed(listed), *(job_id for _, job_id in counted)]


def _sound(answer: object) -> object:
    if isinstance(answer, Exception):
        raise answer
    return answer

"""How this process and the servers it needs are, looked at all the time, so that a probe is answered at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import structlog
from prometheus_client import Gauge

from replyline import metrics
from replyline.broker import Broker, BrokerUnavailable, CommandRefused
from replyline.publisher import Publisher
from replyline.store import external, schema
from replyline.store.database import Database, StoreUnavailable
from replyline.supervision import BackgroundTask, Supervisor

log = structlog.get_logger(__name__)

OK = "ok"
_LOOK_EVERY_S = 1.0
_LOOK_WITHIN_S = 2.0
_STALE_S = 15.0
_LET_GO_S = 20.0
_FIRST_LOOK_S = 0.4
_STUCK_S = 60.0
_COUNT_EXTERNAL_EVERY_S = 3.0


@dataclass(slots=True)
class _Server:
    """What was last seen of one server."""

    trouble: str | None = None
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = field(default_factory=time.monotonic)
    looked_at: float = field(default_factory=time.monotonic)

    def note(self, trouble: str | None) -> bool:
        """Keep what a look found; whether that is news."""
        now = time.monotonic()
        news = (trouble is None) != (self.trouble is None)
        if news:
            self.since = now
        self.trouble, self.looked_at = trouble, now
        self.seen.set()
        return news

    @property
    def now(self) -> str | None:
        """What is wrong, a look that does not come back included."""
        if not self.seen.is_set():
            return "not looked at yet"
        silent_s = time.monotonic() - self.looked_at
        return f"not looked at for {silent_s:.0f} s" if silent_s > _STALE_S else self.trouble


@dataclass(frozen=True, slots=True)
class Report:
    """What a probe is told: each part is `ok` or says what is wrong."""

    ready: bool
    parts: dict[str, str]


class Health:
    """The health of one process; looking begins with `start`, or with the first report."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        publisher: Publisher,
        supervisor: Supervisor,
        *,
        patience_s: float,
        external_queues: Collection[str] = (),
        external_late_s: float = 0,
    ) -> None:
        """Redis may be away, and jobs may wait for it, for `patience_s` seconds before that makes the process not ready.

        Jobs of `external_queues` are late after `external_late_s` seconds. That is told, but makes no process not ready: a new
        one would do no better.
        """
        self._database = database
        self._broker = broker
        self._publisher = publisher
        self._supervisor = supervisor
        self._patience_s = patience_s
        self._external_queues = external_queues
        self._external_late_s = external_late_s
        self._external: str | None = None
        self._postgres = _Server()
        self._redis = _Server()
        self._watched: dict[str, Callable[[], str | None]] = {}
        self._told: dict[str, Callable[[], str | None]] = {}
        self._progress: dict[str, Callable[[], float]] = {}
        self._tasks: list[BackgroundTask] = []

    def start(self) -> None:
        """Look at the servers from now on."""
        if not self._tasks:
            start = self._supervisor.start
            self._tasks = [
                start("health of Postgres", self._watch_postgres, vital=False),
                start("health of Redis", self._watch_redis, vital=False),
            ]
            if self._external_queues:
                self._tasks.append(start("health of external queues", self._watch_external, vital=False))

    async def close(self) -> None:
        """Look no more."""
        for task in self._tasks:
            await task.stop()

    def watch(self, part: str, trouble: Callable[[], str | None], *, vital: bool = True) -> None:
        """Report one more part, healthy if `trouble` gives None; if it is not `vital`, the process is ready all the same."""
        (self._watched if vital else self._told)[part] = trouble

    def expect_progress(self, name: str, stuck_s: Callable[[], float]) -> None:
        """Let the process not be live where `stuck_s` says that something makes no step for a minute."""
        self._progress[name] = stuck_s

    @property
    def stuck(self) -> str | None:
        """What makes no step any more, so that only a new process helps; None where nothing is stuck."""
        found = [
            f"{name} for {seconds:.0f} s" for name, look in self._progress.items() if (seconds := look()) > _STUCK_S
        ]
        return ", ".join(found) or None

    async def report(self) -> Report:
        """How all is, within half a second whatever hangs."""
        self.start()
        try:
            async with asyncio.timeout(_FIRST_LOOK_S):
                await self._postgres.seen.wait()
                await self._redis.seen.wait()
        except TimeoutError:
            log.debug("health.first_look_pending")
        troubles = {
            "postgres": self._postgres.now,
            "redis": self._redis.now,
            "publication": self._publisher.trouble(self._patience_s),
            "tasks": "; ".join(f"{name} {what}" for name, what in self._supervisor.troubles.items()) or None,
            **{part: look() for part, look in self._watched.items()},
        }
        tolerated = time.monotonic() - self._redis.since < self._patience_s
        wrong = {
            part for part, trouble in troubles.items() if trouble is not None and not (part == "redis" and tolerated)
        }
        told = {"external": self._external, **{part: look() for part, look in self._told.items()}}
        return Report(not wrong, {part: trouble or OK for part, trouble in (troubles | told).items()})

    async def _watch_postgres(self) -> None:
        await self._watch("postgres", self._postgres, lambda: schema.check(self._database), metrics.postgres_up)

    async def _watch_redis(self) -> None:
        await self._watch("redis", self._redis, self._broker.check_writable, metrics.redis_up)

    async def _watch_external(self) -> None:
        while True:
            try:
                found = await external.count(self._database, self._external_queues, late_s=self._external_late_s)
            except StoreUnavailable as error:  # Postgres says so itself; what was last seen stays
                log.debug("health.external_unknown", error=str(error))
            else:
                wrong = [
                    f"{number} jobs of {queue} are {standing}"
                    for queue, standing, number in found
                    if standing != "open"
                ]
                self._external = "; ".join(wrong) or None
            await asyncio.sleep(_COUNT_EXTERNAL_EVERY_S)

    async def _watch(self, name: str, server: _Server, look: Callable[[], Awaitable[None]], up: Gauge) -> None:
        while True:
            looking = asyncio.ensure_future(_trouble(look))
            try:
                await asyncio.wait([looking], timeout=_LOOK_WITHIN_S)
                trouble = looking.result() if looking.done() else f"no answer within {_LOOK_WITHIN_S:g} s"
                if server.note(trouble):
                    (log.info if trouble is None else log.error)("health.changed", part=name, now=trouble or OK)
                up.set(trouble is None)
                if not looking.done():
                    looking.cancel()  # a driver may need its time to let go of a server that does not answer
                    await asyncio.wait([looking], timeout=_LET_GO_S)
            finally:
                looking.cancel()
            await asyncio.sleep(_LOOK_EVERY_S)


async def _trouble(look: Callable[[], Awaitable[None]]) -> str | None:
    try:
        await look()
    except (StoreUnavailable, schema.NotMigrated, BrokerUnavailable, CommandRefused) as error:
        return str(error)
    return None

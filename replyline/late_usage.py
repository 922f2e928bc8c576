"""What was used although the transaction that should have recorded it did not commit: written as soon as Postgres takes it."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import structlog

from replyline.store.database import Database, StoreUnavailable
from replyline.store.moves.metering import Fact, meter
from replyline.supervision import BackgroundTask, Supervisor

log = structlog.get_logger(__name__)

_BATCH = 200
_RETRY_S = 1.0


class LateUsage:
    """Facts that wait for Postgres, at most `capacity`. A fact's key makes it count once, also if it was recorded after all."""

    def __init__(self, database: Database, supervisor: Supervisor, *, capacity: int = 10_000) -> None:
        self._database = database
        self._supervisor = supervisor
        self._capacity = capacity
        self._waiting: deque[Fact] = deque()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: BackgroundTask | None = None

    def start(self) -> None:
        """Begin writing, in a task of its own."""
        self._task = self._supervisor.start("late usage", self._run, vital=False)

    async def close(self, grace_s: float = 5.0) -> None:
        """Write what waits, for at most `grace_s` seconds."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.error("usage.lost", facts=[fact.key for fact in self._waiting])
        if self._task is not None:
            await self._task.stop()

    def add(self, fact: Fact) -> None:
        """Record `fact` later; returns at once."""
        if len(self._waiting) >= self._capacity:
            log.error("usage.lost", facts=[fact.key])
            return
        self._waiting.append(fact)
        self._idle.clear()
        self._more.set()

    @contextmanager
    def unless_recorded(self, fact: Fact) -> Iterator[None]:
        """Record `fact` later if the block, whose transaction should have recorded it, fails or is cancelled."""
        try:
            yield
        except BaseException:
            self.add(fact)
            raise

    async def _run(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                batch = list(islice(self._waiting, _BATCH))
                try:
                    await self._write(batch)
                except StoreUnavailable:
                    await asyncio.sleep(_RETRY_S)
                    continue
                for _ in batch:
                    self._waiting.popleft()
            self._idle.set()

    async def _write(self, batch: list[Fact]) -> None:
        try:
            async with self._database.transaction() as connection:
                await meter(connection, batch)
        except StoreUnavailable:
            raise
        except Exception:
            if len(batch) == 1:  # its customer was deleted, say: nothing that another try would change
                log.exception("usage.refused", facts=[batch[0].key])
                return
            for fact in batch:
                await self._write([fact])

"""Group commit: writes that concurrent jobs share."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from replyline.store.database import Connection, StoreUnavailable
from replyline.store.outbox import Outbox

log = structlog.get_logger(__name__)

Row = TypeVar("Row")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Waiting(Generic[Row, Result]):
    row: Row
    key: Hashable
    identity: Hashable
    done: "asyncio.Future[Result]"


class GroupCommit(Generic[Row, Result]):
    """Gathers the rows that concurrent jobs want written in the same moment, and writes them in one transaction.

    At most `size` rows share a transaction and at most `lanes` transactions run at once. Rows with the same key are never in two
    transactions at the same time, so that they keep their order and do not wait for each other's locks. When a shared transaction
    fails, its rows are tried one by one: a bad row hurts only itself. A lone row is alone in its transaction. Rows with the same
    `identity` never share one: two runs of one job would both find it unfinished there.

    `within` opens what the rows share: `Database.transaction` for writes, `Database.connection` for reads. What a write puts into
    the outbox goes to `publish` after the commit, and nowhere when there was none.
    """

    def __init__(
        self,
        write: Callable[[Connection, Sequence[Row], Outbox], Awaitable[Sequence[Result]]],
        *,
        within: Callable[[], AbstractAsyncContextManager[Connection]],
        key: Callable[[Row], Hashable],
        publish: Callable[[Outbox], None],
        identity: Callable[[Row], Hashable] | None = None,
        size: int = 64,
        lanes: int = 2,
    ) -> None:
        self._write = write
        self._within = within
        self._publish = publish
        self._key = key
        self._identity = identity or (lambda _row: object())
        self._size = size
        self._lanes = lanes
        self._waiting: deque[_Waiting[Row, Result]] = deque()
        self._busy_keys: set[Hashable] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, row: Row) -> Result:
        """Write `row` and return what became of it once it is committed.

        Raises:
            StoreUnavailable: Postgres went away; whether the row was committed is not known, so ask again (moves are idempotent).
        """
        waiting = _Waiting(row, self._key(row), self._identity(row), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._start()
        result: Result = await waiting.done
        return result

    def _start(self) -> None:
        while len(self._running) < self._lanes:
            batch = self._take()
            if not batch:
                return
            task = asyncio.create_task(self._commit(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("group_commit.broken", exc_info=task.exception())
        self._start()

    def _take(self) -> list[_Waiting[Row, Result]]:
        batch: list[_Waiting[Row, Result]] = []
        held_back: list[_Waiting[Row, Result]] = []
        blocked = set(self._busy_keys)
        taken: set[Hashable] = set()
        while self._waiting and len(batch) < self._size:
            waiting = self._waiting.popleft()
            if waiting.done.done():  # its job was cancelled before it was written
                continue
            if waiting.key in blocked or waiting.identity in taken:
                blocked.add(waiting.key)
                held_back.append(waiting)
                continue
            taken.add(waiting.identity)
            batch.append(waiting)
        self._waiting.extendleft(reversed(held_back))
        self._busy_keys.update(waiting.key for waiting in batch)
        return batch

    async def _commit(self, batch: list[_Waiting[Row, Result]]) -> None:
        try:
            await self._commit_together(batch)
        finally:
            self._busy_keys.difference_update(waiting.key for waiting in batch)
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.cancel()

    async def _commit_together(self, batch: list[_Waiting[Row, Result]]) -> None:
        outbox = Outbox()
        try:
            async with self._within() as connection:
                results = await self._write(connection, [waiting.row for waiting in batch], outbox)
        except Exception as error:
            if len(batch) == 1 or isinstance(error, StoreUnavailable):
                for waiting in batch:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)
                return
            log.warning("group_commit.split", rows=len(batch), error=type(error).__name__)
            for waiting in batch:
                await self._commit_together([waiting])
            return
        if outbox.jobs or outbox.grown:
            self._publish(outbox)
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(result)

"""Group commit: writes that concurrent jobs share."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from replyline.store.database import Connection, StoreBusy, StoreUnavailable
from replyline.store.outbox import Outbox

log = structlog.get_logger(__name__)

Row = TypeVar("Row")
Result = TypeVar("Result")

_ALONE_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '100ms'"
_SUSPECT_FOR_S = 10.0
_MOST_SUSPECTS = 10_000


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

    A row that met somebody else's lock makes its key suspect: for the next 10 seconds the key's rows are written alone, one at a
    time, in a lane of their own, so that a session that keeps a lock delays nobody but those whose rows it has locked.

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
        self._suspects: OrderedDict[Hashable, float] = OrderedDict()  # each with the time until which it is one
        self._beside: deque[_Waiting[Row, Result]] = deque()
        self._running_beside: asyncio.Task[None] | None = None

    async def __call__(self, row: Row) -> Result:
        """Write `row` and return what became of it once it is committed.

        Raises:
            StoreUnavailable: Postgres went away; whether the row was committed is not known, so ask again (moves are idempotent).
            StoreBusy: somebody else's lock, or a timeout: the row was not committed.
        """
        waiting = _Waiting(row, self._key(row), self._identity(row), asyncio.get_running_loop().create_future())
        (self._beside if self._is_suspect(waiting.key) else self._waiting).append(waiting)
        self._start()
        result: Result = await waiting.done
        return result

    def _start(self) -> None:
        if self._running_beside is None and (alone := self._take_from(self._beside, 1)):
            self._running_beside = asyncio.create_task(self._commit(alone, alone=True))
            self._running_beside.add_done_callback(self._ended)
        while len(self._running) < self._lanes:
            batch = self._take_from(self._waiting, self._size)
            if not batch:
                return
            task = asyncio.create_task(self._commit(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if task is self._running_beside:
            self._running_beside = None
        if not task.cancelled() and task.exception() is not None:
            log.error("group_commit.broken", exc_info=task.exception())
        self._start()

    def _take_from(self, queue: deque[_Waiting[Row, Result]], size: int) -> list[_Waiting[Row, Result]]:
        batch: list[_Waiting[Row, Result]] = []
        held_back: list[_Waiting[Row, Result]] = []
        blocked = set(self._busy_keys)
        taken: set[Hashable] = set()
        while queue and len(batch) < size:
            waiting = queue.popleft()
            if waiting.done.done():  # its job was cancelled before it was written
                continue
            if waiting.key in blocked or waiting.identity in taken:
                blocked.add(waiting.key)
                held_back.append(waiting)
                continue
            taken.add(waiting.identity)
            batch.append(waiting)
        queue.extendleft(reversed(held_back))
        self._busy_keys.update(waiting.key for waiting in batch)
        return batch

    async def _commit(self, batch: list[_Waiting[Row, Result]], *, alone: bool = False) -> None:
        try:
            await self._commit_together(batch, alone=alone)
        finally:
            self._busy_keys.difference_update(waiting.key for waiting in batch)
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.cancel()

    async def _commit_together(self, batch: list[_Waiting[Row, Result]], *, alone: bool = False) -> None:
        outbox = Outbox()
        try:
            async with self._within() as connection:
                if alone and connection.is_in_transaction():
                    await connection.execute(_ALONE_LOCK_TIMEOUT)
                results = await self._write(connection, [waiting.row for waiting in batch], outbox)
        except Exception as error:
            away = isinstance(error, StoreUnavailable) and not isinstance(error, StoreBusy)
            if len(batch) == 1 and isinstance(error, StoreBusy):
                self._suspect(batch[0].key)
            if len(batch) == 1 or away:
                for waiting in batch:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)
                return
            log.warning("group_commit.split", rows=len(batch), error=type(error).__name__)
            for waiting in batch:
                await self._commit_together([waiting], alone=True)
            return
        if alone and not any(waiting.key == batch[0].key for waiting in self._beside):
            self._suspects.pop(batch[0].key, None)
        if outbox.jobs or outbox.grown:
            self._publish(outbox)
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(result)

    def _suspect(self, key: Hashable) -> None:
        self._suspects[key] = time.monotonic() + _SUSPECT_FOR_S
        self._suspects.move_to_end(key)
        if len(self._suspects) > _MOST_SUSPECTS:
            self._suspects.popitem(last=False)
        # Those that came before go before those that will come: both in the other lane.
        self._beside.extend(waiting for waiting in self._waiting if waiting.key == key)
        self._waiting = deque(waiting for waiting in self._waiting if waiting.key != key)

    def _is_suspect(self, key: Hashable) -> bool:
        until = self._suspects.get(key)
        if until is None:
            return False
        if until < time.monotonic() and not any(waiting.key == key for waiting in self._beside):
            del self._suspects[key]
            return False
        return True

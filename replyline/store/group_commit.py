"""Group commit: writes that concurrent jobs share."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from replyline.store.database import Connection, StoreBusy, StoreUnavailable
from replyline.store.outbox import Outbox
from replyline.store.transaction_limit import TransactionLimit

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

    At most `size` rows share a transaction, and `limit` says when one may begin: it takes what waits then. Rows with the same key
    are never in two transactions at the same time, so that they keep their order and do not wait for each other's locks. When a
    shared transaction fails, its rows are tried one by one, outside the limit: a bad row hurts only itself. Rows with the same
    `identity` never share a transaction: two runs of one job would both find it unfinished there.

    A row that met somebody else's lock makes its key suspect: for the next 10 seconds the key's rows are written alone, one at a
    time and outside the limit, so that a session that keeps a lock delays nobody but those whose rows it has locked.

    `within` opens what the rows share: `Database.hot_transaction` for writes, `Database.hot_connection` for reads. What a write
    puts into the outbox goes to `publish` after the commit, and nowhere when there was none.
    """

    def __init__(
        self,
        write: Callable[[Connection, Sequence[Row], Outbox], Awaitable[Sequence[Result]]],
        *,
        within: Callable[[], AbstractAsyncContextManager[Connection]],
        limit: TransactionLimit,
        key: Callable[[Row], Hashable],
        publish: Callable[[Outbox], None],
        identity: Callable[[Row], Hashable] | None = None,
        size: int = 64,
    ) -> None:
        self._write = write
        self._within = within
        self._limit = limit
        self._publish = publish
        self._key = key
        self._identity = identity or (lambda _row: object())
        self._size = size
        self._waiting: deque[_Waiting[Row, Result]] = deque()
        self._has_asked = False
        self._busy_keys: set[Hashable] = set()
        self._running: set[asyncio.Task[bool]] = set()
        self._suspects: OrderedDict[Hashable, float] = OrderedDict()  # each with the time until which it is one
        self._beside: deque[_Waiting[Row, Result]] = deque()
        self._running_beside: asyncio.Task[bool] | None = None

    async def __call__(self, row: Row) -> Result:
        """Write `row` and return what became of it once it is committed.

        Raises:
            StoreUnavailable: Postgres went away; whether the row was committed is not known, so ask again (moves are idempotent).
            StoreBusy: somebody else's lock, or a timeout: the row was not committed.
        """
        waiting = _Waiting(row, self._key(row), self._identity(row), asyncio.get_running_loop().create_future())
        (self._beside if self._is_suspect(waiting.key) else self._waiting).append(waiting)
        self._go_on()
        result: Result = await waiting.done
        return result

    def _go_on(self) -> None:
        if self._running_beside is None and (alone := self._take_from(self._beside, 1)):
            self._running_beside = self._run(self._commit_one_by_one(alone), alone)
        if self._waiting and not self._has_asked:
            self._has_asked = True
            self._limit.ask(self._begin)

    def _begin(self) -> bool:
        """It is this move's turn: take what waits. If all of that must wait for a transaction of ours, its end asks again."""
        self._has_asked = False
        batch = self._take_from(self._waiting, self._size)
        if not batch:
            return False
        self._run(self._commit(batch), batch).add_done_callback(lambda _task: self._limit.ended())
        self._go_on()
        return True

    def _run(self, work: Coroutine[None, None, bool], batch: Sequence[_Waiting[Row, Result]]) -> "asyncio.Task[bool]":
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, batch))
        return task

    def _ended(self, task: "asyncio.Task[bool]", batch: Sequence[_Waiting[Row, Result]]) -> None:
        self._running.discard(task)
        if task is self._running_beside:
            self._running_beside = None
        if not task.cancelled() and task.exception() is not None:
            log.error("group_commit.broken", exc_info=task.exception())
        elif not task.cancelled() and not task.result():
            self._run(self._commit_one_by_one(batch), batch)
            return
        self._busy_keys.difference_update(waiting.key for waiting in batch)
        for waiting in batch:
            if not waiting.done.done():
                waiting.done.cancel()
        self._go_on()

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

    async def _commit_one_by_one(self, batch: Sequence[_Waiting[Row, Result]]) -> bool:
        for waiting in batch:
            await self._commit([waiting], alone=True)
        return True

    async def _commit(self, batch: Sequence[_Waiting[Row, Result]], *, alone: bool = False) -> bool:
        """Write the rows in one transaction; False if they are to be tried one by one."""
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
            if len(batch) > 1 and not away:
                log.warning("group_commit.split", rows=len(batch), error=type(error).__name__)
                return False
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return True
        if alone and not any(waiting.key == batch[0].key for waiting in self._beside):
            self._suspects.pop(batch[0].key, None)
        if outbox.jobs or outbox.grown:
            self._publish(outbox)
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(result)
        return True

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

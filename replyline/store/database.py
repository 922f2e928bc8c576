"""The connection to Postgres: pool, transactions, and group commit — writes that concurrent jobs share."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

log = structlog.get_logger(__name__)

Row = TypeVar("Row")
Result = TypeVar("Result")

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

_ACQUIRE_TIMEOUT_S = 10.0
_COMMAND_TIMEOUT_S = 30.0

_UNAVAILABLE: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)


class StoreUnavailable(Exception):
    """Postgres cannot be reached or is going down; nothing was wrong with what was asked."""


class Database:
    """A pool of connections to one Postgres database."""

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        self._url = url
        self._pool_size = pool_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        with _translated():
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=1,
                max_size=self._pool_size,
                timeout=_ACQUIRE_TIMEOUT_S,
                command_timeout=_COMMAND_TIMEOUT_S,
                # JIT compiles plans that run a thousand times a second for a millisecond each: it only costs here.
                server_settings={"application_name": "replyline", "jit": "off"},
            )

    async def close(self) -> None:
        """Close every connection, waiting at most 5 seconds for those in use."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(5):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction: each statement commits by itself.

        Raises:
            StoreUnavailable: see there.
        """
        if self._pool is None:
            raise StoreUnavailable("the database is not open")
        with _translated():
            async with self._pool.acquire(timeout=_ACQUIRE_TIMEOUT_S) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction that commits at the end of the block, or rolls back on an error.

        Raises:
            StoreUnavailable: see there.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection


class _translated:
    """Turns every sign of an absent Postgres into StoreUnavailable, and leaves all other errors alone."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # asyncpg's complaint about an argument of the wrong type is an InterfaceError too, but it is our bug, not an outage.
        if isinstance(error, _UNAVAILABLE) and not isinstance(error, ValueError):
            raise StoreUnavailable(f"Postgres is not available: {type(error).__name__}") from error


@dataclass(slots=True)
class _Waiting(Generic[Row, Result]):
    row: Row
    key: Hashable
    done: "asyncio.Future[Result]"


class GroupCommit(Generic[Row, Result]):
    """Gathers the rows that concurrent jobs want written in the same moment, and writes them in one transaction.

    At most `size` rows share a transaction and at most `lanes` transactions run at once. Rows with the same key are never in two
    transactions at the same time, so that they keep their order and do not wait for each other's locks. When a shared transaction
    fails, its rows are tried one by one: a bad row hurts only itself. A lone row is alone in its transaction.
    """

    def __init__(
        self,
        database: Database,
        write: Callable[[Connection, Sequence[Row]], Awaitable[Sequence[Result]]],
        *,
        key: Callable[[Row], Hashable],
        size: int = 64,
        lanes: int = 2,
    ) -> None:
        self._database = database
        self._write = write
        self._key = key
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
        waiting = _Waiting(row, self._key(row), asyncio.get_running_loop().create_future())
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
        while self._waiting and len(batch) < self._size:
            waiting = self._waiting.popleft()
            if waiting.done.done():  # its job was cancelled before it was written
                continue
            if waiting.key in blocked:
                held_back.append(waiting)
                continue
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
        try:
            async with self._database.transaction() as connection:
                results = await self._write(connection, [waiting.row for waiting in batch])
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
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(result)

"""The connection to Postgres: the pool, transactions, and the one error that means Postgres is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

_ACQUIRE_TIMEOUT_S = 10.0
_COMMAND_TIMEOUT_S = 30.0

_UNAVAILABLE: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # its protocol's own confusion when the server dies within a statement
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

"""The connection to Postgres: the pool, transactions, and the errors that mean Postgres cannot do its work now."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

log = structlog.get_logger(__name__)

_ACQUIRE_TIMEOUT_S = 10.0
_FULL_FOR_S = 10.0
_COMMAND_TIMEOUT_S = 30.0

LOCK_TIMEOUT_S = 1.0
"""How long a statement waits for another transaction's lock. Ours hold theirs for milliseconds."""

# A session of ours that stops in the middle of a transaction (a frozen process, a host that vanished) must not keep its row
# locks: the server ends it. The client looks as well: a firewall that forgot the connection drops packets without a word.
_IDLE_IN_TRANSACTION_S = 60
_KEEPALIVE_IDLE_S, _KEEPALIVE_EVERY_S, _KEEPALIVE_PROBES = 5, 3, 2
_UNACKNOWLEDGED_S = 8.0

_SESSION = {
    "application_name": "replyline",
    # JIT compiles plans that run a thousand times a second for a millisecond each: it only costs here.
    "jit": "off",
    "lock_timeout": f"{LOCK_TIMEOUT_S * 1000:.0f}",
    "idle_in_transaction_session_timeout": f"{_IDLE_IN_TRANSACTION_S * 1000}",
    "tcp_keepalives_idle": f"{_KEEPALIVE_IDLE_S}",
    "tcp_keepalives_interval": f"{_KEEPALIVE_EVERY_S}",
    "tcp_keepalives_count": f"{_KEEPALIVE_PROBES}",
}

# What one statement or one row may have met: the next transaction, without that row, may succeed.
_BUSY: tuple[type[BaseException], ...] = (
    asyncpg.LockNotAvailableError,  # lock_timeout
    asyncpg.QueryCanceledError,  # statement_timeout, or an administrator
    asyncpg.TransactionRollbackError,  # a deadlock, a serialization failure
    asyncpg.ObjectInUseError,
)
# By the classes of PostgreSQL's error codes (PostgreSQL documentation, appendix A).
_UNAVAILABLE: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # its protocol's own confusion when the server dies within a statement
    asyncpg.PostgresConnectionError,  # 08
    asyncpg.InvalidAuthorizationSpecificationError,  # 28: the password was changed, say
    asyncpg.InvalidCatalogNameError,  # 3D: no such database
    asyncpg.InsufficientResourcesError,  # 53: the disk is full, no memory, no connections
    asyncpg.OperatorInterventionError,  # 57: starting, stopping, crashed, cancelled
    asyncpg.PostgresSystemError,  # 58: it cannot read or write its files
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a server set to read only
    asyncpg.IdleInTransactionSessionTimeoutError,
)


class StoreUnavailable(Exception):
    """Postgres cannot be reached or cannot work now; nothing was wrong with what was asked."""


class StoreBusy(StoreUnavailable):
    """Postgres works, but could not do this in time: a lock that another session holds, a timeout, a deadlock."""


class _Connection(asyncpg.Connection):
    """A connection that notices within seconds that its packets do not arrive any more."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        transport: asyncio.Transport = given[1]  # the only way to the socket that asyncpg leaves
        _watch(transport.get_extra_info("socket"))


class Database:
    """A pool of connections to one Postgres database."""

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        self._url = url
        self._pool_size = pool_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._full_at = -_FULL_FOR_S

    @property
    def was_full(self) -> bool:
        """Whether a statement found the server's disk full within the last seconds; reads work all the same then."""
        return time.monotonic() - self._full_at < _FULL_FOR_S

    async def open(self, *, or_later: bool = False) -> None:
        """Connect; with `or_later`, a server that does not answer is connected to when it does.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        try:
            await self._open(at_once=1)
        except StoreUnavailable as error:
            if not or_later:
                raise
            log.warning("postgres.away", error=str(error), hint="waiting for the server of DATABASE_URL")
            await self._open(at_once=0)

    async def _open(self, *, at_once: int) -> None:
        with _translated():
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=at_once,
                max_size=self._pool_size,
                timeout=_ACQUIRE_TIMEOUT_S,
                command_timeout=_COMMAND_TIMEOUT_S,
                connection_class=_Connection,
                server_settings=_SESSION,
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
                try:
                    yield connection
                except asyncpg.DiskFullError:
                    self._full_at = time.monotonic()
                    raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction that commits at the end of the block, or rolls back on an error.

        Raises:
            StoreUnavailable: see there.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection


class _translated:
    """Turns every sign that Postgres cannot work now into StoreUnavailable, and leaves all other errors alone."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _BUSY):
            raise StoreBusy(f"Postgres could not do this in time: {_described(error)}") from error
        if error is not None and concerns_the_store(error):
            raise StoreUnavailable(f"Postgres is not available: {_described(error)}") from error


def concerns_the_store(error: BaseException) -> bool:
    """Whether an error says how Postgres is; every other one is about the rows that were written."""
    # asyncpg's complaint about an argument of the wrong type is an InterfaceError too, but it is our bug, not an outage.
    return isinstance(error, (*_BUSY, *_UNAVAILABLE)) and not isinstance(error, ValueError)


def _described(error: BaseException) -> str:
    said = str(error).partition("\n")[0] if isinstance(error, asyncpg.PostgresError) else ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _watch(sock: socket.socket | None) -> None:
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {  # each has its own name on Linux; other systems have some of them
        "TCP_KEEPIDLE": _KEEPALIVE_IDLE_S,
        "TCP_KEEPINTVL": _KEEPALIVE_EVERY_S,
        "TCP_KEEPCNT": _KEEPALIVE_PROBES,
        "TCP_USER_TIMEOUT": round(_UNACKNOWLEDGED_S * 1000),
    }
    for name, value in wanted.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

"""The connection to Postgres: the pool, transactions, and the errors that mean Postgres cannot do its work now."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from replyline.store.target import read_target
from replyline.store.transaction_limit import TransactionLimit

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
_Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

log = structlog.get_logger(__name__)

_ACQUIRE_TIMEOUT_S = 10.0
_FULL_FOR_S = 10.0
_STATEMENTS_KEPT = 100  # asyncpg's own default
_COMMAND_TIMEOUT_S = 30.0

LOCK_TIMEOUT_S = 1.0
"""How long a statement waits for another transaction's lock. Ours hold theirs for milliseconds."""

# A session of ours that stops in the middle of a transaction (a frozen process, a host that vanished) must not keep its row
# locks: the server ends it. The client looks as well: a firewall that forgot the connection drops packets without a word.
_IDLE_IN_TRANSACTION_S = 60
_KEEPALIVE_IDLE_S, _KEEPALIVE_EVERY_S, _KEEPALIVE_PROBES = 5, 3, 2
_UNACKNOWLEDGED_S = 8.0

_SESSION = {
    # JIT compiles plans that run a thousand times a second for a millisecond each: it only costs here.
    "jit": "off",
    "lock_timeout": f"{LOCK_TIMEOUT_S * 1000:.0f}",
    "idle_in_transaction_session_timeout": f"{_IDLE_IN_TRANSACTION_S * 1000}",
    "tcp_keepalives_idle": f"{_KEEPALIVE_IDLE_S}",
    "tcp_keepalives_interval": f"{_KEEPALIVE_EVERY_S}",
    "tcp_keepalives_count": f"{_KEEPALIVE_PROBES}",
}

# The hot path's statements find every row by an index, with a batch of at most a few hundred keys. Statistics can only mislead
# the planner there: those of a moment in which little waited make it read everything that waits (docs/decisions/0015).
_HOT_PATH = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

# What a pooler does not take at the start of a session, each transaction sets. The others it has settings of its own for.
_SET_LOCAL = "; ".join(f"SET LOCAL {name} = '{_SESSION[name]}'" for name in ("jit", "lock_timeout"))
_SET_LOCAL_HOT = "; ".join([_SET_LOCAL, *(f"SET LOCAL {name} = '{value}'" for name, value in _HOT_PATH.items())])
_BESIDE_THE_LIMIT = 4  # connections of the hot path for rows that are written alone, see GroupCommit

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
    asyncpg.InvalidSQLStatementNameError,  # 26: see _MIXED_SESSIONS
    asyncpg.DuplicatePreparedStatementError,
)


# A statement was prepared in another session than the one that is to run it: a pooler gave us that.
_MIXED_SESSIONS = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)


class StoreUnavailable(Exception):
    """Postgres cannot be reached or cannot work now; nothing was wrong with what was asked."""


class StoreBusy(StoreUnavailable):
    """Postgres works, but could not do this in time: a lock that another session holds, a timeout, a deadlock."""


class _Connection(asyncpg.Connection):
    """A connection that notices within seconds that its packets do not arrive any more.

    It goes back to the pool as it is: we set nothing for longer than a transaction, and the four statements of a reset cost more
    than most of ours.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        transport: asyncio.Transport = given[1]  # the only way to the socket that asyncpg leaves
        _watch(transport.get_extra_info("socket"))

    def get_reset_query(self) -> str:
        """Nothing, see the class."""
        return ""


class Database:
    """Connections to one Postgres database: a pool for the hot path (moves and batched reads), and one for everything else.

    `limit` says when a transaction of the hot path may begin; `transactions` of them are in flight at most.

    With `through_pooler`, or where the URL says so, a pooler that gives each transaction another session (PgBouncer's transaction
    mode) may stand between: every use of a connection is then one transaction, statements are not prepared, and settings are
    made in each transaction.
    """

    def __init__(self, url: str, *, pool_size: int = 12, transactions: int = 2, through_pooler: bool = False) -> None:
        """Raises ValueError for a URL that cannot be read."""
        self._target = read_target(url)
        self._through_pooler = through_pooler or self._target.through_pooler
        self._pool_size = pool_size
        self._hot_size = transactions + _BESIDE_THE_LIMIT
        self._pool: _Pool | None = None
        self._hot: _Pool | None = None
        self._full_at = -_FULL_FOR_S
        self.limit = TransactionLimit(transactions)

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
            self._pool = await self._connected(at_once=at_once, at_most=self._pool_size, settings={})
            self._hot = await self._connected(at_once=0, at_most=self._hot_size, settings=_HOT_PATH)

    async def _connected(self, *, at_once: int, at_most: int, settings: Mapping[str, str]) -> _Pool:
        return await asyncpg.create_pool(
            self._target.url,
            min_size=at_once,
            max_size=at_most,
            timeout=self._target.connect_timeout_s or _ACQUIRE_TIMEOUT_S,
            command_timeout=_COMMAND_TIMEOUT_S,
            connection_class=_Connection,
            server_settings={
                "application_name": "replyline",
                **({} if self._through_pooler else {**_SESSION, **settings}),
                **self._target.settings,
            },
            statement_cache_size=0 if self._through_pooler else _STATEMENTS_KEPT,
        )

    async def close(self) -> None:
        """Close every connection, waiting at most 5 seconds for those in use."""
        pools = [pool for pool in (self._pool, self._hot) if pool is not None]
        self._pool = self._hot = None
        try:
            async with asyncio.timeout(5):
                for pool in pools:
                    await pool.close()
        except TimeoutError:
            for pool in pools:
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction: each statement commits by itself, or, through a pooler, all at the end.

        Raises:
            StoreUnavailable: see there.
        """
        async with self._statements(self._pool, _SET_LOCAL) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction that commits at the end of the block, or rolls back on an error.

        Raises:
            StoreUnavailable: see there.
        """
        async with self._one_transaction(self._pool, _SET_LOCAL) as connection:
            yield connection

    @asynccontextmanager
    async def hot_connection(self) -> AsyncIterator[Connection]:
        """Like `connection`, for statements that find every row by an index: their plans do not depend on statistics."""
        async with self._statements(self._hot, _SET_LOCAL_HOT) as connection:
            yield connection

    @asynccontextmanager
    async def hot_transaction(self) -> AsyncIterator[Connection]:
        """Like `transaction`, for statements that find every row by an index: their plans do not depend on statistics."""
        async with self._one_transaction(self._hot, _SET_LOCAL_HOT) as connection:
            yield connection

    @asynccontextmanager
    async def _statements(self, pool: "_Pool | None", set_local: str) -> AsyncIterator[Connection]:
        if self._through_pooler:
            async with self._one_transaction(pool, set_local) as connection:
                yield connection
        else:
            async with self._acquired(pool) as connection:
                yield connection

    @asynccontextmanager
    async def _one_transaction(self, pool: "_Pool | None", set_local: str) -> AsyncIterator[Connection]:
        async with self._acquired(pool) as connection, connection.transaction():
            if self._through_pooler:
                await connection.execute(set_local)
            yield connection

    @asynccontextmanager
    async def _acquired(self, pool: "_Pool | None") -> AsyncIterator[Connection]:
        if pool is None:
            raise StoreUnavailable("the database is not open")
        with _translated():
            try:
                async with pool.acquire(timeout=_ACQUIRE_TIMEOUT_S) as connection:
                    yield connection
            except asyncpg.DiskFullError:
                self._full_at = time.monotonic()
                raise
            except asyncpg.ReadOnlySQLTransactionError:
                if self._target.has_several_hosts:  # another one may be the primary by now
                    await pool.expire_connections()
                raise


class _translated:
    """Turns every sign that Postgres cannot work now into StoreUnavailable, and leaves all other errors alone."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _BUSY):
            raise StoreBusy(f"Postgres could not do this in time: {described(error)}") from error
        if error is not None and concerns_the_store(error):
            raise StoreUnavailable(f"Postgres is not available: {described(error)}") from error


def concerns_the_store(error: BaseException) -> bool:
    """Whether an error says how Postgres is; every other one is about the rows that were written."""
    # asyncpg's complaint about an argument of the wrong type is an InterfaceError too, but it is our bug, not an outage. A
    # certificate that does not fit is a ValueError as well.
    is_bug = isinstance(error, ValueError) and not isinstance(error, ssl.SSLError)
    return isinstance(error, (*_BUSY, *_UNAVAILABLE)) and not is_bug


def described(error: BaseException) -> str:
    """An error of Postgres or the driver in one line, with what to change where a setting is wrong."""
    said = str(error).partition("\n")[0] if isinstance(error, asyncpg.PostgresError) else ""
    told = f"{type(error).__name__}: {said}" if said else type(error).__name__
    remedy = _remedy(error, said)
    return f"{told}; {remedy}" if remedy else told


def _remedy(error: BaseException, said: str) -> str | None:
    """What to change, where it is a setting that is wrong and not Postgres that is away."""
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return "correct the user or the password in DATABASE_URL, or what the server's pg_hba.conf lets in"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "create the database, or correct its name in DATABASE_URL"
    if isinstance(error, ssl.SSLError):
        return f"correct sslmode, sslrootcert or the host's name in DATABASE_URL ({error})"
    if "unsupported startup parameter" in said or isinstance(error, _MIXED_SESSIONS):
        return "a pooler such as PgBouncer stands between: set REPLYLINE_DATABASE_POOLER=true"
    return None


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

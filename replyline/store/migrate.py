"""Bring a database to the newest schema; safe to run from many processes at once."""

import asyncio
import uuid
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from replyline.store.target import read_target

_LOCK = 0x7265706C79  # "reply": one migration at a time, whoever starts it
_LOCK_TIMEOUT_S = 60
_LOCK_AGAIN_S = 0.2
_CONNECT_TIMEOUT_S = 10.0


def migrate(url: str, *, to: str = "head") -> None:
    """Apply what is missing to the database at `url` (postgresql://…), up to the migration `to`, by default the newest.

    Raises:
        ValueError: the URL cannot be read.
        OSError, asyncpg.PostgresError, sqlalchemy.exc.DBAPIError: the database cannot be reached, or another session held a
            table's lock for over 60 s.
        TimeoutError: another migration ran for over 60 s.
    """
    asyncio.run(_migrate(url, to))


async def _migrate(url: str, to: str) -> None:
    target = read_target(url)

    async def connect(*_: object, **__: object) -> asyncpg.Connection:
        # The driver reads the URL itself, as the app's does. Nothing is cached: a pooler may stand between.
        return await asyncpg.connect(
            target.url,
            server_settings={"application_name": "replyline migrate", **target.settings},
            statement_cache_size=0,
            timeout=target.connect_timeout_s or _CONNECT_TIMEOUT_S,
        )

    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        connect_args={
            "async_creator_fn": connect,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"replyline_migrate_{uuid.uuid4().hex}",
        },
    )
    try:
        async with engine.begin() as guard:
            await _be_alone(guard)
            async with engine.connect() as connection:
                await connection.run_sync(_upgrade, to)
    finally:
        await engine.dispose()


async def _be_alone(guard: AsyncConnection) -> None:
    """Take the lock, which goes with the transaction of `guard`.

    It is asked for again and again rather than waited for: whoever waits inside a statement has a snapshot, and an index that is
    made CONCURRENTLY waits until all older snapshots are gone.
    """
    async with asyncio.timeout(_LOCK_TIMEOUT_S):
        while not await guard.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK}):  # noqa: ASYNC110
            await asyncio.sleep(_LOCK_AGAIN_S)
    # The driver leaves the portal of the last statement open, and with it its snapshot; one that needs none takes its place.
    await guard.execute(text("SET LOCAL lock_timeout = 0"))


def _upgrade(connection: Connection, to: str) -> None:
    event.listen(connection, "begin", _do_not_wait_long)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _do_not_wait_long(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")

"""One real Valkey and one real Postgres for the whole run; each test process has a database of its own in both."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import redis

from replyline.embedded import EmbeddedPostgres, EmbeddedValkey
from replyline.store.database import Database
from replyline.store.migrate import migrate

_TEMPLATE = "template_migrated"
_EVERYTHING = (
    "customers, jobs, finished_jobs, dead_jobs, customers_to_erase, customer_deletions, "
    "files_to_delete, sessions_to_delete, audit_events"
)
_LEFT_OUT = ("REDIS_", "REPLYLINE_", "DATABASE_URL")


class _Servers:
    """What the first process of a run starts and the others are told of."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="replyline-tests-"))
        self.folder.chmod(0o711)  # started by root, Postgres runs as somebody else, who must get through
        self.valkey = EmbeddedValkey(self.folder)
        self.postgres = EmbeddedPostgres(self.folder, unsafe_fast=True)

    def start(self) -> None:
        asyncio.run(self._start())
        migrate(self.postgres.url)
        asyncio.run(_run(_database(self.postgres.url, "postgres"), f"ALTER DATABASE replyline RENAME TO {_TEMPLATE}"))

    async def _start(self) -> None:
        await self.valkey.start()
        await self.postgres.start()

    def stop(self) -> None:
        asyncio.run(self._stop())
        shutil.rmtree(self.folder)

    async def _stop(self) -> None:
        await self.postgres.stop()
        await self.valkey.stop()


_servers: _Servers | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much chaos."""
    parser.addoption("--chaos-full", action="store_true", help="the long form of tests/chaos")


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers, in the process that is not a worker of another."""
    global _servers  # noqa: PLW0603  pytest's hooks have no other place to keep it
    for name in list(os.environ):
        if name.startswith(_LEFT_OUT):  # what this machine runs must not reach the tests
            del os.environ[name]
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    _servers = _Servers()
    _servers.start()


def pytest_configure_node(node: "object") -> None:
    """Tell an xdist worker where the servers are."""
    if _servers is not None:
        told = node.workerinput  # type: ignore[attr-defined]  # xdist has no types
        told["valkey"], told["postgres"] = _servers.valkey.url, _servers.postgres.url


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers that this process started."""
    global _servers
    servers, _servers = _servers, None
    if servers is not None:
        servers.stop()


@pytest.fixture(scope="session")
def _server_urls(request: pytest.FixtureRequest) -> tuple[str, str]:
    told = getattr(request.config, "workerinput", None)
    if told is not None:
        return told["valkey"], told["postgres"]
    if _servers is None:
        raise RuntimeError("the servers were not started")
    return _servers.valkey.url, _servers.postgres.url


@pytest.fixture(scope="session")
def _own_database(_server_urls: tuple[str, str], worker_id: str) -> Iterator[str]:
    with _made(_server_urls[1], f"test_{worker_id}") as url:
        yield url


@pytest.fixture(scope="session")
def kept_database_url(_server_urls: tuple[str, str], worker_id: str) -> Iterator[str]:
    """Another migrated Postgres database of this process, which is not emptied before each test."""
    with _made(_server_urls[1], f"kept_{worker_id}") as url:
        yield url


@contextmanager
def _made(server_url: str, name: str) -> Iterator[str]:
    server = _database(server_url, "postgres")
    asyncio.run(_run(server, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}"))
    yield _database(server, name)
    asyncio.run(_run(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def database_url(_own_database: str) -> str:
    """A migrated Postgres database of this process, empty."""
    await _run(_own_database, "TRUNCATE " + _EVERYTHING + " CASCADE")
    return _own_database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The same, open."""
    opened = Database(database_url, pool_size=8)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def valkey_url(_server_urls: tuple[str, str], worker_id: str) -> str:
    """A Valkey with a logical database of this process, empty."""
    number = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
    url = f"{_server_urls[0].partition('?')[0]}?db={number}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


async def _run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))

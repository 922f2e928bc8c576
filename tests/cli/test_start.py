"""`replyline start --demo` as a new user has it: up, tried, stopped, started again with the same data."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.waiting import until


class _Start:
    """One run of the command in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        return {**os.environ, "REPLYLINE_PORT": "0", "REPLYLINE_DATA": str(self.folder / "data"), "COLUMNS": "80"}

    async def start(self) -> dict[str, object]:
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(  # noqa: ASYNC220  its pipes are files
            [sys.executable, "-m", "replyline", "start", "--demo"],
            env=self.environment(),
            cwd=self.folder,
            stdout=log,
            stderr=log,
        )
        log.close()
        await until(self.ready, timeout_s=60, what="ready.json")
        return self.ready()

    def ready(self) -> dict[str, object]:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        file = self.folder / "data" / "ready.json"
        found: dict[str, object] = json.loads(file.read_text()) if file.exists() else {}
        return found

    async def run(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "replyline",
            *arguments,
            env=self.environment(),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def stop(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 60)


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[_Start]:
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(0o711)
    start = _Start(tmp_path)
    yield start
    if start.process is not None and start.process.poll() is None:
        await start.stop(signal.SIGKILL)


async def test_the_demo_answers_on_all_channels_and_is_the_same_after_a_restart(started: _Start) -> None:
    ready = await started.start()
    assert stat.S_IMODE((started.folder / "data" / "ready.json").stat().st_mode) == 0o600
    assert {"pid", "api", "redis_url", "database_url", "admin_key", "standins", "demo"} == set(ready) - {"gateway"}
    assert stat.S_IMODE((started.folder / "data" / "admin.key").stat().st_mode) == 0o600
    operator = {"Authorization": f"Bearer {ready['admin_key']}"}
    async with (
        aiohttp.ClientSession(str(ready["api"]), headers=operator) as http,
        http.get("/v1/customers") as response,
    ):
        assert response.status == 200
    for channel in ("WIDGET", "WHATSAPP_CLOUD", "WHATSAPP_QR"):
        code, output = await started.run("send", "--channel", channel, "--json", "When are you open?")
        assert code == 0, output
        followed = json.loads(output)
        assert followed["delivered"] is True
        assert "Tuesday to Saturday" in followed["reply"]
    code, output = await started.run("trace", "--json", followed["message_id"])
    assert code == 0, output
    queues = [job["queue"] for job in json.loads(output)["jobs"]]
    assert {"incoming-messages", "ai-processing", "outgoing-messages", "whatsapp-qr-send", "webhook-delivery"} == set(
        queues
    )
    code, output = await started.run("queues", "--json")
    assert code == 0, output
    assert {row["queue"]: row["completed"] for row in json.loads(output)}["incoming-messages"] == 3
    assert await started.run("dead-letters", "list") == (0, "no dead letters\n")
    async with aiohttp.ClientSession(str(ready["api"])) as http:
        for path, kind in (
            ("/demo", "text/html"),
            ("/demo/setup", "application/json"),
            ("/widget.js", "text/javascript"),
        ):
            async with http.get(path) as response:
                assert (response.status, response.content_type) == (200, kind)
    code, output = await started.run("redis-cli", "HGET", "bull:incoming-messages:meta", "opts.maxLenEvents")
    assert (code, output.strip()) == (0, "10000")

    assert await started.stop(signal.SIGTERM) == 0
    assert not (started.folder / "data" / "ready.json").exists()
    said = (started.folder / "log").read_text()
    assert f"replyline channels session {_telephone(started.folder)} start\n" in said or "Telephone   none" in said
    again = await started.start()
    assert (again["demo"], again["admin_key"]) == (ready["demo"], ready["admin_key"])
    code, output = await started.run("trace", followed["message_id"])
    assert code == 0, output


def _telephone(folder: Path) -> str:
    return str(json.loads((folder / "data" / "demo.json").read_text())["telephone_channel"])


async def test_a_telephone_is_paired_by_the_picture_in_the_terminal(started: _Start) -> None:
    ready = await started.start()
    demo, standins = ready["demo"], ready["standins"]
    assert isinstance(demo, dict)
    assert isinstance(standins, dict)
    customer = ("--customer", demo["customer_id"])
    code, output = await started.run("channels", "list", "--json", *customer)
    assert code == 0, output
    channel = next(row for row in json.loads(output) if row["external_id"] == "demo")
    code, output = await started.run("channels", "session", channel["id"], *customer, "logout")
    assert (code, "logged_out" in output) == (0, True), output

    pairing = asyncio.create_task(started.run("channels", "session", channel["id"], *customer, "start"))

    async def is_offered() -> bool:
        code, output = await started.run("channels", "session", channel["id"], *customer, "--json")
        assert code == 0, output
        return bool(json.loads(output)["state"] == "qr")

    await until(is_offered, timeout_s=30, what="a code to scan")
    scan = {"session": "demo", "phone": "4915112345678"}
    async with aiohttp.ClientSession() as http, http.post(f"{standins['qr_gateway']}/_scan", json=scan) as answer:
        assert answer.status == 200
    code, output = await pairing
    assert code == 0, output
    picture = [line for line in output.splitlines() if set("\u2580\u2584\u2588") & set(line)]
    assert len(picture) >= 11, output  # the smallest code has 21 rows of modules, two to a line
    assert "paired with 4915112345678" in output


async def test_everything_goes_with_a_start_that_is_killed(started: _Start) -> None:
    ready = await started.start()
    assert await started.stop(signal.SIGKILL) == -signal.SIGKILL
    mark = str(started.folder)

    def left() -> list[str]:
        return [words for pid in Path("/proc").iterdir() if pid.name.isdigit() and mark in (words := _command(pid))]

    await until(lambda: not left(), timeout_s=30, what="the end of all children")
    assert ready["pid"]
    code, output = await started.run("queues")
    assert code == 2
    assert "nothing is running" in output


def _command(process: Path) -> str:
    """Its command line and environment: both name the folder of the test."""
    try:
        if (process / "stat").read_text().split(")")[1].split()[0] == "Z":
            return ""
        return ((process / "cmdline").read_bytes() + (process / "environ").read_bytes()).decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""  # it ended while we looked, or is somebody else's

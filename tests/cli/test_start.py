"""`replyline start --demo` as a new user has it: up, tried, stopped, started again with the same data."""

import asyncio
import json
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.cli.starting import Start, starting
from tests.waiting import until


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Start]:
    async with starting(tmp_path) as start:
        yield start


async def test_the_demo_answers_on_all_channels_and_is_the_same_after_a_restart(started: Start) -> None:
    ready = await started.start()
    assert stat.S_IMODE((started.folder / "data" / "ready.json").stat().st_mode) == 0o600
    names = {"pid", "api", "redis_url", "embedded_redis", "database_url", "admin_key", "standins", "demo"}
    assert names == set(ready) - {"gateway"}
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
    await _break(started, str(ready["api"]))

    assert await started.stop(signal.SIGTERM) == 0
    assert not (started.folder / "data" / "ready.json").exists()
    said = (started.folder / "log").read_text()
    assert f"replyline channels session {_telephone(started.folder)} start\n" in said or "Telephone   none" in said
    again = await started.start()
    assert (again["demo"], again["admin_key"]) == (ready["demo"], ready["admin_key"])
    code, output = await started.run("trace", followed["message_id"])
    assert code == 0, output


async def _break(started: Start, api: str) -> None:
    """A worker killed and Redis emptied from the demo's page: what is written next is answered."""
    worker = started.folder / "data" / "processes" / "worker-0.pid"
    before = worker.read_text()
    async with aiohttp.ClientSession(api, headers={"Origin": api}) as http:
        for path in ("/demo/worker/kill", "/demo/redis/wipe"):
            async with http.post(path) as response:
                assert response.status == 204, await response.text()
    code, output = await started.run("send", "--channel", "WHATSAPP_CLOUD", "--json", "--timeout", "50", "Open?")
    assert code == 0, output
    assert json.loads(output)["delivered"] is True
    assert worker.read_text() != before, "another process works"


def _telephone(folder: Path) -> str:
    return str(json.loads((folder / "data" / "demo.json").read_text())["telephone_channel"])


async def test_a_telephone_is_paired_by_the_picture_in_the_terminal(started: Start) -> None:
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


async def test_everything_goes_with_a_start_that_is_killed(started: Start) -> None:
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

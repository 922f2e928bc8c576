"""The processes that `replyline start` runs beside the servers: stand-ins, API and workers, started again if they end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from replyline.cli.gateway import Gateway
from replyline.cli.running import CommandFailed, Exit
from replyline.embedded.folder import open_lock_file
from replyline.embedded.spawn import Streams, spawn
from replyline.environment import of_this_machine
from replyline.settings import Settings

log = structlog.get_logger(__name__)

_KILLED_S = 5.0
_LOOK_EVERY_S = 0.05
_STEADY_S = 10.0
_LONGEST_PAUSE_S = 15.0


@dataclass
class _Child:
    name: str
    command: list[str]
    process: "subprocess.Popen[bytes]"
    environment: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    quick_ends: int = 0
    again_at: float = 0.0


class Children:
    """Our own processes. The kernel ends them with SIGTERM when this process is gone, however it went."""

    def __init__(self, settings: Settings, *, port: int, demo: bool) -> None:
        self._settings = settings
        self._port = port
        self._demo = demo
        self._children: list[_Child] = []
        self.standins: dict[str, str] = {}
        """Where the stand-ins are, once they are up."""

    async def start_standins(self, timeout_s: float) -> dict[str, str]:
        """Start the stand-ins and return their addresses."""
        child = self._start("standins", ["standins"], stdout=subprocess.PIPE)
        self.standins = json.loads(await self._first_line(child, timeout_s))
        # Started again after a crash, they must be where everything was told they are.
        for name, url in self.standins.items():
            child.command += ["--port", f"{name}={url.rpartition(':')[2]}"]
        return self.standins

    async def start_gateway(self, gateway: Gateway, timeout_s: float) -> str:
        """Start the QR gateway and return its address."""
        environment = {**of_this_machine(), **gateway.environment(0)}
        child = self._start_command("gateway", gateway.command, environment, stdout=subprocess.PIPE)
        url = str(json.loads(await self._first_line(child, timeout_s))["url"])
        child.environment["GATEWAY_PORT"] = url.rpartition(":")[2]
        return url

    def give_up(self, name: str) -> None:
        """Run no more what did not come up."""
        for child in self._children:
            if child.name == name and child.process.poll() is None:
                child.process.kill()
        self._children = [child for child in self._children if child.name != name]

    async def start_serving(self) -> None:
        """Start the API and the workers."""
        self._start("api", ["api", "--port", str(self._port)])
        for number in range(self._settings.worker_processes):
            self._start(f"worker-{number}", ["worker"])

    def check_first_start(self) -> None:
        """Raises CommandFailed if a child ended instead of coming up; it has said why on standard error."""
        for child in self._children:
            if child.process.poll() is not None:
                raise CommandFailed(f"{child.name} ended with code {child.process.returncode}", Exit.UNAVAILABLE)

    def kill_a_worker_if_asked(self) -> None:
        """SIGKILL one worker where the demo's page asked for it; `revive` starts another."""
        if not self._demo or not self._settings.kill_request_file.exists():
            return
        workers = [
            child for child in self._children if child.name.startswith("worker-") and child.process.poll() is None
        ]
        if workers:  # else the request waits for one that runs
            log.warning("start.worker_killed_on_request", child=workers[0].name, pid=workers[0].process.pid)
            workers[0].process.kill()
            self._settings.kill_request_file.unlink(missing_ok=True)

    async def revive(self) -> None:
        """Start again what ended; one that ends again and again waits longer each time, up to 15 s."""
        now = time.monotonic()
        for index, child in enumerate(self._children):
            if child.process.poll() is None:
                continue
            if not child.again_at:
                quick = child.quick_ends + 1 if now - child.started < _STEADY_S else 0
                pause = min(_LONGEST_PAUSE_S, 0.25 * 2**quick)
                log.error("start.child_ended", child=child.name, code=child.process.returncode, again_in_s=pause)
                child.quick_ends, child.again_at = quick, now + pause
            if now >= child.again_at:
                quiet = subprocess.DEVNULL if child.name in {"standins", "gateway"} else None
                process = self._spawn(child.name, child.command, child.environment, quiet)
                self._children[index] = _Child(
                    child.name, child.command, process, child.environment, quick_ends=child.quick_ends
                )

    async def stop(self, drain_s: float) -> None:
        """SIGTERM to all: the door first, so that nothing new comes, then the workers, then what they talk to."""
        for prefix, patience_s in (("api", 10.0), ("worker", drain_s + 10.0), ("gateway", 6.0), ("standins", 5.0)):
            group = [child.process for child in self._children if child.name.startswith(prefix)]
            for process in group:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            await _all_ended(group, patience_s)
            for process in group:
                if process.poll() is None:
                    log.error("start.child_killed", child=prefix)
                    process.kill()
            await _all_ended(group, _KILLED_S)
            for process in group:
                if process.stdout is not None:
                    process.stdout.close()

    def _start(self, name: str, arguments: list[str], stdout: int | None = None) -> _Child:
        settings = self._settings
        if name == "standins":  # they play strangers: of our stores and keys they need none
            environment = {**of_this_machine(), "REPLYLINE_DATA": str(settings.data.absolute())}
            return self._start_command(name, [sys.executable, "-m", "replyline", *arguments], environment, stdout)
        environment = {
            **os.environ,
            "REDIS_URL": settings.redis_url or "",
            "DATABASE_URL": settings.database_url or "",
            "REPLYLINE_SECRET_KEY": settings.secret_key or "",
            "REPLYLINE_DATA": str(settings.data.absolute()),
            "REPLYLINE_PORT": str(self._port),
        }
        environment.pop("REPLYLINE_ADMIN_KEY", None)
        if name == "api":  # nobody else asks for the operator's key
            environment["REPLYLINE_ADMIN_KEY"] = settings.admin_key or ""
        if self._demo:  # the demo customer's endpoint is on loopback, which webhooks refuse otherwise
            environment["REPLYLINE_WEBHOOK_ALLOW_PRIVATE"] = "true"
        return self._start_command(name, [sys.executable, "-m", "replyline", *arguments], environment, stdout)

    def _start_command(
        self, name: str, command: list[str], environment: dict[str, str], stdout: int | None = None
    ) -> _Child:
        child = _Child(name, command, self._spawn(name, command, environment, stdout), environment)
        self._children.append(child)
        return child

    def _spawn(
        self, name: str, command: list[str], environment: dict[str, str], stdout: int | None
    ) -> "subprocess.Popen[bytes]":
        settings = self._settings
        lock = open_lock_file(settings.data / "processes", f"{name}.pid")
        try:
            process, _ = spawn(
                command,
                death_signal=signal.SIGTERM,
                lock=lock,
                account=None,
                environment=environment,
                streams=Streams(stdout=stdout),
                folder=str(Path.cwd()),
            )
        finally:
            os.close(lock)
        return process

    async def _first_line(self, child: _Child, timeout_s: float) -> bytes:
        stream = child.process.stdout
        if stream is None:
            raise RuntimeError(f"{child.name} was started without a pipe")
        try:
            async with asyncio.timeout(timeout_s):
                line = await asyncio.to_thread(stream.readline)
        except TimeoutError:
            child.process.kill()
            raise CommandFailed(f"{child.name} did not come up in {timeout_s:g} s", Exit.UNAVAILABLE) from None
        if not line:
            raise CommandFailed(f"{child.name} ended instead of coming up", Exit.UNAVAILABLE)
        return line


async def _all_ended(processes: "list[subprocess.Popen[bytes]]", patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:  # noqa: ASYNC110  no event tells
        await asyncio.sleep(_LOOK_EVERY_S)

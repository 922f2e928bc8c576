"""`replyline start --demo` as a process, in a folder of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.waiting import until


class Start:
    """One run of the command in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        """What every command is run with."""
        return {**os.environ, "REPLYLINE_PORT": "0", "REPLYLINE_DATA": str(self.folder / "data"), "COLUMNS": "80"}

    async def start(self) -> dict[str, object]:
        """Start it, and give what ready.json says."""
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
        """What ready.json says; nothing before it is up."""
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        file = self.folder / "data" / "ready.json"
        found: dict[str, object] = json.loads(file.read_text()) if file.exists() else {}
        return found

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command beside it: its exit code, and what it wrote."""
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
        """End it by a signal, and give its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 60)


@asynccontextmanager
async def starting(folder: Path) -> AsyncIterator[Start]:
    """A start that is not made yet; whatever was started is gone at the end of the block."""
    for parent in (folder, *list(folder.parents)[:2]):
        parent.chmod(0o711)  # started by root, Postgres runs as somebody else, who must get through
    start = Start(folder)
    try:
        yield start
    finally:
        if start.process is not None and start.process.poll() is None:
            await start.stop(signal.SIGKILL)

"""The parts of the Node application in `src/`, each started as a process of its own."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent
_START_S = 60.0
_RUN_S = 120.0


def need_application() -> None:
    """Skip the test where the application is not installed; fail it there in CI."""
    if shutil.which("node") is None or not (_FOLDER / "node_modules" / "@nestjs" / "bullmq").is_dir():
        missing = "the NestJS application of tests/interop is not installed: run `make node`"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


async def run(part: str, redis_url: str, **environment: str) -> None:
    """Run a part that ends by itself."""
    process = await _process(part, redis_url, environment)
    try:
        assert await asyncio.wait_for(process.wait(), _RUN_S) == 0
    finally:
        await _end(process)


@asynccontextmanager
async def running(part: str, redis_url: str, **environment: str) -> AsyncIterator[str]:
    """A part that runs until the end of the block, and what it says when it is up."""
    process, told = await start(part, redis_url, **environment)
    try:
        yield told
    finally:
        await _end(process)


async def start(part: str, redis_url: str, **environment: str) -> tuple[asyncio.subprocess.Process, str]:
    """Start a part that runs on; gives it, and what it says when it is up."""
    process = await _process(part, redis_url, environment)
    assert process.stdout is not None
    told = (await asyncio.wait_for(process.stdout.readline(), _START_S)).decode().strip()
    assert told, f"{part} ended before it was up"
    return process, told


async def kill(process: asyncio.subprocess.Process) -> None:
    """SIGKILL a part, and see it gone."""
    assert process.returncode is None, f"it had ended with {process.returncode}"
    await _end(process)


async def _process(part: str, redis_url: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("node", "--import", "tsx", f"src/{part}.ts"),
        cwd=_FOLDER,
        env={"PATH": os.environ["PATH"], "REDIS_URL": redis_url, **environment},
        stdout=asyncio.subprocess.PIPE,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()

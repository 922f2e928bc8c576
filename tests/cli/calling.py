"""Calling the command line in a process of its own, with the stores of the test."""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from tests.make import SECRET_KEY

_ANSWERS_S = 60.0


class Called(msgspec.Struct):
    """How one call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        """What it printed, which must be one JSON document."""
        assert self.code == 0, self
        return json.loads(self.out)


class Caller:
    """One process that runs command after command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self, line: str) -> Called:
        """Run `line` as a shell would split it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(shlex.split(line)).encode() + b"\n")
        async with asyncio.timeout(_ANSWERS_S):
            return msgspec.json.decode(await self._process.stdout.readline(), type=Called)


def stores(valkey_url: str, database_url: str, data: Path) -> dict[str, str]:
    """The environment of a command that is to find the test's stores."""
    return {
        **os.environ,
        "REDIS_URL": valkey_url,
        "DATABASE_URL": database_url,
        "REPLYLINE_SECRET_KEY": SECRET_KEY,
        "REPLYLINE_DATA": str(data),
        "REPLYLINE_DATABASE_POOL": "4",
        "REPLYLINE_WEBHOOK_ALLOW_PRIVATE": "true",
    }


@asynccontextmanager
async def calling(valkey_url: str, database_url: str, data: Path, **environment: str) -> AsyncIterator[Caller]:
    """A caller whose commands find the test's stores; `environment` comes on top."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.cli.driver",
        env={**stores(valkey_url, database_url, data), **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
    )
    try:
        yield Caller(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), _ANSWERS_S)

"""Asking BullMQ for Node, and reading what a queue's keys hold without what must differ from run to run."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.broker.scene import Client

FOLDER = Path(__file__).parent
_ANSWER_S = 20.0
_TIMES = {"timestamp", "processedOn", "finishedOn", "prevTS", "prevCount"}
# The numbers of each minute; `metrics:completed` counts what they are made of.
_METRICS = re.compile(r"metrics:(completed|failed):data")

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


def need_node() -> None:
    """Skip the test where BullMQ for Node is not installed; fail it there in CI."""
    if shutil.which("node") is None or not (FOLDER / "node_modules" / "bullmq").is_dir():
        missing = "BullMQ for Node is not installed: run `make node`"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


async def ask(role: str, url: str, queue: str, scenario: str = "") -> Json:
    """Let Node do one thing, and return what it says."""
    async with node(role, url, queue, scenario) as process:
        answer = await line(process)
        assert await asyncio.wait_for(process.wait(), _ANSWER_S) == 0
        return answer


@asynccontextmanager
async def node(role: str, url: str, queue: str, scenario: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """A Node process in that role; it is gone at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *("node", str(FOLDER / "node.mjs"), role, json.dumps(_endpoint(url)), queue, scenario),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )
    try:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), _ANSWER_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line(process: asyncio.subprocess.Process) -> Json:
    """What it says next."""
    assert process.stdout is not None
    told = await asyncio.wait_for(process.stdout.readline(), _ANSWER_S)
    assert told, "Node ended without an answer"
    answer: Json = json.loads(told)
    return answer


async def left_behind(redis: Client, queue: str) -> Mapping[str, object]:
    """Every key of a queue with its type and content.

    Left out is what depends on the moment and not on the protocol: clock times, the marker (a sign that is taken or not yet
    taken), the stalled check's timer, the minutes of the metrics, the version that a Node `Queue` writes about itself, and the
    `jobId` in the options that repeats the id.
    """
    prefix = f"bull:{queue}:"
    found: dict[str, object] = {}
    for key in sorted(await redis.keys(f"{prefix}*")):
        name = key.removeprefix(prefix)
        if name not in {"marker", "stalled-check"} and not _METRICS.fullmatch(name):
            found[name] = await _content(redis, key, name)
    return found


async def _content(redis: Client, key: str, name: str) -> object:
    kind = await redis.type(key)  # type: ignore[no-untyped-call]  # redis-py has no type for it
    match kind:
        case "hash":
            return kind, _hash(await redis.hgetall(key))
        case "list":
            return kind, await redis.lrange(key, 0, -1)
        case "zset":
            timed = name in {"completed", "failed", "delayed"}
            entries = await redis.zrange(key, 0, -1, withscores=True)
            return kind, [member if timed else (member, score) for member, score in entries]
        case "set":
            return kind, sorted(await redis.smembers(key))
        case "stream":
            return kind, [_event(event) for _, event in await redis.xrange(key)]
        case _:
            return kind, await redis.get(key)


def _hash(fields: Mapping[str, str]) -> Mapping[str, object]:
    shown: dict[str, object] = dict(fields)
    for name in _TIMES & shown.keys():
        shown[name] = "a time"
    if "opts" in fields:
        options = json.loads(fields["opts"])
        shown["opts"] = {name: value for name, value in options.items() if name not in {"jobId", "timestamp", "delay"}}
        if "rjk" in fields:  # an iteration of a scheduler is delayed until its time
            shown["delay"] = "a time"
    if "stacktrace" in fields:  # the text is the language's own
        shown["stacktrace"] = len(json.loads(fields["stacktrace"]))
    shown.pop("version", None)
    return shown


def _event(event: Mapping[str, str]) -> Mapping[str, str]:
    return {**event, "delay": "a time"} if "delay" in event else event


def _endpoint(url: str) -> Mapping[str, str | int]:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return {"path": unquote(parts.path), "db": int(parse_qs(parts.query).get("db", ["0"])[0])}
    return {"host": parts.hostname or "", "port": parts.port or 6379, "db": int(parts.path.strip("/") or 0)}

"""Giving one contender one piece of work, in processes of its own, and reading what it cost."""

import asyncio
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import redis

from bench.queue import load
from bench.queue.load import Order

ROOT = Path(__file__).parents[2]
BULLMQ_HOME = ROOT / "tests" / "broker" / "conformance"
_CHILD_TIMEOUT_S = 180.0
# So much of the paced jobs goes before the count begins: else p99 shows compilers at work, not queues.
_WARM_UP_PART = 5

CONTENDERS = ("ours", "node", "stock")


@dataclass(frozen=True, slots=True)
class Rate:
    """Jobs a second, and processor seconds that 10,000 jobs cost the contender and Valkey."""

    per_s: float
    cpu_s: float
    valkey_cpu_s: float


@dataclass(frozen=True, slots=True)
class Pickup:
    """From the call that adds a job to the start of its handler, in milliseconds, and scripts run a job, its add included."""

    p50_ms: float
    p99_ms: float
    calls: float
    cpu_s: float


async def enqueue(contender: str, url: str, count: int) -> Rate:
    """Add `count` jobs to an empty queue, 64 at once."""
    _valkey(url).flushall()
    return await _rate(contender, Order("enqueue", url, count, 0, 0))


async def drain(contender: str, url: str, count: int, concurrency: int) -> Rate:
    """Work off the `count` jobs that wait."""
    return await _rate(contender, Order("drain", url, count, concurrency, 0))


async def pickup(contender: str, url: str, count: int, concurrency: int, rate: int) -> Pickup:
    """Add and handle `count` jobs, `rate` a second, in two processes."""
    client = _valkey(url)
    client.flushall()
    async with _child(contender, Order("listen", url, count, concurrency, 0)) as listener:
        await _line(listener)
        client.config_resetstat()
        async with _child(contender, Order("pace", url, count, 0, rate)) as producer:
            await _line(producer)
        measured = await _line(listener)
        calls = _script_calls(client)
        late = (await _line(listener)).late_ms
    late = sorted(late[len(late) // _WARM_UP_PART :])
    return Pickup(
        statistics.median(late),
        late[min(len(late) - 1, int(len(late) * 0.99))],
        calls / count,
        measured.cpu_s / count * 10_000,
    )


async def _rate(contender: str, order: Order) -> Rate:
    client = _valkey(order.url)
    before = _valkey_cpu(client)
    async with _child(contender, order) as child:
        measured = await _line(child)
        used = _valkey_cpu(client) - before
        await child.wait()
    per_10k = 10_000 / order.count
    return Rate(order.count / measured.seconds, measured.cpu_s * per_10k, used * per_10k)


@asynccontextmanager
async def _child(contender: str, order: Order) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *_command(contender),
        *order.words(),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=_environment(),
        limit=16 * 1024 * 1024,
    )
    try:
        yield process
        await asyncio.wait_for(process.wait(), _CHILD_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _command(contender: str) -> Sequence[str]:
    if contender == "node":
        return ("node", str(Path(__file__).with_name("node.mjs")))
    return (sys.executable, "-m", f"bench.queue.{contender}")


def _environment() -> dict[str, str]:
    said = {
        "queue": load.QUEUE,
        "inFlight": load.IN_FLIGHT,
        "priority": load.PRIORITY,
        "attempts": load.ATTEMPTS,
        "keepCompletedS": load.KEEP_COMPLETED_S,
        "keepFailedS": load.KEEP_FAILED_S,
        "payload": load.PAYLOAD,
    }
    return {**os.environ, "BULLMQ_HOME": str(BULLMQ_HOME), "BENCH_LOAD": json.dumps(said)}


class _Said(msgspec.Struct):
    """One line of a child, see `load.say`."""

    seconds: float
    cpu_s: float
    late_ms: list[float]


async def _line(child: asyncio.subprocess.Process) -> _Said:
    assert child.stdout is not None
    line = await asyncio.wait_for(child.stdout.readline(), _CHILD_TIMEOUT_S)
    if not line:
        raise RuntimeError("a contender ended before its work was done; see above for what it said")
    return msgspec.json.decode(line, type=_Said)


def _valkey(url: str) -> "redis.Redis[bytes]":
    return redis.Redis.from_url(url)


def _valkey_cpu(client: "redis.Redis[bytes]") -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def _script_calls(client: "redis.Redis[bytes]") -> int:
    stats = client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))

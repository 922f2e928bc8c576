"""`python -m bench.queue`: all contenders in turns, medians, and how they compare with BullMQ for Node."""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.queue import run
from bench.queue.run import BULLMQ_HOME, CONTENDERS
from replyline.embedded import EmbeddedValkey

_CONCURRENCY = 50
_PACE = 200
_SWEEP = (10, 200, 2000)
_SWEPT = ("ours", "node")


@dataclass(frozen=True, slots=True)
class Size:
    """How much work; `stock` is so slow that it gets a part of it."""

    repetitions: int
    count: int
    stock_count: int
    paced: int


_FULL = Size(repetitions=5, count=20_000, stock_count=5_000, paced=1_000)
_QUICK = Size(repetitions=1, count=5_000, stock_count=1_000, paced=400)

Samples = dict[str, dict[str, list[float]]]
"""Measure, contender, one number a repetition."""


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.queue", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short repetition")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE as well")
    asked = parser.parse_args()
    size = _QUICK if asked.quick else _FULL
    if not (BULLMQ_HOME / "node_modules").is_dir():
        parser.error("BullMQ for Node is not installed: run `make node`")
    samples = asyncio.run(_measure(size))
    if asked.json is not None:
        asked.json.write_text(json.dumps({"size": asdict(size), "samples": samples}, indent=1))
    _print(samples)


async def _measure(size: Size) -> Samples:
    samples: Samples = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as folder:
        valkey = EmbeddedValkey(Path(folder), port=0)
        await valkey.start()
        try:
            for number in range(size.repetitions):
                print(f"repetition {number + 1} of {size.repetitions}", flush=True)
                for contender in _shuffled(CONTENDERS):
                    await _rates(contender, valkey.url, size, samples)
                for contender in _shuffled(CONTENDERS):
                    await _pickup(contender, valkey.url, size.paced, _CONCURRENCY, samples)
                for concurrency in _SWEEP:
                    for contender in _shuffled(_SWEPT):
                        await _drain_at(contender, valkey.url, size.count, concurrency, samples)
                for contender in _shuffled(_SWEPT):
                    await _pickup(contender, valkey.url, size.paced, _SWEEP[-1], samples)
        finally:
            await valkey.stop()
    return samples


async def _rates(contender: str, url: str, size: Size, samples: Samples) -> None:
    count = size.stock_count if contender == "stock" else size.count
    added = await run.enqueue(contender, url, count)
    drained = await run.drain(contender, url, count, _CONCURRENCY)
    samples["enqueue, jobs/s"][contender].append(added.per_s)
    samples["drain, jobs/s"][contender].append(drained.per_s)
    samples["producer CPU, s per 10k jobs"][contender].append(added.cpu_s)
    samples["worker CPU, s per 10k jobs"][contender].append(drained.cpu_s)
    samples["Valkey CPU of the drain, s per 10k jobs"][contender].append(drained.valkey_cpu_s)


async def _pickup(contender: str, url: str, count: int, concurrency: int, samples: Samples) -> None:
    picked = await run.pickup(contender, url, count, concurrency, _PACE)
    note = "" if concurrency == _CONCURRENCY else f", concurrency {concurrency}"
    samples[f"pickup at {_PACE} jobs/s{note}, p50 ms"][contender].append(picked.p50_ms)
    samples[f"pickup at {_PACE} jobs/s{note}, p99 ms"][contender].append(picked.p99_ms)
    samples[f"script calls a job at {_PACE} jobs/s{note}"][contender].append(picked.calls)
    samples[f"worker CPU at {_PACE} jobs/s{note}, s per 10k jobs"][contender].append(picked.cpu_s)


async def _drain_at(contender: str, url: str, count: int, concurrency: int, samples: Samples) -> None:
    await run.enqueue("ours", url, count)
    drained = await run.drain(contender, url, count, concurrency)
    samples[f"worker CPU at concurrency {concurrency}, s per 10k jobs"][contender].append(drained.cpu_s)
    samples[f"drain at concurrency {concurrency}, jobs/s"][contender].append(drained.per_s)


def _shuffled(contenders: Sequence[str]) -> Sequence[str]:
    return random.sample(contenders, len(contenders))


def _print(samples: Samples) -> None:
    width = max(len(measure) for measure in samples)
    print(
        f"\n{'median (lowest-highest)':{width}}"
        + "".join(f"{name:>30}" for name in CONTENDERS)
        + f"{'ours / node':>14}"
    )
    for measure, by_contender in samples.items():
        cells = "".join(f"{_cell(by_contender.get(name, ())):>30}" for name in CONTENDERS)
        # Of neighbours in time, then the median: a machine that was busy for a while slowed both.
        ratio = statistics.median(a / b for a, b in zip(by_contender["ours"], by_contender["node"], strict=True))
        print(f"{measure:{width}}{cells}{ratio:>14.2f}")


def _cell(numbers: Iterable[float]) -> str:
    found = list(numbers)
    if not found:
        return "-"
    middle, low, high = (_short(number) for number in (statistics.median(found), min(found), max(found)))
    return middle if len(found) == 1 else f"{middle} ({low}-{high})"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2f}"


if __name__ == "__main__":
    main()

"""`python -m bench.streams [--connections N] [--seconds S]`: the widget's open pages: memory, delays, CPU, slow ones, counts."""

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import uvloop
from rich.console import Console
from rich.table import Table

from bench.streams_load import (
    INTERVAL_S,
    Delays,
    Driver,
    Faults,
    count_messages,
    count_pieces,
    delays,
    delays_of_messages,
    delays_of_pieces,
)
from bench.streams_stage import Memory, Stage
from bench.streams_wire import Close, Cut, Hear, Open, Seen
from replyline.web.widget.listener import MOST_LIVE_BYTES

_MESSAGES_A_SECOND = 50
_ANSWERS = 20
"""Written at once, a piece each INTERVAL_S."""
_SLOW = 50
_MOST_SLOW_S = 30.0
"""Who takes nothing for a minute is let go, which is not what is measured here."""
_SHARE_CUT = 0.2
_CUT_CHANCE = 0.3
_ROUNDS = 3
_IDLE_S = 31.0
_SETTLE_S = 2.0
_ARRIVE_WITHIN_S = 15.0


@dataclass
class Report:
    """What one run found; delays in seconds, memory in bytes, CPU in seconds."""

    connections: int
    before: Memory | None = None
    rounds: list[tuple[Memory, Memory]] = field(default_factory=list)
    """With all open, and after they were closed."""
    idle: float = 0.0
    """CPU seconds a second, with all pages open and nothing to tell them."""
    idle_without: float = 0.0
    messages: Delays | None = None
    messages_cpu: float = 0.0
    """A message, beside what idling takes."""
    with_cuts: Delays | None = None
    over_cuts: Delays | None = None
    cuts: int = 0
    pieces: Delays | None = None
    pieces_cpu: float = 0.0
    beside_fast: Delays | None = None
    beside_slow: Delays | None = None
    poured: int = 0
    slow_memory: float = 0.0
    """Held for a page that reads nothing, beside one that reads."""
    dropped: float = 0.0
    faults: Faults = field(default_factory=Faults)
    seen: int = 0
    late: Delays | None = None
    """Of the driver itself, which only has to wake up: how busy the machine was."""


class Bench:
    """One run."""

    def __init__(self, stage: Stage, connections: int, seconds: float) -> None:
        self._stage = stage
        self._seconds = seconds
        self._all = list(range(connections))
        self._slow = list(range(connections, connections + _SLOW))
        self._driver: Driver
        self.report = Report(connections)

    async def run(self) -> Report:
        """Everything, one after the other."""
        conversations = await self._stage.begin(len(self._all) + _SLOW)
        self._driver = await Driver.of(self._stage, conversations)
        await self._memory()
        await self._idle()
        await self._messages()
        await self._messages_with_cuts()
        await self._pieces()
        await self._slow_pages()
        await self._count()
        return self.report

    async def _memory(self) -> None:
        """Open all and close all, a few times; the first few warm up."""
        await self._open(self._all[:_SLOW])
        await self._close(self._all[:_SLOW])
        idle_from = self._stage.cpu_s()
        await asyncio.sleep(_SETTLE_S)
        self.report.idle_without = (self._stage.cpu_s() - idle_from) / _SETTLE_S
        self.report.before = self._stage.memory()
        for _ in range(_ROUNDS):
            await self._open(self._all)
            await asyncio.sleep(_SETTLE_S)
            full = self._stage.memory()
            await self._close(self._all)
            await asyncio.sleep(_SETTLE_S)
            self.report.rounds.append((full, self._stage.memory()))

    async def _open(self, pages: Sequence[int], *, deaf: bool = False) -> None:
        counted = await self._stage.tell(Open(list(pages), deaf=deaf))
        await self._stage.until_open(counted.open)

    async def _close(self, pages: Sequence[int]) -> None:
        counted = await self._stage.tell(Close(list(pages)))
        await self._stage.until_open(counted.open)

    async def _idle(self) -> None:
        await self._open(self._all)
        await asyncio.sleep(_SETTLE_S)
        before = self._stage.cpu_s()
        await asyncio.sleep(_IDLE_S)
        self.report.idle = (self._stage.cpu_s() - before) / _IDLE_S

    async def _messages(self) -> None:
        await self._driver.write_steadily(self._all, _MESSAGES_A_SECOND, 1)  # warms up
        await self._arrived()
        started = _Work.of(self._stage)
        committed = await self._driver.write_steadily(self._all, _MESSAGES_A_SECOND, self._seconds)
        seen = await self._arrived()
        self.report.messages_cpu = started.cpu_s(self._stage, self.report.idle) / len(committed)
        self.report.messages, _ = delays_of_messages(seen, committed)

    async def _messages_with_cuts(self) -> None:
        """Every other message is for a page that is cut off."""
        cut = random.sample(self._all, int(len(self._all) * _SHARE_CUT))
        await self._stage.tell(Cut(cut, self._seconds, _CUT_CHANCE))
        pages = cut + random.choices([page for page in self._all if page not in set(cut)], k=len(cut))
        committed = await self._driver.write_steadily(pages, _MESSAGES_A_SECOND, self._seconds)
        seen = await self._arrived()
        await self._stage.tell(Cut(cut, 0.0, 0.0))  # once more, and never again
        await asyncio.sleep(_SETTLE_S)
        self.report.with_cuts, self.report.over_cuts = delays_of_messages(seen, committed)
        self.report.cuts = sum(len(page.away) for page in await self._stage.collect())

    async def _pieces(self) -> None:
        pages = random.sample(self._all, _ANSWERS)
        await self._driver.stream(pages, 1)  # warms up
        await self._stage.collect()
        started = _Work.of(self._stage)
        told = await self._driver.stream(pages, self._seconds)
        await asyncio.sleep(INTERVAL_S * 4)
        self.report.pieces_cpu = started.cpu_s(self._stage, self.report.idle) / sum(map(len, told.values()))
        seen = await self._stage.collect()
        self.report.pieces = delays_of_pieces(seen, told)
        count_pieces(seen, told, self.report.faults)

    async def _slow_pages(self) -> None:
        """The same is poured over pages that read it, and over as many that do not."""
        self.report.beside_fast, fast = await self._beside(deaf=False)
        self.report.beside_slow, slow = await self._beside(deaf=True)
        self.report.slow_memory = (slow - fast) / _SLOW

    async def _beside(self, *, deaf: bool) -> tuple[Delays, int]:
        """Delays of other pages' pieces while it pours; by how much the process has grown."""
        stage, report = self._stage, self.report
        before = stage.memory().rss
        dropped = await stage.metric('replyline_stream_events_total{kind="dropped"}')
        await self._open(self._slow, deaf=deaf)
        pages, seconds = random.sample(self._all, _ANSWERS), min(self._seconds, _MOST_SLOW_S)
        told, report.poured = await asyncio.gather(
            self._driver.stream(pages, seconds), self._driver.pour(self._slow, seconds)
        )
        await asyncio.sleep(INTERVAL_S * 4)
        grown = stage.memory().rss - before
        if deaf:
            report.dropped = await stage.metric('replyline_stream_events_total{kind="dropped"}') - dropped
        seen = await stage.collect()
        count_pieces(seen, told, report.faults)
        for page in self._slow:  # what counts comes to those as well, once they read
            await self._driver.write(page)
        await stage.tell(Hear(self._slow))
        await self._arrived()
        await self._close(self._slow)
        return delays_of_pieces(seen, told), grown

    async def _count(self) -> None:
        seen = await self._arrived()
        self.report.seen = sum(len(page.messages) for page in seen)
        count_messages(seen, self._driver.wrote, self.report.faults)
        self.report.late = delays(self._driver.late)

    async def _arrived(self) -> Sequence[Seen]:
        """What the pages have once all should have come, and whatever comes twice too."""
        await self._stage.until_seen(self._driver.count, timeout_s=_ARRIVE_WITHIN_S)
        await asyncio.sleep(0.5)
        return await self._stage.collect()


@dataclass(frozen=True)
class _Work:
    """Where the API process' CPU was at some time."""

    at: float
    cpu: float

    @classmethod
    def of(cls, stage: Stage) -> "_Work":
        return cls(asyncio.get_running_loop().time(), stage.cpu_s())

    def cpu_s(self, stage: Stage, idle: float) -> float:
        """CPU since then, beside what idling takes."""
        took = asyncio.get_running_loop().time() - self.at
        return stage.cpu_s() - self.cpu - idle * took


def main() -> None:
    """Parse, run, print; exits with 1 where anything was lost, doubled or out of order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000, help="open pages, one each of as many visitors")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the five loads")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    report = uvloop.run(_run(max(_ANSWERS, arguments.connections), arguments.seconds))
    _print(report)
    Console().print(f"one run; the machine's load before it was {load:.1f}", style="dim")
    if report.faults:
        sys.exit(f"this must not be: {report.faults}")


async def _run(connections: int, seconds: float) -> Report:
    async with Stage() as stage:
        return await Bench(stage, connections, seconds).run()


def _print(report: Report) -> None:
    assert report.before is not None
    table = Table("", "measured", "ratio", box=None)
    before = report.before
    for number, (full, after) in enumerate(report.rounds, 1):
        each = (full.rss - before.rss) / report.connections / 1024
        each_pss = (full.pss - before.pss) / report.connections / 1024
        table.add_row(
            f"memory, round {number}: a connection",
            f"{each:.1f} kB (PSS {each_pss:.1f})",
            f"{full.rss / before.rss:.2f} of the process without",
        )
        table.add_row(
            "  after all are closed",
            f"{(after.rss - before.rss) / 2**20:+.1f} MB of {before.rss / 2**20:.0f}",
            f"{after.rss / before.rss:.2f}",
        )
    table.add_row(
        f"idle with {report.connections:,} pages, without any",
        f"{report.idle:.1%}, {report.idle_without:.1%} of a core",
        f"{report.idle:.3f}",
    )
    for name, took in (
        (f"message, {_MESSAGES_A_SECOND}/s", report.messages),
        ("  while a fifth of the pages are cut", report.with_cuts),
        ("  over a cut, with the way back", report.over_cuts),
        (f"piece, {_ANSWERS} answers at {1 / INTERVAL_S:g}/s", report.pieces),
        (f"  beside {_SLOW} pages that read big pieces", report.beside_fast),
        (f"  beside {_SLOW} pages that read nothing", report.beside_slow),
        ("the driver's own lateness", report.late),
    ):
        if took is not None:
            table.add_row(
                f"{name}: p50, p99, max",
                f"{took.p50 * 1000:.1f}, {took.p99 * 1000:.1f}, {took.most * 1000:.1f} ms",
                f"{took.p50 / INTERVAL_S:.2f}, {took.p99 / INTERVAL_S:.2f}, {took.most / INTERVAL_S:.2f} of 50 ms",
            )
    table.add_row("CPU of 1,000 messages", f"{report.messages_cpu * 1000:.2f} s", "")
    piece_ratio = report.pieces_cpu / report.messages_cpu
    table.add_row("CPU of 1,000 pieces", f"{report.pieces_cpu * 1000:.2f} s", f"{piece_ratio:.2f} of a message")
    if report.beside_fast is not None and report.beside_slow is not None:
        table.add_row(
            "others' p99 beside pages that read nothing", "", f"{report.beside_slow.p99 / report.beside_fast.p99:.2f}"
        )
    table.add_row(
        "memory of a page that reads nothing",
        f"{report.slow_memory / 1024:.1f} kB of {report.poured / 1024:,.0f} poured, {report.dropped:,.0f} pieces dropped",
        f"{report.slow_memory / MOST_LIVE_BYTES:.2f} of what it may hold",
    )
    faults = report.faults
    table.add_row(
        f"{report.seen:,} messages, {report.cuts:,} cuts",
        f"lost {faults.lost}, doubled {faults.doubled}, out of order {faults.disordered}, answers torn {faults.pieces}, "
        f"streams broken {faults.broken}",
        "",
    )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

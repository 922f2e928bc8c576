"""One run: the contenders, what they are given, and what is kept of it."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bench.pipeline import verify
from bench.pipeline.contenders import ROOT, Contender, Node, Replyline
from bench.pipeline.load import Contacts, Sample, closed
from bench.pipeline.results import BEFORE, NODE, OURS, Results
from bench.pipeline.servers import Servers

SPEED = "256 in flight, model at once"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything: seconds of a closed load, of a paced one, and how often each is repeated."""

    repetitions: int
    closed_s: float
    paced_s: float


QUICK = Size(repetitions=1, closed_s=4, paced_s=6)
FULL = Size(repetitions=3, closed_s=8, paced_s=12)


@dataclass(slots=True)
class Run:
    """What every part gets."""

    contenders: Sequence[Contender]
    size: Size
    quick: bool
    results: Results = field(default_factory=Results)
    wrong: list[str] = field(default_factory=list)
    """What was lost, doubled or out of order, a line each."""
    verified: dict[str, int] = field(default_factory=dict)
    """How many messages of each contender were looked at for that."""
    _first: int = 0
    _turn: int = 0

    def in_turns(self) -> Sequence[Contender]:
        """All contenders; another one is first each time."""
        self._turn += 1
        cut = self._turn % len(self.contenders)
        return [*self.contenders[cut:], *self.contenders[:cut]]

    def contacts(self, *, returning: int = 0) -> Contacts:
        """People that no load before has had."""
        self._first += 1_000_000
        return Contacts(self._first, returning=returning)

    def replylines(self) -> list[Replyline]:
        """Those of the contenders that are Replyline."""
        return [contender for contender in self.contenders if isinstance(contender, Replyline)]

    async def each(
        self,
        case: str,
        load: Callable[[Contender], Awaitable[Sample]],
        *,
        note: Callable[[Sample], Mapping[str, float]],
    ) -> None:
        """Give all contenders the same load in turns, as often as the size says."""
        for _ in range(self.size.repetitions):
            for contender in self.in_turns():
                sample = await load(contender)
                self.keep(case, contender.name, note(sample))

    def keep(self, case: str, name: str, numbers: Mapping[str, float]) -> None:
        """Keep and say what was measured."""
        for measure, number in numbers.items():
            self.results.add(case, measure, name, number)
        shown = ", ".join(f"{measure} {number:,.2f}" for measure, number in list(numbers.items())[:4])
        print(f"{time.strftime('%H:%M:%S')} {case} | {name}: {shown}", flush=True)

    async def verify(self, contender: Contender) -> None:
        """Account for every message of the contender since it began anew."""
        self.wrong += await verify.wrong(contender)
        asked = contender.outside.ledger.asked
        self.verified[contender.name] = self.verified.get(contender.name, 0) + asked

    async def begin_anew(self, contender: Contender) -> None:
        """Account for what was, and begin with tables as they were furnished, without autovacuum; nothing is started."""
        await self.verify(contender)
        await contender.begin_anew()
        await contender.servers.forbid_autovacuum()

    async def part(self, name: str, work: Awaitable[None]) -> None:
        """Do one part. One that cannot be ended counts as wrong, and the contenders begin anew: what others measured is kept."""
        try:
            await work
        except RuntimeError as error:
            print(f"{name} was given up: {error}", flush=True)
            self.wrong.append(f"{name} was given up: {str(error).partition(chr(10))[0]}")
            for contender in self.contenders:
                contender.outside.think_s = 0.0
                await contender.begin_anew()

    async def fastest(self) -> float:
        """How many messages a second Replyline of this checkout sends at most."""
        known = self.results.middle(SPEED, "messages/s", OURS)
        if known is not None:
            return known
        return (await closed(self.contenders[0], self.size.closed_s, flight=256, contacts=self.contacts())).per_second


@asynccontextmanager
async def opened(
    *, against: Path | None, with_node: bool, postgres_settings: Mapping[str, str] | None = None
) -> AsyncIterator[list[Contender]]:
    """Servers for each contender, and the contenders, furnished and not yet started; this checkout's Replyline is the first."""
    async with AsyncExitStack() as stack:
        folder = _open_to_others(stack.enter_context(tempfile.TemporaryDirectory(prefix="replyline-bench-")))
        contenders: list[Contender] = []

        async def servers(name: str) -> Servers:
            return await stack.enter_async_context(Servers(folder / name, postgres_settings=postgres_settings))

        contenders.append(Replyline(OURS, await servers(OURS), folder, ROOT))
        if against is not None:
            contenders.append(Replyline(BEFORE, await servers(BEFORE), folder, against))
        if with_node:
            contenders.append(Node(NODE, await servers(NODE), folder))
        for contender in contenders:
            stack.callback(contender.outside.close)
            stack.push_async_callback(contender.stop)
            await contender.prepare()
        yield contenders


def _open_to_others(name: str) -> Path:
    """Postgres runs as another user where we are root, and must reach what is below."""
    folder = Path(name)
    folder.chmod(0o711)
    return folder


async def warm_up(run: Run, contenders: Sequence[Contender], seconds: float = 3.0) -> None:
    """Start them and let compilers, caches and connections settle."""
    await asyncio.gather(*(contender.start() for contender in contenders))
    for contender in contenders:
        contender.outside.think_s = 0.0
        await closed(contender, seconds, flight=64, contacts=run.contacts())
    # New processes compile and connect; what comes after the first seconds is what runs for days.
    for contender in contenders:
        await closed(contender, seconds / 2, flight=256, contacts=run.contacts())


def costs(sample: Sample) -> dict[str, float]:
    """What a message cost, by process."""
    used = sample.used
    servers = used.servers
    return {
        "CPU ms a message, everything": sample.cpu_ms(used.cpu_s),
        "CPU ms a message, API": sample.cpu_ms(used.api_cpu_s),
        "CPU ms a message, worker": sample.cpu_ms(used.worker_cpu_s),
        "CPU ms a message, Valkey": sample.cpu_ms(servers.valkey_cpu_s),
        "CPU ms a message, Postgres": sample.cpu_ms(servers.postgres_cpu_s),
        "script calls a message": servers.scripts / sample.messages,
        "Valkey commands a message, those in scripts too": servers.commands / sample.messages,
        "statements a message": servers.statements / sample.messages,
        "transactions a message": servers.transactions / sample.messages,
        "buffers a message": servers.buffers / sample.messages,
        "WAL bytes a message": servers.wal_bytes / sample.messages,
        "load's own CPU ms a message": sample.cpu_ms(sample.load_cpu_s),
    }


def rates(sample: Sample) -> dict[str, float]:
    """How fast a closed load was worked off, and what it cost."""
    return {
        "messages/s": sample.per_second,
        "messages/s until the last webhook": sample.until_hooks_per_second,
        **costs(sample),
    }


def delays(sample: Sample) -> dict[str, float]:
    """How long a paced load's messages took, and what they cost."""
    return {
        "added latency p50, ms": sample.percentile(50),
        "added latency p99, ms": sample.percentile(99),
        **costs(sample),
    }


def say_verified(run: Run, console: Console) -> None:
    """How many messages were accounted for, and what was wrong with them."""
    for name, count in run.verified.items():
        console.print(f"{name}: {count:,} messages accounted for")
    console.print("\n".join(run.wrong) if run.wrong else "0 lost, 0 doubled, all in the order of their contacts")


def write(results: Results, file: Path | None) -> None:
    """All samples as JSON, where a file is named."""
    if file is not None:
        file.write_text(json.dumps(results.as_json(), indent=1))

"""The parts of the benchmark. Each gives all contenders the same load in turns."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import quantiles

from bench.pipeline import backdrop
from bench.pipeline.contenders import Contender, Replyline
from bench.pipeline.load import Sample, closed, paced, settled
from bench.pipeline.results import Target
from bench.pipeline.run import SPEED, Run, delays, rates
from bench.pipeline.wire import Client

AFTER_1_S = "256 in flight, model after 1 s"
_PACE = 40.0
_WAITING = 2000
LAG = f"{_WAITING:,} turns wait for the model"
_LAG_P99 = "worker's event loop lag p99, ms"
_PROBE_EVERY_S = 0.02
_STORED = 100_000


async def speed(run: Run) -> None:
    """256 in flight, the model at once and after 1 s: messages/s, and what each process uses a message."""
    await _closed(run, 256, 0.0)
    await _closed(run, 256, 1.0)


async def latency(run: Run) -> None:
    """Added latency at 40 messages/s, and at 10 % and 50 % of what Replyline can do at most."""
    await _paced(run, f"{_PACE:g} messages/s, model at once", _PACE, 0.0)
    if run.quick:
        return
    await _paced(run, f"{_PACE:g} messages/s, model after 1 s", _PACE, 1.0)
    fastest = await run.fastest()
    for percent in (10, 50):
        case = f"{percent} % of Replyline's maximum, model at once"
        await _paced(run, case, fastest * percent / 100, 0.0)
    run.results.notes.append(
        f"Replyline's maximum for the paced loads: {fastest:,.0f} messages/s. A contender that cannot follow falls behind, "
        "and its latency is what the queue before it is."
    )


async def flight(run: Run) -> None:
    """64 and 512 in flight, and a model that takes 5 s."""
    await _closed(run, 64, 0.0)
    await _closed(run, 512, 0.0)
    await _closed(run, 256, 5.0)


async def contacts(run: Run) -> None:
    """1,000 people who write again and again, each after the answer came, beside those who write for the first time (`speed`)."""
    people = {contender.name: run.contacts(returning=1000) for contender in run.contenders}

    async def load(contender: Contender) -> Sample:
        contender.outside.think_s = 0.0
        return await closed(contender, run.size.closed_s, flight=256, contacts=people[contender.name])

    for contender in run.contenders:  # everybody has written before
        await load(contender)
    await run.each("256 in flight, model at once, returning contacts", load, note=rates)


async def lag(run: Run) -> None:
    """2,000 turns wait for the model in one worker process: how late its event loop is.

    Looked at from outside: every 20 ms its `/health/live` is asked, which the loop that runs the jobs answers. What that takes
    is its lag and the few hundred microseconds of the answer itself. A look that takes longer than 20 ms stands for those that
    were due meanwhile.
    """
    fastest = await run.fastest()
    # Half of the maximum: a saturated machine is late whatever waits. 400 a second is a model of 5 s, 100 one of 20 s, which is
    # still within the time that a provider has.
    rate = min(400.0, max(100.0, fastest / 2))
    for contender in run.replylines():
        contender.outside.think_s = _WAITING / rate
        seconds = contender.outside.think_s + 6
        stop = asyncio.Event()
        probing = asyncio.create_task(_probe(contender, stop))
        try:
            await paced(contender, seconds, rate=rate, contacts=run.contacts())
        finally:
            stop.set()
            late, most = await probing
        cuts = quantiles(late, n=100, method="inclusive")
        numbers = {_LAG_P99: cuts[98], "p50, ms": cuts[49], "most turns that waited": float(most)}
        run.keep(LAG, contender.name, numbers)
    run.results.notes.append(
        f"The turns waited {_WAITING / rate:.1f} s for the model at {rate:.0f} messages/s; 5 s where Replyline can do 800."
    )


async def analyze(run: Run) -> None:
    """What the planner knows: tables analyzed now, never, when they were empty, under a backlog; 100,000 messages stored."""
    for state in ("analyzed now", "never analyzed", "analyzed when empty", "analyzed under a backlog"):
        case = f"256 in flight, tables {state}"
        for contender in run.in_turns():
            servers = contender.servers
            await run.begin_anew(contender)
            if state == "analyzed when empty":
                await servers.execute("ANALYZE")
            originals = await backdrop.originals_of_done(run, contender)
            await backdrop.add_done(contender, originals, _STORED)
            if state == "analyzed now":
                await servers.execute("VACUUM (ANALYZE)")
            if state == "analyzed under a backlog":
                await contender.start_api()
                await backdrop.post_unworked(contender, run.contacts(), 2000)
                await servers.execute("ANALYZE")
                contender.start_workers()
                await settled(contender)
            else:
                await contender.start()
            await closed(contender, 2, flight=64, contacts=run.contacts())
            sample = await closed(contender, run.size.closed_s, flight=256, contacts=run.contacts())
            run.keep(case, contender.name, rates(sample))


async def _probe(contender: Replyline, stop: asyncio.Event) -> tuple[list[float], int]:
    """Milliseconds that looks took while over half of the turns were waiting, and the most that were."""
    client = Client("127.0.0.1", contender.metrics_port)
    late: list[float] = []
    most = 0
    looks: set[asyncio.Task[None]] = set()

    async def look() -> None:
        began = time.perf_counter()
        status, _ = await client.ask(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        took = time.perf_counter() - began
        if status != 200:
            raise RuntimeError(f"/health/live answered {status}")
        if contender.outside.ledger.at_model >= _WAITING / 2:
            late.append(took * 1000)

    while not stop.is_set():
        most = max(most, contender.outside.ledger.at_model)
        task = asyncio.create_task(look())
        looks.add(task)
        await asyncio.sleep(_PROBE_EVERY_S)
    await asyncio.gather(*looks)
    client.close()
    if len(late) < 50:
        raise RuntimeError(f"only {most} turns waited at once")
    return late, most


async def _closed(run: Run, in_flight: int, think_s: float) -> None:
    async def load(contender: Contender) -> Sample:
        contender.outside.think_s = think_s
        return await closed(contender, run.size.closed_s + think_s, flight=in_flight, contacts=run.contacts())

    await run.each(f"{in_flight} in flight, {_model(think_s)}", load, note=rates)


async def _paced(run: Run, case: str, rate: float, think_s: float) -> None:
    async def load(contender: Contender) -> Sample:
        contender.outside.think_s = think_s
        return await paced(contender, run.size.paced_s, rate=rate, contacts=run.contacts())

    await run.each(case, load, note=delays)


def _model(think_s: float) -> str:
    return f"model after {think_s:g} s" if think_s else "model at once"


Part = Callable[[Run], Awaitable[None]]
PARTS: dict[str, Part] = {
    "speed": speed,
    "latency": latency,
    "flight": flight,
    "contacts": contacts,
    "lag": lag,
    "analyze": analyze,
}
QUICK_PARTS = ("speed", "latency", "lag")

TARGETS = (
    *(Target(case, "messages/s", at_least=2.5, note="(aim 4)") for case in (SPEED, AFTER_1_S)),
    *(Target(case, "CPU ms a message, everything", at_most=0.4, note="(aim 0.25)") for case in (SPEED, AFTER_1_S)),
    *(
        Target(f"{_PACE:g} messages/s, {_model(think_s)}", f"added latency {percent}, ms", at_most=1.2)
        for think_s in (0.0, 1.0)
        for percent in ("p50", "p99")
    ),
    *(Target(case, "script calls a message", at_most=1.0) for case in (SPEED, AFTER_1_S)),
    Target(LAG, _LAG_P99, at_most=50, ratio=False),
)

"""The cases. In each the same load is measured beside a backdrop that grows, and compared with the smallest."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.pipeline import backdrop
from bench.pipeline.contenders import Contender
from bench.pipeline.load import Sample, closed, paced, settled
from bench.pipeline.results import Target
from bench.pipeline.run import Run, rates
from bench.pipeline.servers import Sizes

_EVERYTHING = "CPU ms a message, everything"
_FLIGHT = 256
_STORED_BY_THEN = 20_000
_PER_SECOND = 100.0
_PEOPLE = 5000
_MOST_PAUSED = 20_000
_MB = 1_000_000
_CATCH_UP_S = 90.0


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything, smallest first."""

    waiting: Sequence[int]
    stored: Sequence[int]
    due: Sequence[int]
    workers: Sequence[int]
    churn_s: float
    """Seconds of churn that stand for an hour."""


async def waiting(run: Run, amounts: Amounts) -> None:
    """So many jobs of other customers wait, due tomorrow or held behind those; analyzed when little waited, then now."""
    smallest: dict[tuple[str, str], Sample] = {}
    for amount in amounts.waiting:
        for contender in run.in_turns():
            await run.begin_anew(contender)
            originals = await backdrop.originals_of_waiting(contender)
            done = await backdrop.originals_of_done(run, contender)
            await backdrop.add_done(contender, done, _STORED_BY_THEN)
            await contender.servers.execute("VACUUM (ANALYZE)")
            await backdrop.add_waiting(contender, originals, amount)
            for state in ("when little waited", "now"):
                if state == "now":
                    await contender.servers.execute("ANALYZE")
                sample = await _measure(run, contender)
                case = f"{amount:,} waiting, analyzed {state}"
                first = smallest.setdefault((contender.name, state), sample)
                _keep(run, case, contender, sample, (first, f"with {amounts.waiting[0]:,} waiting"))


async def paused(run: Run, amounts: Amounts) -> None:
    """Due jobs wait in a paused queue, unknown to Redis at first: the sweeper brings them there."""
    smallest: dict[str, Sample] = {}
    for amount in (0, min(_MOST_PAUSED, amounts.waiting[-1])):
        for contender in run.replylines():
            await run.begin_anew(contender)
            originals = await backdrop.originals_of_waiting(contender)
            await backdrop.add_paused(contender, originals, amount)
            await contender.servers.execute("ANALYZE")
            sample = await _measure(run, contender)
            first = smallest.setdefault(contender.name, sample)
            _keep(run, f"{amount:,} due in a paused queue", contender, sample, (first, "with none"))


async def stored(run: Run, amounts: Amounts) -> None:
    """So many messages are stored, with their jobs, usage and webhooks; tables vacuumed and analyzed."""
    for contender in run.contenders:
        await run.begin_anew(contender)
        originals = await backdrop.originals_of_done(run, contender)
        first, copies = None, 0
        for before, amount in zip((0, *amounts.stored), amounts.stored, strict=False):
            copies += await backdrop.add_done(contender, originals, amount - before, first=copies + 1)
            await contender.servers.execute("VACUUM (ANALYZE)", timeout_s=7200)
            sample = await _measure(run, contender)
            first = first or sample
            _keep(run, f"{amount:,} messages stored", contender, sample, (first, f"with {amounts.stored[0]:,} stored"))
            _sizes(run, f"{amount:,} messages stored", contender, await contender.servers.sizes())


async def due(run: Run, amounts: Amounts) -> None:
    """So many messages are really due when the workers start; the tables were analyzed while little waited.

    Measured for as long as they last, a minute and a half at most, and then given up: what is left is not waited for.
    """
    smallest: dict[str, tuple[float, float]] = {}
    for amount in amounts.due:
        for contender in run.in_turns():
            await run.begin_anew(contender)
            done = await backdrop.originals_of_done(run, contender)
            await backdrop.add_done(contender, done, _STORED_BY_THEN)
            await contender.servers.execute("VACUUM (ANALYZE)")
            await contender.start_api()
            await backdrop.post_unworked(contender, run.contacts(), amount)
            contender.start_workers()
            rate, cpu_ms, buffers = await _work_off(contender)
            base = smallest.setdefault(contender.name, (rate, cpu_ms))
            numbers = {
                "messages/s": rate,
                _EVERYTHING: cpu_ms,
                "buffers a message": buffers,
                f"messages/s ÷ with {amounts.due[0]:,} due": rate / base[0],
                f"CPU of everything ÷ with {amounts.due[0]:,} due": cpu_ms / base[1],
            }
            run.keep(f"{amount:,} really due, analyzed when little waited", contender.name, numbers)
            ledger = contender.outside.ledger
            if ledger.answered < ledger.asked:
                await contender.stop()
                ledger.given_up = True


async def workers(run: Run, amounts: Amounts) -> None:
    """As many worker processes."""
    smallest: dict[str, Sample] = {}
    try:
        for amount in amounts.workers:
            for contender in run.in_turns():
                await run.begin_anew(contender)
                contender.workers = amount
                sample = await _measure(run, contender)
                first = smallest.setdefault(contender.name, sample)
                _keep(run, f"{amount} worker processes", contender, sample, (first, f"with {amounts.workers[0]}"))
    finally:
        for contender in run.contenders:
            contender.workers = 1


async def churn(run: Run, amounts: Amounts) -> None:
    """100 messages/s of people who come again, for an hour or a part of it: sizes at the end, first and last quarter."""
    for contender in run.contenders:
        await run.verify(contender)
        await contender.begin_anew()
        # Autovacuum looks as often in the shortened hour as it would in the whole one.
        naptime_s = max(1, round(60 * amounts.churn_s / 3600))
        await contender.servers.administer(f"ALTER SYSTEM SET autovacuum_naptime = {naptime_s}")
        await contender.servers.administer("SELECT pg_reload_conf()")
        await contender.start()
        people = run.contacts(returning=_PEOPLE)
        before = await contender.servers.sizes()
        quarters = [
            await paced(contender, amounts.churn_s / 4 - 1, rate=_PER_SECOND, contacts=people) for _ in range(4)
        ]
        await contender.servers.administer("ALTER SYSTEM RESET autovacuum_naptime")
        await contender.servers.administer("SELECT pg_reload_conf()")
        case = f"an hour of {_PER_SECOND:g} messages/s, shortened to {amounts.churn_s:,.0f} s"
        _keep(run, case, contender, quarters[-1], (quarters[0], "in the first quarter"))
        run.keep(case, contender.name, {"added latency p99 of the last quarter, ms": quarters[-1].percentile(99)})
        after = await contender.servers.sizes()
        _sizes(run, case, contender, after)
        messages = sum(quarter.messages for quarter in quarters)
        run.keep(
            case,
            contender.name,
            {
                "bytes of tables a message": (after.tables - before.tables) / messages,
                "bytes of indexes a message": (after.indexes - before.indexes) / messages,
                "bytes in Valkey a message": (after.valkey - before.valkey) / messages,
            },
        )


async def _measure(run: Run, contender: Contender) -> Sample:
    """Start, warm up, measure, stop."""
    await contender.start()
    contender.outside.think_s = 0.0
    await closed(contender, 2, flight=64, contacts=run.contacts())
    sample = await closed(contender, run.size.closed_s, flight=_FLIGHT, contacts=run.contacts())
    await contender.stop()
    return sample


async def _work_off(contender: Contender) -> tuple[float, float, float]:
    """Messages/s, CPU milliseconds and buffers a message of what is due, once the first have been sent."""
    ledger = contender.outside.ledger
    began = time.perf_counter()
    while ledger.answered < ledger.asked // 10:  # started, connected, compiled
        contender.check()
        if time.perf_counter() > began + _CATCH_UP_S:
            break
        await asyncio.sleep(0.05)
    answered, before, began = ledger.answered, await contender.used(), time.perf_counter()
    while ledger.answered < ledger.asked and time.perf_counter() < began + _CATCH_UP_S:
        contender.check()
        await asyncio.sleep(0.05)
    took = time.perf_counter() - began
    used, count = (await contender.used()).since(before), max(1, ledger.answered - answered)
    if ledger.answered == ledger.asked:
        await settled(contender)
    return count / took, used.cpu_s / count * 1000, used.servers.buffers / count


def _keep(run: Run, case: str, contender: Contender, sample: Sample, least: tuple[Sample, str]) -> None:
    first, which = least
    numbers = rates(sample)
    of_first = rates(first)
    run.keep(
        case,
        contender.name,
        {
            **numbers,
            f"CPU of everything ÷ {which}": numbers[_EVERYTHING] / of_first[_EVERYTHING],
            f"buffers ÷ {which}": numbers["buffers a message"] / of_first["buffers a message"],
        },
    )


def _sizes(run: Run, case: str, contender: Contender, sizes: Sizes) -> None:
    run.keep(
        case,
        contender.name,
        {
            "tables, MB": sizes.tables / _MB,
            "indexes, MB": sizes.indexes / _MB,
            "Valkey's data, MB": sizes.valkey / _MB,
            "dead rows": sizes.dead_rows,
            "live rows": sizes.live_rows,
        },
    )


Case = Callable[[Run, Amounts], Awaitable[None]]
CASES: dict[str, Case] = {
    "waiting": waiting,
    "paused": paused,
    "due": due,
    "stored": stored,
    "workers": workers,
    "churn": churn,
}


def targets(amounts: Amounts) -> list[Target]:
    """What is measured with most is to cost at most a fifth more than with the least."""
    which = f"CPU of everything ÷ with {amounts.waiting[0]:,} waiting"
    most = f"{amounts.waiting[-1]:,} waiting, analyzed"
    return [
        *(Target(f"{most} {state}", which, at_most=1.2, ratio=False) for state in ("when little waited", "now")),
        Target(
            f"{amounts.due[-1]:,} really due, analyzed when little waited",
            f"CPU of everything ÷ with {amounts.due[0]:,} due",
            at_most=1.2,
            ratio=False,
        ),
        Target(
            f"{amounts.stored[-1]:,} messages stored",
            f"CPU of everything ÷ with {amounts.stored[0]:,} stored",
            at_most=1.2,
            ratio=False,
        ),
    ]

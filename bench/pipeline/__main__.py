"""`python -m bench.pipeline [--quick] [--json FILE]`: run, and print medians and ratios."""

import argparse
import asyncio
import json
import shutil
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.pipeline.load import Burst, Pace, burst, pace, until_sent
from bench.pipeline.stage import NODE, Contender, Stage, value
from replyline.ids import new_id
from replyline.jobs import IncomingMessageJob
from replyline.store.database import Database
from replyline.store.moves import Moves
from replyline.store.moves.accept import Accept

_THINK_S = 1.0
Results = dict[str, dict[str, list[float]]]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer messages and one repetition")
    parser.add_argument("--json", type=Path, help="write every sample there too")
    arguments = parser.parse_args()
    results = asyncio.run(_run(quick=arguments.quick))
    _print(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


async def _run(*, quick: bool) -> Results:
    results: Results = {}
    count, repetitions = (600, 1) if quick else (1500, 2)
    async with Stage() as stage:
        contenders = {"replyline": await stage.furnish("replyline", 0)}
        if shutil.which("node") and (NODE / "node_modules").exists():
            contenders["node"] = await stage.furnish("node", 1)
        first = 1_000_000
        for repetition in range(repetitions + 1):  # the first warms up and is not counted
            for name, contender in contenders.items():
                (stage.start_ours if name == "replyline" else stage.start_node)(contender)
                await stage.ready(contender)
                warm = repetition == 0
                for think_s in (0.0, _THINK_S):
                    await stage.tell("openai", "_configure", {"think_s": think_s})
                    done = await burst(stage, contender, 200 if warm else count, first=first)
                    first += count
                    paced = await pace(stage, contender, 40, 2 if warm else 8, first=first, think_s=think_s)
                    first += count
                    if not warm:
                        _note(results, name, think_s, done, paced)
                await stage.stop(contender)
        await stage.tell("openai", "_configure", {"think_s": 0})
        for waiting in (1_000,) if quick else (1_000, 100_000):
            cost = await _cost_behind(stage, contenders["replyline"], waiting, count=min(1000, count))
            results.setdefault("replyline", {})[f"own CPU ms a message with {waiting:,} waiting"] = [cost]
    return results


def _note(results: Results, name: str, think_s: float, done: Burst, paced: Pace) -> None:
    rows = results.setdefault(name, {})
    model = "model at once" if think_s == 0 else f"model after {think_s:g} s"
    for label, number in (
        ("messages/s", done.per_second),
        ("own CPU ms a message", done.cpu_ms),
        ("Valkey and Postgres CPU ms a message", done.servers_cpu_ms),
        ("script calls a message", done.scripts),
        ("SQL statements a message", done.statements),
        ("added latency p50 ms", paced.p50_ms),
        ("added latency p99 ms", paced.p99_ms),
    ):
        rows.setdefault(f"{label}, {model}", []).append(number)


async def _cost_behind(stage: Stage, ours: Contender, waiting: int, *, count: int) -> float:
    """CPU of a worker a message, for the first `count` of so many that wait."""
    await _fill(ours, waiting)
    sent = "SELECT count(*) FROM messages WHERE direction = 'OUTBOUND' AND status = 'SENT'"
    base = await value(ours.database_url, sent)
    stage.start_ours(ours, door=False)
    await until_sent(ours, base + 100)  # started, connected, warm
    begun, cpu = await value(ours.database_url, sent), ours.cpu_s()
    await until_sent(ours, begun + min(count, waiting - 300))
    ended, cpu_now = await value(ours.database_url, sent), ours.cpu_s()
    await stage.stop(ours)
    await _empty(ours)
    return (cpu_now - cpu) / (ended - begun) * 1000


async def _fill(ours: Contender, waiting: int) -> None:
    """Messages of as many people at the door, published as the door would."""
    from replyline.broker import Broker  # noqa: PLC0415  only here
    from replyline.publisher import Publisher  # noqa: PLC0415
    from replyline.settings import load  # noqa: PLC0415
    from replyline.supervision import Supervisor  # noqa: PLC0415

    database = Database(ours.database_url, pool_size=4)
    await database.open()
    broker = Broker(ours.redis_url)
    await broker.open()
    publisher = Publisher(broker, load().spec, Supervisor(), capacity=waiting + 1000)
    publisher.start()
    moves = Moves(database, publisher.publish)
    async with database.connection() as connection:
        channel = await connection.fetchrow("SELECT id, customer_id, chatbot_id FROM channels LIMIT 1")
    assert channel is not None

    async def accept(number: int) -> None:
        job = IncomingMessageJob(
            customer_id=channel["customer_id"],
            trace_id=new_id(),
            message_id=new_id(),
            chatbot_id=channel["chatbot_id"],
            channel_id=channel["id"],
            channel="WHATSAPP_CLOUD",
            external_user_id=f"4916{number:09d}",
            content=f"question {number}",
        )
        await moves.accept(Accept(job, 1, None))

    for start in range(0, waiting, 2000):
        await asyncio.gather(*(accept(waiting * 10 + number) for number in range(start, min(start + 2000, waiting))))
    await publisher.close(120)
    await broker.close()
    await database.close()


async def _empty(ours: Contender) -> None:
    """Take back what was not worked."""
    database = Database(ours.database_url, pool_size=2)
    await database.open()
    async with database.connection() as connection:
        await connection.execute("DELETE FROM jobs WHERE state = 'WAITING'")
    await database.close()
    import redis  # noqa: PLC0415  only here

    with redis.Redis.from_url(ours.redis_url) as client:
        client.flushdb()


def _print(results: Results) -> None:
    table = Table("", *results, "ratio to node", box=None)
    ours, node = results["replyline"], results.get("node", {})
    for label, samples in ours.items():
        theirs = node.get(label)
        ratio = f"{median(samples) / median(theirs):.2f}" if theirs else ""
        table.add_row(
            label, f"{median(samples):,.2f}", *([f"{median(theirs):,.2f}" if theirs else ""] if node else []), ratio
        )
    Console(width=140).print(table)
    Console().print(
        "medians of one run, contenders taking turns; 64 posts in flight, webhooks on, quiet window 0", style="dim"
    )


if __name__ == "__main__":
    main()

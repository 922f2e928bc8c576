"""`python -m bench.door [--beside FOLDER] [--quick]`: CPU a message of `replyline api`, on each route that takes messages.

With `--beside`, the same load goes to the API process of another checkout in FOLDER, turn by turn in the same run, and the ratio
is told: two runs of a busy machine cannot be compared, two turns within a second can.
"""

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.door.load import ROUTES, send
from bench.door.stage import ROOT, Door, Stage, cpu_s

_Costs = Mapping[tuple[str, str], Sequence[float]]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, help="another checkout, measured turn by turn with this one")
    parser.add_argument("--quick", action="store_true", help="a few seconds of it")
    parser.add_argument("--at-once", type=int, default=64, help="requests in flight")
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=ROUTES)
    given = parser.parse_args()
    rounds, messages = (3, 500) if given.quick else (7, 2000)
    trees = {"here": ROOT, **({"beside": given.beside.resolve()} if given.beside else {})}
    costs = asyncio.run(_run(trees, given.routes, rounds=rounds, messages=messages, at_once=given.at_once))
    _print(costs, list(trees), given.routes)


async def _run(
    trees: Mapping[str, Path], routes: Sequence[str], *, rounds: int, messages: int, at_once: int
) -> dict[tuple[str, str], list[float]]:
    """Microseconds of CPU a message, by tree and route: one value a round. The first round warms up and does not count."""
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)
    async with Stage() as stage, AsyncExitStack() as opened:
        doors = {
            name: await opened.enter_async_context(stage.door(name, tree, number))
            for number, (name, tree) in enumerate(trees.items())
        }
        for turn in range(rounds + 1):
            for route in routes:
                for name, door in doors.items():
                    took = await _cost(door, route, messages, at_once)
                    if turn:
                        costs[name, route].append(took)
    return costs


async def _cost(door: Door, route: str, messages: int, at_once: int) -> float:
    before = cpu_s(door.pid)
    await send(door, route, messages, at_once)
    await door.published()  # telling Redis of them is part of the cost
    return (cpu_s(door.pid) - before) / messages * 1_000_000


def _print(costs: _Costs, trees: Sequence[str], routes: Sequence[str]) -> None:
    table = Table(
        "route", *(f"µs of CPU a message, {name}" for name in trees), *(["here ÷ beside"] if trees[1:] else [])
    )
    for route in routes:
        row = [f"{median(costs[name, route]):.0f}" for name in trees]
        if trees[1:]:
            pairs = zip(*(costs[name, route] for name in trees), strict=True)
            row.append(f"{median(here / beside for here, beside in pairs):.2f}")
        table.add_row(route, *row)
    Console().print(table)


if __name__ == "__main__":
    main()

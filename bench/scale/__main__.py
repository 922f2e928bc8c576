"""Measure whether a message costs the same whatever waits, whatever is stored, with more workers, and after an hour.

examples:
  python -m bench.scale --quick                           small amounts, a quarter of an hour
  python -m bench.scale --parts stored --rows 0,200000    only tables of no and of 200,000 messages
  python -m bench.scale --parts churn --factor 1          a whole hour of 100 messages a second
  python -m bench.scale --parts due --against ../other    also Replyline of another checkout, in turns
"""

import argparse
import asyncio
import sys
from pathlib import Path

from rich.console import Console

from bench.pipeline.results import print_table, print_targets
from bench.pipeline.run import FULL, QUICK, Run, opened, say_verified, write
from bench.scale.cases import CASES, Amounts, targets

_HOUR_S = 3600.0


def main() -> None:
    """Parse, run, print; exit code 1 where a message was lost, doubled or out of order."""
    asked = _parser().parse_args()
    names = asked.parts.split(",") if asked.parts else list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        _parser().error(f"there is no part {', '.join(unknown)}; there are {', '.join(CASES)}")
    sys.exit(1 if asyncio.run(_run(asked, names, _amounts(asked))) else 0)


def _parser() -> argparse.ArgumentParser:
    parts = "\n".join(f"  {name:<10} {(case.__doc__ or '').splitlines()[0]}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale",
        description=f"{__doc__}\nparts:\n{parts}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="smaller amounts and shorter loads")
    parser.add_argument("--parts", metavar="A,B", help="only these parts (default: all)")
    parser.add_argument("--rows", type=_numbers, metavar="N,N", help="messages stored (0,1000000,10000000)")
    parser.add_argument("--waiting", type=_numbers, metavar="N,N", help="jobs that wait (1000,100000,1000000)")
    parser.add_argument("--due", type=_numbers, metavar="N,N", help="messages that are really due (2000,50000)")
    parser.add_argument(
        "--factor", type=float, metavar="F", help="the hour of churn is shortened by it (10; --quick: 60)"
    )
    parser.add_argument("--against", type=Path, metavar="PATH", help="measure Replyline of another checkout as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(part.replace("_", "")) for part in text.split(",")))


def _amounts(asked: argparse.Namespace) -> Amounts:
    quick = bool(asked.quick)
    return Amounts(
        waiting=asked.waiting or ((1000, 100_000) if quick else (1000, 100_000, 1_000_000)),
        stored=asked.rows or ((0, 100_000) if quick else (0, 1_000_000, 10_000_000)),
        due=asked.due or ((2000, 10_000) if quick else (2000, 50_000)),
        workers=(1, 4),
        churn_s=_HOUR_S / (asked.factor or (60 if quick else 10)),
    )


async def _run(asked: argparse.Namespace, names: list[str], amounts: Amounts) -> bool:
    console = Console(width=150)
    async with opened(against=asked.against, with_node=False) as contenders:
        run = Run(contenders, QUICK if asked.quick else FULL, asked.quick)
        for name in names:
            await run.part(name, CASES[name](run, amounts))
            write(run.results, asked.json)
        for contender in contenders:
            await run.verify(contender)
        print_table(run.results, [contender.name for contender in contenders], console)
        print_targets(run.results, targets(amounts), console)
        say_verified(run, console)
    return bool(run.wrong)


if __name__ == "__main__":
    main()

"""Measure Replyline beside plain BullMQ for Node, door to sent, on servers of each one's own, in turns.

examples:
  python -m bench.pipeline --quick                        the main numbers in about two minutes
  python -m bench.pipeline --parts speed,latency          only these parts
  python -m bench.pipeline --quick --against ../other     also Replyline of another checkout, with its own .venv and schema
  python -m bench.pipeline --against ../other --no-node   the two checkouts only
  python -m bench.pipeline --parts none --profile         only what costs most: functions and statements
  python -m bench.pipeline --json result.json             write every sample as well
"""

import argparse
import asyncio
import shutil
import sys
from pathlib import Path

from rich.console import Console

from bench.pipeline.contenders import NODE
from bench.pipeline.parts import PARTS, QUICK_PARTS, TARGETS
from bench.pipeline.profiling import find_py_spy, profiled
from bench.pipeline.results import print_table, print_targets
from bench.pipeline.run import FULL, QUICK, Run, opened, say_verified, warm_up, write


def main() -> None:
    """Parse, run, print; exit code 1 where a message was lost, doubled or out of order."""
    asked = _parser().parse_args()
    parts = _parts(asked.parts, quick=asked.quick)
    wrong = asyncio.run(_run(asked, parts))
    sys.exit(1 if wrong else 0)


def _parser() -> argparse.ArgumentParser:
    parts = "\n".join(f"  {name:<10} {(part.__doc__ or '').splitlines()[0]}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench.pipeline",
        description=f"{__doc__}\nparts:\n{parts}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help=f"short loads, once; parts {', '.join(QUICK_PARTS)}")
    parser.add_argument("--parts", metavar="A,B", help="only these parts (default: all)")
    parser.add_argument("--against", type=Path, metavar="PATH", help="measure Replyline of another checkout as well")
    parser.add_argument("--no-node", action="store_true", help="leave the Node baseline out")
    parser.add_argument("--repetitions", type=int, metavar="N", help="how often each load is repeated")
    parser.add_argument(
        "--profile", action="store_true", help="also say what costs most (needs py-spy; parts may be none)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    return parser


def _parts(given: str | None, *, quick: bool) -> list[str]:
    if given == "none":
        return []
    names = given.split(",") if given else list(QUICK_PARTS if quick else PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        _parser().error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return names


async def _run(asked: argparse.Namespace, parts: list[str]) -> bool:
    with_node = not asked.no_node
    if with_node and not (shutil.which("node") and (NODE / "node_modules").exists()):
        _parser().error("the Node baseline is not installed: run `make node`, or leave it out with --no-node")
    if asked.profile and find_py_spy() is None:
        _parser().error("py-spy is not installed: .venv/bin/uv pip install py-spy")
    size = QUICK if asked.quick else FULL
    if asked.repetitions:
        size = type(size)(asked.repetitions, size.closed_s, size.paced_s)
    console = Console(width=150)
    async with opened(against=asked.against, with_node=with_node) as contenders:
        run = Run(contenders, size, asked.quick)
        for name in parts or ["none"]:
            await warm_up(run, [contender for contender in contenders if contender.api_process is None])
            if name in PARTS:
                await run.part(name, PARTS[name](run))
            write(run.results, asked.json)
        profiles = await profiled(run) if asked.profile else []
        for contender in contenders:
            await run.verify(contender)
        names = [contender.name for contender in contenders]
        print_table(run.results, names, console)
        if with_node:
            print_targets(run.results, TARGETS, console)
        for profile in profiles:
            console.print(profile)
        say_verified(run, console)
    return bool(run.wrong)


if __name__ == "__main__":
    main()

"""What costs most under load: functions of the API and of the worker by py-spy, statements by pg_stat_statements."""

import asyncio
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from bench.pipeline.contenders import Replyline
from bench.pipeline.load import closed
from bench.pipeline.run import Run

_SECONDS = 12
_MOST = 14
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)$")
_PACKAGE = re.compile(r"site-packages/([^/.]+)")


def find_py_spy() -> Path | None:
    """py-spy beside this interpreter, or on the path."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    return Path(found) if found else None


async def profiled(run: Run) -> list[Table]:
    """256 messages in flight, the model at once: each Replyline's functions and statements."""
    tables = []
    for contender in run.replylines():
        if contender.api_process is None:
            await contender.start()
        contender.outside.think_s = 0.0
        await closed(contender, 3, flight=256, contacts=run.contacts())
        await contender.servers.forget_statements()
        processes = {"API": contender.api_process, "worker": contender.worker_processes[0]}
        watching = asyncio.gather(*(_stacks(process.pid) for process in processes.values() if process is not None))
        sample = await closed(contender, _SECONDS + 2, flight=256, contacts=run.contacts())
        stacks = await watching
        for name, seen in zip(processes, stacks, strict=True):
            tables.append(_by(f"{contender.name}, {name}: CPU by library or module", seen, _owner))
            tables.append(_by(f"{contender.name}, {name}: CPU by our function that it is for", seen, _ours))
        tables.append(await _statements(contender, sample.messages))
    return tables


async def _stacks(pid: int) -> "Counter[tuple[str, ...]]":
    """Sampled call stacks, outermost first, and how often each was seen."""
    py_spy = find_py_spy()
    if py_spy is None:
        raise RuntimeError("py-spy is not installed")
    process = await asyncio.create_subprocess_exec(
        *(str(py_spy), "record", "--pid", str(pid), "--duration", str(_SECONDS), "--rate", "200"),
        *("--format", "raw", "--full-filenames", "--function", "--nonblocking", "--output", "/dev/stdout"),
        stdout=-1,
        stderr=-1,
    )
    said, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"py-spy failed: {errors.decode()[-500:]}")
    seen: Counter[tuple[str, ...]] = Counter()
    for line in said.decode(errors="replace").splitlines():
        stack, _, count = line.rpartition(" ")
        if count.isdigit() and ";" in stack:
            seen[tuple(stack.split(";"))] += int(count)
    return seen


def _owner(stack: tuple[str, ...]) -> str:
    """The library, or our module, in which the time was spent."""
    found = _FRAME.match(stack[-1])
    return _module(found.group("file")) if found else stack[-1]


def _ours(stack: tuple[str, ...]) -> str:
    """The innermost function of ours: what the time was spent for."""
    for frame in reversed(stack):
        found = _FRAME.match(frame)
        if found and _module(found.group("file")).startswith("replyline/"):
            return f"{_module(found.group('file'))} {found.group('function')}"
    return "(none of ours)"


def _module(file: str) -> str:
    package = _PACKAGE.search(file)
    if package:
        return package.group(1)
    if "/replyline/" in file:
        return "replyline/" + file.rpartition("/replyline/")[2]
    return f"python: {Path(file).name}" if file.startswith("/") else file


def _by(title: str, seen: "Counter[tuple[str, ...]]", group: Callable[[tuple[str, ...]], str]) -> Table:
    table = Table(title, "share", box=None)
    counted: Counter[str] = Counter()
    for stack, count in seen.items():
        counted[group(stack)] += count
    whole = sum(counted.values()) or 1
    for name, count in counted.most_common(_MOST):
        table.add_row(name, f"{count / whole:.1%}")
    return table


async def _statements(contender: Replyline, messages: int) -> Table:
    table = Table(
        *(f"{contender.name}: statements by time", "calls a message", "rows a call", "ms a call", "buffers a call"),
        *("µs a message",),
        box=None,
    )
    for one in await contender.servers.top_statements(_MOST):
        table.add_row(
            one.query[:90],
            f"{one.calls / messages:.2f}",
            f"{one.rows / one.calls:.1f}",
            f"{one.ms / one.calls:.2f}",
            f"{one.buffers / one.calls:,.0f}",
            f"{one.ms / messages * 1000:.0f}",
        )
    return table

"""CPU time of process trees: nothing is lost when a process ends, nothing is counted twice."""

import os
import subprocess
import sys
from pathlib import Path

from bench.pipeline.cpu import tree_cpu_s
from tests.waiting import until

_BURN = "import time\nwhile time.process_time() < {seconds}: pass"


def test_children_that_have_ended_are_counted_with_theirs() -> None:
    burn = _BURN.format(seconds=0.15)
    child = f"{_waits_for(burn)}\n{burn}"
    with _process(f"{_waits_for(child)}\nprint('ended', flush=True)\ninput()") as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ended\n"
        assert 0.3 <= tree_cpu_s(parent.pid) <= 1.5  # three interpreters start as well


async def test_a_child_that_ended_and_was_not_waited_for_is_counted_once() -> None:
    burn = _BURN.format(seconds=0.2)
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {burn!r}]); print(p.pid, flush=True); input()"
    with _process(code) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        await until(lambda: _state(child) == "Z")
        before = tree_cpu_s(parent.pid)
        assert before >= 0.2
        assert tree_cpu_s(parent.pid) - before < 0.1


def test_a_tree_has_only_its_own() -> None:
    with _process("input()") as idle:
        own = os.times()
        while os.times().user + os.times().system < own.user + own.system + 0.3:
            pass
        assert tree_cpu_s(idle.pid) < 0.3


def _waits_for(code: str) -> str:
    """A program that runs another one and waits for its end."""
    return f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}], check=True)"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def _process(code: str) -> "subprocess.Popen[bytes]":
    """Ends when its standard input is closed, which leaving the block does."""
    return subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

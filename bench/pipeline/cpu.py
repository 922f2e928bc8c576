"""CPU seconds of process trees from /proc, with the time of those that have ended."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_TRIES = 20


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    own: int
    ended: int
    """Ticks of children that have ended and were waited for, and of theirs (proc(5), cutime and cstime)."""


def tree_cpu_s(root: int) -> float:
    """User and system seconds of a process and all its descendants, the ended ones included.

    The kernel adds the time of a child that has ended to its parent's cutime and cstime at the moment that the parent waits for
    it; until then the child is still listed. A process that moves from one to the other while we read would be counted twice or
    not at all, so we read until two readings have the same processes and the same ended time.

    Raises:
        ProcessLookupError: there is no such process.
    """
    before = _tree(root)
    for _ in range(_TRIES):
        now = _tree(root)
        if _shape(now) == _shape(before):
            break
        before = now
    return sum(stat.own + stat.ended for stat in now.values()) / _TICKS


def _shape(tree: dict[int, _Stat]) -> tuple[set[int], int]:
    return set(tree), sum(stat.ended for stat in tree.values())


def _tree(root: int) -> dict[int, _Stat]:
    stats: dict[int, _Stat] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(entry)) is not None:
            stats[int(entry.name)] = stat
            children[stat.parent].append(int(entry.name))
    if root not in stats:
        raise ProcessLookupError(f"there is no process {root}")
    tree: dict[int, _Stat] = {}
    left = [root]
    while left:
        pid = left.pop()
        tree[pid] = stats[pid]
        left += children[pid]
    return tree


def _stat(process: Path) -> _Stat | None:
    try:
        # The name of the program is in parentheses and may hold anything, parentheses too.
        fields = (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended while we looked; its parent has its time
    user, system, ended_user, ended_system = map(int, fields[11:15])
    return _Stat(int(fields[1]), user + system, ended_user + ended_system)

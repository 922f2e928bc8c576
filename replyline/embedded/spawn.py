"""Starting a process that ends when this one does, however this one ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from replyline.embedded.folder import Account

_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Streams:
    """Descriptors for the child's input and outputs; `subprocess.DEVNULL` and `PIPE` will do, None is what we have."""

    stdin: int | None = subprocess.DEVNULL
    stdout: int | None = None
    stderr: int | None = None


def spawn(
    command: Sequence[str],
    *,
    death_signal: signal.Signals,
    lock: int,
    account: Account | None,
    environment: Mapping[str, str],
    streams: Streams,
    folder: str | None = None,
) -> "tuple[subprocess.Popen[bytes], bool]":
    """Start `command` in a session of its own; it gets `death_signal` when this process is gone.

    `lock` is a descriptor that the child inherits and writes its process id to. The second value says whether a watching process
    stands between (see `Supervised`).
    """
    bind = sys.platform == "linux" and threading.current_thread() is threading.main_thread()
    user = account or Account(-1, -1)
    order = ["bind" if bind else "watch", os.getpid(), int(death_signal), lock, user.uid, user.gid]
    os.ftruncate(lock, 0)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_LAUNCHER), *map(str, order), *command],
        stdin=streams.stdin,
        stdout=streams.stdout,
        stderr=streams.stderr,
        env=dict(environment),
        cwd=folder,
        pass_fds=[lock],
        start_new_session=True,  # Ctrl-C must not stop the servers before the workers have drained
    )
    return process, not bind

"""Become a server that dies with the process that started it; run as a script of its own, with nothing of ours imported.

A step between Python and the server, and not `preexec_fn`, because code between fork and exec can deadlock in a process with
threads, and because the death signal must be asked for after the user is changed: changing it clears the request (prctl(2)).
"""

import ctypes
import os
import subprocess
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_EVERY_S = 0.2


def main() -> int:  # noqa: RET503 - it ends in execv, which does not return
    """Arguments: bind|watch, parent pid, death signal, lock descriptor, uid, gid (−1 keeps the user), command."""
    mode, *numbers = sys.argv[1:7]
    parent, death_signal, lock, uid, gid = map(int, numbers)
    command = sys.argv[7:]
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(0o077)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if mode == "watch":
        return _watch(command, parent, death_signal, lock)
    if libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent:
        return 1  # the parent died before the signal was armed
    _note_pid(lock, os.getpid())
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def _watch(command: list[str], parent: int, death_signal: int, lock: int) -> int:
    """Where the kernel has no death signal (macOS): stay beside the server and look whether the parent still is there."""
    server = subprocess.Popen(command, pass_fds=[lock])
    _note_pid(lock, server.pid)
    while True:
        try:
            code = server.wait(_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                server.send_signal(death_signal)
        else:
            return code if code >= 0 else 128 - code


def _note_pid(lock: int, pid: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{pid}\n".encode(), 0)


if __name__ == "__main__":
    sys.exit(main())

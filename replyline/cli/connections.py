"""How many connections the door takes, and how long it keeps one whose other end takes nothing: its server bounds neither."""

import asyncio
import contextlib
import os
import resource
import socket
import stat
import sys

import structlog

log = structlog.get_logger(__name__)

TAKES_NOTHING_S = 60
"""A connection whose other end takes nothing of what it was sent for so long is closed by the kernel."""
_SPARE_FILES = 200
_LISTENS_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.05


def make_room(connections: int) -> int:
    """Let this process have as many open files as that many connections need; returns how many it can have of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    possible = connections if soft == resource.RLIM_INFINITY else min(connections, soft - _SPARE_FILES)
    if possible < connections:
        log.warning("api.few_files", connections=possible, wanted=connections, hint="raise the limit of open files")
    return max(1, possible)


async def let_go_of_the_deaf(port: int, *, after_s: float = TAKES_NOTHING_S) -> bool:
    """Close connections of `port` whose other end takes nothing for `after_s` seconds; False where this system cannot.

    The server (granian 2.8) has no limit of its own: a page that is let go stays a connection for as long as its other end says
    that it is there. What is set on the listening socket (Linux, tcp(7): TCP_USER_TIMEOUT) holds for all that it accepts, and
    the server does not hand that socket out.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is None or not sys.platform.startswith("linux"):
        return False
    async with asyncio.timeout(_LISTENS_WITHIN_S):
        while not (found := _listening(port)):  # noqa: ASYNC110  no event tells
            await asyncio.sleep(_LOOK_EVERY_S)
    for one in found:
        with one:
            one.setsockopt(socket.IPPROTO_TCP, option, round(after_s * 1000))
    return True


def _listening(port: int) -> list[socket.socket]:
    """Our own sockets that listen on the port, each a copy that the caller closes."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            one = socket.socket(fileno=os.dup(int(name)))
            if _listens_on(one, port):
                found.append(one)
            else:
                one.close()
    return found


def _listens_on(one: socket.socket, port: int) -> bool:
    if one.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) and one.getsockname()[1] == port

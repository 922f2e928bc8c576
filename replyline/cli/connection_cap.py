"""How many connections one address may hold at the door: its server (granian 2.8) bounds only all of them together.

Granian accepts in Rust: it has no hook for a new connection and hands out no socket, and Linux has no option that counts by
address (iptables' connlimit does, where somebody sets it). So the process looks at its own sockets once a second, and closes the
newest of an address that has too many.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
import stat
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import structlog

from replyline import metrics
from replyline.settings import Network
from replyline.web.networks import Address, counted_as

log = structlog.get_logger(__name__)

_FOLDER = "/proc/self/fd"
_LOOK_EVERY_S = 1.0
_TELL_EVERY_S = 60.0
_MOST_TOLD = 5
# A proxy on the same machine, which nobody needs to name.
_THIS_MACHINE = frozenset({ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")})

_Known = tuple[int, Address | None, int]
"""A socket's inode (its descriptor may be another's later), its address if that counts, and in which look it was found."""


class ConnectionCap:
    """Closes the newest connections to `port` of each address, or /64 network of IPv6, that has more than `most`.

    Those of `trusted` proxies count for nobody, nor do those of 127.0.0.1 and ::1.
    """

    def __init__(self, port: int, *, most: int, trusted: Sequence[Network]) -> None:
        self._port = port
        self._most = most
        self._trusted = tuple(trusted)
        self._known: dict[int, _Known] = {}
        self._looks = 0
        self._untold: Counter[Address] = Counter()
        self._told_at = -_TELL_EVERY_S

    @staticmethod
    def works_here() -> bool:
        """Whether this system shows a process its own sockets."""
        return sys.platform.startswith("linux") and os.access(_FOLDER, os.R_OK | os.X_OK)

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            self._tell()
            await asyncio.sleep(_LOOK_EVERY_S)

    def look(self) -> int:
        """Look once; how many connections were closed."""
        self._looks += 1
        before, self._known = self._known, {}
        held: defaultdict[Address, list[tuple[int, int, int]]] = defaultdict(list)
        for name in os.listdir(_FOLDER):
            descriptor = int(name)
            with contextlib.suppress(OSError):  # closed meanwhile
                found = os.fstat(descriptor)
                if not stat.S_ISSOCK(found.st_mode):
                    continue
                known = before.get(descriptor)
                if known is None or known[0] != found.st_ino:
                    known = (found.st_ino, self._counted(descriptor), self._looks)
                self._known[descriptor] = known
                if known[1] is not None:
                    held[known[1]].append((known[2], known[0], descriptor))
        closed = 0
        for address, connections in held.items():
            if len(connections) > self._most:
                over = sorted(connections)[self._most :]
                ended = sum(shut(descriptor, inode) for _, inode, descriptor in over)
                self._untold[address] += ended
                closed += ended
        metrics.connections_over_cap_total.inc(closed)
        return closed

    def _counted(self, descriptor: int) -> Address | None:
        """Whose connection it is; None where it is none to the port, or counts for nobody."""
        with socket.socket(fileno=os.dup(descriptor)) as one:
            if one.family not in {socket.AF_INET, socket.AF_INET6} or one.type != socket.SOCK_STREAM:
                return None
            if one.getsockname()[1] != self._port:
                return None
            try:
                peer = ipaddress.ip_address(one.getpeername()[0].partition("%")[0])
            except OSError:  # the socket that listens, or one that is being closed
                return None
        mapped = peer.ipv4_mapped if isinstance(peer, ipaddress.IPv6Address) else None
        address = mapped or peer
        if address in _THIS_MACHINE or any(address in network for network in self._trusted):
            return None
        return counted_as(address)

    def _tell(self) -> None:
        if not +self._untold or time.monotonic() - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = time.monotonic()
        log.warning(
            "api.connections_over_cap",
            closed=self._untold.total(),
            addresses=[str(address) for address, _ in self._untold.most_common(_MOST_TOLD)],
            most=self._most,
            hint="name a proxy in REPLYLINE_TRUSTED_PROXIES, or raise REPLYLINE_MAX_CONNECTIONS_PER_ADDRESS",
        )
        self._untold.clear()


def shut(descriptor: int, inode: int) -> bool:
    """Shut a connection down, unless its descriptor is another's by now; its server notices, and closes it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
        if os.fstat(one.fileno()).st_ino == inode:  # of the copy, which nobody else closes
            one.shutdown(socket.SHUT_RDWR)
            return True
    return False

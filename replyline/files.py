"""Where files of people are kept: a folder, or a bucket that speaks S3, behind one library (fsspec)."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

import fsspec

from replyline.errors import Permanent, Temporary

_IN_MEMORY_BYTES = 1_000_000
_CHUNK_BYTES = 262_144


class _Filesystem(Protocol):
    """What is used of fsspec, which has no types of its own."""

    protocol: str | Sequence[str]

    def makedirs(self, path: str, exist_ok: bool) -> None: ...

    def open(self, path: str, mode: str) -> BinaryIO: ...

    def mv(self, path1: str, path2: str) -> None: ...

    def rm_file(self, path: str) -> None: ...


class FilesUnavailable(Exception):
    """The place where files are kept cannot be used; the message says why, in the library's words."""


class Files:
    """The files of one deployment. Paths are relative to its place and never leave it."""

    def __init__(self, place: str) -> None:
        """`place` as fsspec names it: a folder, or s3://bucket/prefix (needs the extra `s3`; credentials as AWS tools do)."""
        self._place = place
        self._filesystem: _Filesystem | None = None
        self._root = ""

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        """Keep a file whole or not at all; returns its size in bytes.

        Raises:
            Temporary: the place cannot be written to. Errors of `chunks` pass through, and nothing is kept.
        """
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as buffer:
            size = 0
            async for chunk in chunks:
                size += await asyncio.to_thread(buffer.write, chunk)
            try:
                await asyncio.to_thread(self._put, path, buffer)
            except (OSError, ImportError, ValueError) as error:
                raise Temporary(
                    f"the file cannot be kept: {type(error).__name__}", reason="files_unavailable"
                ) from error
        return size

    async def read(self, path: str) -> AsyncIterator[bytes]:
        """The file, piece by piece.

        Raises:
            FileNotFoundError: it is not there (any more).
            FilesUnavailable: see there.
        """
        try:
            opened = await asyncio.to_thread(self._open, path)
        except FileNotFoundError:
            raise
        except (OSError, ImportError, ValueError) as error:
            raise FilesUnavailable(f"{type(error).__name__}: the place of files cannot be read") from error
        with opened:
            while chunk := await asyncio.to_thread(opened.read, _CHUNK_BYTES):
                yield chunk

    async def delete(self, path: str) -> None:
        """Delete the file; one that is gone is no error.

        Raises:
            FilesUnavailable: see there.
        """
        try:
            await asyncio.to_thread(self._remove, path)
        except (OSError, ImportError, ValueError) as error:
            raise FilesUnavailable(f"{type(error).__name__}: the place of files cannot be changed") from error

    def _put(self, path: str, buffer: "tempfile.SpooledTemporaryFile[bytes]") -> None:
        filesystem, target = self._at(path)
        self._make_folders(filesystem, path)
        buffer.seek(0)
        unfinished = f"{target}.part"
        # In a folder a file appears under its name only when it is whole; a bucket does that by itself.
        writes_in_place = "file" not in _protocols(filesystem)
        with filesystem.open(target if writes_in_place else unfinished, "wb") as opened:
            if not writes_in_place:
                os.chmod(unfinished, 0o600)  # whatever the umask: people sent this to one business
            while chunk := buffer.read(_CHUNK_BYTES):
                opened.write(chunk)
        if not writes_in_place:
            filesystem.mv(unfinished, target)

    def _make_folders(self, filesystem: _Filesystem, path: str) -> None:
        """Those that lead to the file, whatever the umask for our own user only; a place that was there before stays as it is."""
        if "file" not in _protocols(filesystem):
            filesystem.makedirs(self._at(path)[1].rpartition("/")[0], exist_ok=True)
            return
        folder = Path(self._root)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
        for name in ("", *PurePosixPath(path).parts[:-1]):
            folder /= name
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                if name and folder.stat().st_mode & 0o077:
                    with contextlib.suppress(PermissionError):  # another user's, who shares the place with us
                        folder.chmod(0o700)

    def _open(self, path: str) -> BinaryIO:
        filesystem, target = self._at(path)
        return filesystem.open(target, "rb")

    def _remove(self, path: str) -> None:
        filesystem, target = self._at(path)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(target)

    def _at(self, path: str) -> tuple[_Filesystem, str]:
        parts = PurePosixPath(path).parts
        if not parts or ".." in parts or path.startswith("/"):
            raise Permanent("a file's path must stay inside its place", reason="bad_path")
        if self._filesystem is None:
            self._filesystem, self._root = fsspec.core.url_to_fs(self._place)
        return self._filesystem, f"{self._root.rstrip('/')}/{path}"


def _protocols(filesystem: _Filesystem) -> tuple[str, ...]:
    named = filesystem.protocol
    return (named,) if isinstance(named, str) else tuple(named)

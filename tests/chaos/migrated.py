"""A Postgres with our tables, without making and migrating it for each test."""

import asyncio
import atexit
import shutil
import tempfile
from pathlib import Path

from replyline.embedded import EmbeddedPostgres
from replyline.store.migrate import migrate

_migrated: Path | None = None
"""The folder of a Postgres with our tables and nothing in them: made once for each process of the tests, then copied."""


async def start_migrated(postgres: EmbeddedPostgres) -> None:
    """Start a new Postgres that has our tables."""
    global _migrated  # noqa: PLW0603  it lives as long as the process
    if _migrated is not None:
        await _copy(_migrated, postgres.folder)
        await postgres.start()
        return
    await postgres.start()
    await asyncio.to_thread(migrate, postgres.url)
    if (postgres.folder / "home").is_symlink():
        return  # its files are elsewhere, where its user can reach them: a copy would lead to the same ones
    await postgres.stop()  # only a server that was stopped has everything in its files
    _migrated = Path(tempfile.mkdtemp(prefix="replyline-chaos-migrated-"))
    atexit.register(shutil.rmtree, _migrated)
    await _copy(postgres.folder, _migrated)
    await postgres.start()


async def _copy(folder: Path, to: Path) -> None:
    """Copy a server's folder with the owners of its files: started by root, Postgres runs as somebody else."""
    copying = await asyncio.create_subprocess_exec("cp", "-a", f"{folder}/.", str(to))
    assert await copying.wait() == 0

"""Whose an API key is, without a read for each request; and when each key was last used, written outside of requests."""

import asyncio
import uuid

from replyline.store import api_keys
from replyline.store.api_keys import KeyHolder
from replyline.store.database import Database, StoreUnavailable
from replyline.store.recently import Changes, Recently
from replyline.supervision import BackgroundTask, Supervisor

_RETRY_S = 1.0
_AT_ONCE = 500


class KeyHolders:
    """Finds the holder of a key; a revoked key works up to 5 seconds longer."""

    def __init__(self, database: Database, supervisor: Supervisor, changes: Changes) -> None:
        self._database = database
        self._supervisor = supervisor
        self._recently: Recently[bytes, KeyHolder] = Recently(changes=changes)
        self._used: set[uuid.UUID] = set()
        self._more = asyncio.Event()
        self._task: BackgroundTask | None = None

    async def find(self, key: str) -> KeyHolder | None:
        """Whose key it is; None where it is unknown or revoked."""
        return await self._recently.get(api_keys.hash_of(key), lambda: self._read(key))

    async def _read(self, key: str) -> KeyHolder | None:
        holder = await api_keys.find(self._database, key)
        if holder is not None and holder.unnoted:
            self._used.add(holder.key_id)
            self._begin()
            self._more.set()
        return holder

    async def close(self) -> None:
        """Stop noting uses; those that wait are lost."""
        if self._task is not None:
            await self._task.stop()

    def _begin(self) -> None:
        """Only a process that is asked about keys has something to note."""
        if self._task is None:
            self._task = self._supervisor.start("last use of API keys", self._note_uses, vital=False)

    async def _note_uses(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._used:
                noted = set(sorted(self._used)[:_AT_ONCE])
                try:
                    await api_keys.note_use(self._database, noted)
                except StoreUnavailable:
                    await asyncio.sleep(_RETRY_S)
                    continue
                self._used -= noted

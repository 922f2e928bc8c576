"""What was read a moment ago, so that the door does not ask Postgres the same thing for every request."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

TTL_S = 5.0
MISS_TTL_S = 1.0
"""For how long what was not found is not looked for again: a flood of unknown keys asks Postgres once a second for each."""
_MOST = 10_000


class Changes:
    """Counts the changes that this process has made to what it remembers: nothing read before a change is believed after it."""

    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        """Something has changed."""
        self.count += 1


class Recently(Generic[Key, Value]):
    """Remembers what was found for `ttl_s` seconds, the newest `most` entries; and as many that were not, for `miss_ttl_s`.

    Where `changes` are given, what was read before the latest of them is read anew.
    """

    def __init__(
        self,
        *,
        ttl_s: float = TTL_S,
        miss_ttl_s: float = MISS_TTL_S,
        most: int = _MOST,
        changes: Changes | None = None,
    ) -> None:
        self._ttl_s = ttl_s
        self._miss_ttl_s = miss_ttl_s
        self._most = most
        self._changes = changes or Changes()
        # Each with until when it holds, and after how many changes it was read. Those that were not found have a place of their
        # own: a flood of unknown keys displaces nothing.
        self._found: OrderedDict[Key, tuple[float, int, Value]] = OrderedDict()
        self._missed: OrderedDict[Key, tuple[float, int, None]] = OrderedDict()

    async def get(self, key: Key, read: Callable[[], Awaitable[Value | None]]) -> Value | None:
        """What `read` found for `key`, now or at most `ttl_s` seconds ago; errors of `read` pass through."""
        now, changes = time.monotonic(), self._changes.count
        entry = self._found.get(key) or self._missed.get(key)
        if entry is not None and entry[0] > now and entry[1] == changes:
            return entry[2]
        value = await read()
        self.forget(key)
        # From before the read: what it saw may be as old as that.
        if value is None:
            _keep(self._missed, key, (now + self._miss_ttl_s, changes, None), self._most)
        else:
            _keep(self._found, key, (now + self._ttl_s, changes, value), self._most)
        return value

    def forget(self, key: Key) -> None:
        """Ask again next time."""
        self._found.pop(key, None)
        self._missed.pop(key, None)

    def __len__(self) -> int:
        """How many entries it keeps."""
        return len(self._found) + len(self._missed)


Entry = TypeVar("Entry")


def _keep(entries: OrderedDict[Key, Entry], key: Key, entry: Entry, most: int) -> None:
    entries[key] = entry
    while len(entries) > most:
        entries.popitem(last=False)

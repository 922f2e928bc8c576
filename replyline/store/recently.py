"""What was read a moment ago, so that the door does not ask Postgres the same thing for every request."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

TTL_S = 5.0
_MOST = 10_000


class Recently(Generic[Key, Value]):
    """Remembers what was found for `ttl_s` seconds, the newest `most` entries; what was not found is asked again each time."""

    def __init__(self, *, ttl_s: float = TTL_S, most: int = _MOST) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._entries: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    async def get(self, key: Key, read: Callable[[], Awaitable[Value | None]]) -> Value | None:
        """What `read` found for `key`, now or at most `ttl_s` seconds ago; errors of `read` pass through."""
        entry = self._entries.get(key)
        now = time.monotonic()
        if entry is not None and entry[0] > now:
            return entry[1]
        value = await read()
        if value is None:
            self._entries.pop(key, None)
            return None
        # From before the read: what it saw may be as old as that.
        self._entries[key] = (now + self._ttl_s, value)
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)
        return value

    def forget(self, key: Key) -> None:
        """Ask again next time."""
        self._entries.pop(key, None)

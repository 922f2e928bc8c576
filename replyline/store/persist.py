"""Writing what must not be lost to a moment in which Postgres cannot: the result of a call that cannot be taken back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from replyline.store.database import StoreUnavailable

Row = TypeVar("Row")
Result = TypeVar("Result")

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0


async def persist(write: Callable[[Row], Awaitable[Result]], row: Row, *, for_s: float) -> Result:
    """Make a move, again and again for `for_s` seconds while Postgres is away or busy. Moves are idempotent.

    Raises:
        StoreUnavailable: it still is; whether the row was written is not known.
    """
    ends_at = time.monotonic() + for_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await write(row)
        except StoreUnavailable:
            if time.monotonic() + pause_s > ends_at:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

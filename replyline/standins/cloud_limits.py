"""Meta's limits on sends: so many a second for a number; a burst, then one in some seconds, to one person (contracts §1.7)."""

import time
from typing import Annotated

import msgspec
from msgspec import Meta


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`burst` messages to one person may come at once, then one in `every_s` seconds."""

    burst: Annotated[int, Meta(ge=1)] = 45
    every_s: Annotated[float, Meta(gt=0)] = 6.0


class Refused(msgspec.Struct):
    """How often each limit has refused a send."""

    throughput_refused: int = 0
    pair_refused: int = 0


class CloudLimits:
    """The buckets of all numbers; each knows when it would be full again."""

    def __init__(self) -> None:
        self._full_at: dict[tuple[str, str], float] = {}
        self.refused: dict[str, Refused] = {}

    def check(self, number_id: str, to: str, *, per_second: float, pair: Pair | None) -> int | None:
        """Meta's error code where a send comes too early."""
        refused = self.refused.setdefault(number_id, Refused())
        if per_second and not self._take((number_id, ""), 1 / per_second, max(1, round(per_second))):
            refused.throughput_refused += 1
            return 130429
        if pair is not None and not self._take((number_id, to), pair.every_s, pair.burst):
            refused.pair_refused += 1
            return 131056
        return None

    def _take(self, bucket: tuple[str, str], every_s: float, burst: int) -> bool:
        now = time.monotonic()
        full_at = max(self._full_at.get(bucket, now), now) + every_s
        if full_at - now > burst * every_s + 0.005:
            return False
        self._full_at[bucket] = full_at
        return True

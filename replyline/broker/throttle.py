"""How often somebody may ask: several token buckets asked at once, in Redis, shared by all processes."""

from collections.abc import Sequence
from dataclasses import dataclass

from replyline.broker.connection import Connection
from replyline.broker.contract import BrokerUnavailable
from replyline.broker.keys import short
from replyline.broker.scripts import THROTTLE

_LONGEST_EVERY_S = 31 * 86_400
_LARGEST_BURST = 1_000_000


@dataclass(frozen=True, slots=True)
class Bucket:
    """`burst` (1 to 1,000,000) at once, then one every `every_s` seconds (up to 31 days); 0 s is no limit."""

    name: str
    every_s: float
    burst: int

    def __post_init__(self) -> None:
        if not 0 <= self.every_s <= _LONGEST_EVERY_S:
            raise ValueError(f"every_s must be between 0 and {_LONGEST_EVERY_S}: {self.every_s}")
        if not 1 <= self.burst <= _LARGEST_BURST:
            raise ValueError(f"burst must be between 1 and {_LARGEST_BURST}: {self.burst}")


@dataclass(frozen=True, slots=True)
class Refused:
    """The bucket that needs longest until it has a token again, and how long: above 0 seconds."""

    name: str
    after_s: float


class Throttle:
    """The buckets of all sites."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def take(self, site: str, buckets: Sequence[Bucket]) -> Refused | None:
        """Take one token of each bucket, or of none; None where they were taken. Names may be anything, also long.

        Buckets of a site that have the same name are the same, whoever asks; what changes between calls holds from then on.

        Raises:
            ValueError: a name stands there twice.
            BrokerUnavailable: Redis is away; whether tokens were taken is not known. Never where nothing is limited.
        """
        limits = [bucket for bucket in buckets if bucket.every_s > 0]
        keys = [self._key(site, bucket.name) for bucket in limits]
        if len(set(keys)) < len(keys):
            raise ValueError(f"one bucket asked twice: {[bucket.name for bucket in limits]}")
        if not limits:
            return None
        numbers = [number for bucket in limits for number in (str(bucket.every_s * 1000), str(bucket.burst))]
        answer = await self._connection.run(THROTTLE.call_on(keys, *numbers))
        match answer:
            case [0, _]:
                return None
            case [int() as number, int() as wait_ms] if 1 <= number <= len(limits):
                return Refused(limits[number - 1].name, wait_ms / 1000)
            case _:
                raise BrokerUnavailable(f"unexpected answer of the throttle: {answer!r}")

    def _key(self, site: str, name: str) -> str:
        """All keys of one site are in one slot of a Redis Cluster: the braces are its hash tag."""
        return f"{self._prefix}:replyline:throttle:{{{short(site)}}}:{short(name)}"

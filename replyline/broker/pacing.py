"""How fast messages may leave: token buckets in Redis, shared by all workers, that give each message a slot of its own."""

import random
from dataclasses import dataclass
from typing import Literal

from replyline.broker.connection import Connection
from replyline.broker.contract import BrokerUnavailable
from replyline.broker.scripts import PACE_BLOCK, PACE_SLOT
from replyline.broker.wire import Word

LONGEST_BLOCK_S = 3600.0
_TICKET_OUTLIVES_MS = 120_000
_DAY_S = 86_400

Waits = Literal["recipient", "account", "day"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Intervals in seconds, 0 for no limit; `burst` messages may leave at once before the interval counts."""

    account_every_s: float
    account_burst: int
    recipient_every_s: float
    recipient_burst: int
    per_day: int

    @property
    def none(self) -> bool:
        """Whether there is nothing to look at."""
        return not (self.account_every_s or self.recipient_every_s or self.per_day)


@dataclass(frozen=True, slots=True)
class Slot:
    """When the message may leave: in `after_s` seconds (0 is now), and whom that is about."""

    after_s: float
    waits_for: Waits | None


class Pacing:
    """The buckets of all accounts. Every call raises BrokerUnavailable while Redis is away."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def slot(self, account: str, recipient: str, ticket: str, limits: Limits) -> Slot:
        """Reserve a slot for the message `ticket`; asked again at its time, it is let through."""
        day = self._connection.clock.now_ms() // 1000 // _DAY_S
        answer = await self._connection.run(
            PACE_SLOT.call(
                self._key(account, "rate"),
                self._key(account, "blocked"),
                self._key(account, "rate", recipient),
                self._key(account, "blocked", recipient),
                self._key(account, "ticket", ticket),
                self._key(account, "day", str(day)),
                self._key(account, "left"),
                *self._numbers(limits),
            )
        )
        match answer:
            case [int() as wait_ms, b"go" | b"recipient" | b"account" | b"day" as what]:
                names: dict[bytes, Waits] = {b"recipient": "recipient", b"account": "account", b"day": "day"}
                return Slot(wait_ms / 1000, names.get(what))
            case _:
                raise BrokerUnavailable(f"unexpected slot: {answer!r}")

    async def block(
        self,
        account: str,
        recipient: str | None,
        *,
        first_s: float,
        growth: float = 1.0,
        longest_s: float = LONGEST_BLOCK_S,
    ) -> float:
        """Let nothing of the account (or to that recipient) leave for a while; returns for how many seconds."""
        name = [] if recipient is None else [recipient]
        answer = await self._connection.run(
            PACE_BLOCK.call(
                self._key(account, "blocked", *name),
                self._key(account, "strikes", *name),
                str(first_s * 1000),
                str(growth),
                str(longest_s * 1000),
            )
        )
        if not isinstance(answer, int):
            raise BrokerUnavailable(f"unexpected block: {answer!r}")
        return answer / 1000

    def _numbers(self, limits: Limits) -> tuple[Word, ...]:
        return (
            str(limits.account_every_s * 1000),
            str(limits.account_burst),
            str(limits.recipient_every_s * 1000),
            str(limits.recipient_burst),
            str(limits.per_day),
            str(_TICKET_OUTLIVES_MS),
            str(random.random()),  # those who were too early do not all come back at once
        )

    def _key(self, account: str, *names: str) -> str:
        """All keys of one account are in one slot of a Redis Cluster: the braces are its hash tag."""
        return ":".join((self._prefix, "replyline", "pace", f"{{{account}}}", *names))

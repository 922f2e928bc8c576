"""Redis' time: what decides when a delayed job is due must not depend on which machine looked at its own clock."""

import time

from replyline.broker.wire import Reply

_GOOD_ENOUGH_S = 0.25


class RedisClock:
    """Redis' clock as last asked, carried on by this machine's monotonic clock, which nobody can set."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None

    def learn(self, reply: Reply, asked_at: float, answered_at: float) -> None:
        """Take the answer to TIME; the two moments are of `time.monotonic`. A late answer is taken only if there was no other."""
        if not isinstance(reply, list) or len(reply) != 2:
            return
        seconds, micros = (int(part) if isinstance(part, bytes) else 0 for part in reply)
        if self._ahead_s is None or answered_at - asked_at < _GOOD_ENOUGH_S:
            self._ahead_s = seconds + micros / 1_000_000 - (asked_at + answered_at) / 2

    def now_ms(self) -> int:
        """Milliseconds since 1970; by this machine's own clock as long as Redis was never reached."""
        if self._ahead_s is None:
            return time.time_ns() // 1_000_000
        return round((time.monotonic() + self._ahead_s) * 1000)

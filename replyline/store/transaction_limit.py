"""The limit on transactions in flight: batches form by themselves, because a batch is taken when its turn comes."""

import asyncio
from collections import deque
from collections.abc import Callable


class TransactionLimit:
    """At most `most` transactions of one process are in flight on the hot path; whoever asked first begins first.

    Postgres does not finish sooner what more sessions ask of it at once than it has cores. A transaction that waits here goes on
    collecting rows, so that under load each one carries more of them, and nothing waits while little is asked.
    """

    def __init__(self, most: int) -> None:
        """Raises ValueError for less than one."""
        if most < 1:
            raise ValueError(f"at least one transaction must be possible, not {most}")
        self._most = most
        self._in_flight = 0
        self._asking: deque[Callable[[], bool]] = deque()
        self._is_due = False

    def ask(self, begin: Callable[[], bool]) -> None:
        """Have `begin` called when a transaction may begin; it says whether one did, and `ended` must follow if so."""
        self._asking.append(begin)
        self._serve_soon()

    def ended(self) -> None:
        """A transaction has ended: the next one may begin."""
        self._in_flight -= 1
        self._serve_soon()

    def _serve_soon(self) -> None:
        # Not at once: what else the event loop does in this moment may ask for the same transaction.
        if self._asking and self._in_flight < self._most and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        self._is_due = False
        while self._asking and self._in_flight < self._most:
            begin = self._asking.popleft()
            self._in_flight += 1
            if not begin():
                self._in_flight -= 1

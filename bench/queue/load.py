"""The work that all contenders are given, and how a child says what it measured."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

QUEUE = "bench"
IN_FLIGHT = 64
PRIORITY = 5
ATTEMPTS = 4
KEEP_COMPLETED_S = 3600
KEEP_FAILED_S = 86400
PAYLOAD = {
    "messageId": "0199b0f2-6e2a-7c11-8f00-5a4b3c2d1e0f",
    "conversationId": "0199b0f2-6e2a-7c11-8f00-000000000001",
    "customerId": "0199b0f2-6e2a-7c11-8f00-000000000002",
    "chatbotId": "0199b0f2-6e2a-7c11-8f00-000000000003",
    "channel": "WHATSAPP_CLOUD",
    "traceId": "0199b0f2-6e2a-7c11-8f00-000000000004",
    "text": "Hello, are you open on Sundays, and can I bring my dog along to the terrace?",
    "receivedAt": 1790000000000,
}


@dataclass(frozen=True, slots=True)
class Order:
    """What one child is to do: `role` is enqueue, drain, listen or pace; `rate` is jobs a second for pace."""

    role: str
    url: str
    count: int
    concurrency: int
    rate: int

    def words(self) -> list[str]:
        """The same as command-line arguments."""
        return [self.role, self.url, str(self.count), str(self.concurrency), str(self.rate)]


def order_from_command_line() -> Order:
    """What this child is to do."""
    role, url, count, concurrency, rate = sys.argv[1:6]
    return Order(role, url, int(count), int(concurrency), int(rate))


def say(seconds: float = 0.0, cpu_s: float = 0.0, late_ms: Sequence[float] = ()) -> None:
    """One line for the parent."""
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "late_ms": late_ms}), flush=True)


class Meter:
    """Time and processor time of this process from its start until the last job."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._cpu = time.process_time()

    def say(self) -> None:
        """Tell the parent the seconds since the start, on the wall and on the processor."""
        say(seconds=time.perf_counter() - self._began, cpu_s=time.process_time() - self._cpu)

"""The `bullmq` package for Python as it is installed, but for the one option without which its idle worker goes blind."""

import asyncio
import time
from typing import Protocol

import uvloop
from bullmq import Queue, Worker

from bench.queue.load import (
    ATTEMPTS,
    IN_FLIGHT,
    KEEP_COMPLETED_S,
    KEEP_FAILED_S,
    PAYLOAD,
    PRIORITY,
    QUEUE,
    Meter,
    Order,
    order_from_command_line,
    say,
)

_OPTIONS = {
    "attempts": ATTEMPTS,
    "backoff": {"type": "exponential", "delay": 1000},
    "removeOnComplete": {"age": KEEP_COMPLETED_S},
    "removeOnFail": {"age": KEEP_FAILED_S},
    "priority": PRIORITY,
}


class _Adds(Protocol):
    """What of the package's `Queue`, which has no types, is used."""

    async def add(self, name: str, data: object, options: object) -> object:
        """Add one job."""


async def _enqueue(queue: _Adds, order: Order) -> None:
    numbers = iter(range(order.count))

    async def producer() -> None:
        for number in numbers:
            await queue.add("work", PAYLOAD, {**_OPTIONS, "jobId": f"job-{number}"})

    meter = Meter()
    await asyncio.gather(*(producer() for _ in range(IN_FLIGHT)))
    meter.say()


async def _pace(queue: _Adds, order: Order) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    adding = set()
    for number in range(order.count):
        await asyncio.sleep(began + number / order.rate - loop.time())
        data = {**PAYLOAD, "at": time.time() * 1000}
        adding.add(asyncio.create_task(queue.add("work", data, {**_OPTIONS, "jobId": f"job-{number}"})))
    await asyncio.gather(*adding)
    say()


async def _work(connection: str, order: Order) -> None:
    meter: Meter | None = None
    late: list[float] = []
    handled = 0
    done = asyncio.Event()

    async def drained(job: object, token: str) -> None:
        nonlocal meter, handled
        meter = meter or Meter()
        handled += 1
        if handled == order.count:
            meter.say()
            done.set()

    async def heard(job: object, token: str) -> None:
        late.append(time.time() * 1000 - job.data["at"])  # type: ignore[attr-defined]  # the package has no types
        await drained(job, token)

    handler = heard if order.role == "listen" else drained
    worker = Worker(QUEUE, handler, {"connection": connection, "concurrency": order.concurrency})
    if order.role == "listen":
        say()
    await done.wait()
    await worker.close()
    say(late_ms=late)


async def _main(order: Order) -> None:
    # redis-py 8 gives up reading after 5 s, and the worker blocks for longer.
    connection = f"{order.url}{'&' if '?' in order.url else '?'}socket_timeout=30"
    if order.role in {"drain", "listen"}:
        await _work(connection, order)
        return
    queue = Queue(QUEUE, {"connection": connection})
    await (_enqueue if order.role == "enqueue" else _pace)(queue, order)
    await queue.close()


if __name__ == "__main__":
    uvloop.run(_main(order_from_command_line()))

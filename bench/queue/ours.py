"""The contender under test: Replyline's broker."""

import asyncio
import json
import time

import uvloop

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
from replyline.broker import ActiveJob, Broker, Completed, Publication


def _publication(number: int, data: bytes) -> Publication:
    return Publication(
        QUEUE,
        f"job-{number}",
        "work",
        data,
        PRIORITY,
        attempts=ATTEMPTS,
        keep_completed_s=KEEP_COMPLETED_S,
        keep_failed_s=KEEP_FAILED_S,
    )


async def _enqueue(broker: Broker, order: Order) -> None:
    numbers = iter(range(order.count))

    async def producer() -> None:
        for number in numbers:
            await broker.publish([_publication(number, json.dumps(PAYLOAD).encode())])

    meter = Meter()
    await asyncio.gather(*(producer() for _ in range(IN_FLIGHT)))
    meter.say()


async def _pace(broker: Broker, order: Order) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    adding = set()
    for number in range(order.count):
        await asyncio.sleep(began + number / order.rate - loop.time())
        data = json.dumps({**PAYLOAD, "at": time.time() * 1000}).encode()
        adding.add(asyncio.create_task(broker.publish([_publication(number, data)])))
    await asyncio.gather(*adding)
    say()


async def _work(broker: Broker, order: Order) -> None:
    """Drain or listen: work until `count` jobs were handled."""
    meter: Meter | None = None
    late: list[float] = []
    handled = 0
    done = asyncio.Event()

    async def drained(_: ActiveJob) -> Completed:
        nonlocal meter, handled
        meter = meter or Meter()
        handled += 1
        if handled == order.count:
            meter.say()
            done.set()
        return Completed()

    async def heard(job: ActiveJob) -> Completed:
        late.append(time.time() * 1000 - json.loads(job.data)["at"])
        return await drained(job)

    handler = heard if order.role == "listen" else drained
    worker = broker.worker(QUEUE, handler, concurrency=order.concurrency, name="bench")
    running = asyncio.create_task(worker.run())
    if order.role == "listen":
        say()
    await done.wait()
    await worker.close(5)
    await running
    say(late_ms=late)


async def _main(order: Order) -> None:
    broker = Broker(order.url)
    await broker.open()
    match order.role:
        case "enqueue":
            await _enqueue(broker, order)
        case "pace":
            await _pace(broker, order)
        case _:
            await _work(broker, order)
    await broker.close()


if __name__ == "__main__":
    uvloop.run(_main(order_from_command_line()))

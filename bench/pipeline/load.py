"""Load on a contender's door, closed or paced, and what it cost."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import quantiles

from bench.pipeline.contenders import Contender, Used

_PROGRESS_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.05


class Contacts:
    """Who writes next: somebody new, or one of `returning` people, none of whom writes again before the answer came."""

    def __init__(self, first: int, *, returning: int = 0) -> None:
        self._next = first
        self._free = deque(_phone(first + number) for number in range(returning))
        self._returns = returning > 0

    def next(self) -> str | None:
        """The next contact; None where everybody waits for an answer."""
        if self._returns:
            return self._free.popleft() if self._free else None
        self._next += 1
        return _phone(self._next)

    def answered(self, contact: str) -> None:
        """The contact may write again."""
        if self._returns:
            self._free.append(contact)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one load came to."""

    messages: int
    per_second: float
    """Sent, from the first post to the last send, less the model's time: the last messages wait for it while nothing else is to
    be done. A paced load has the rate at which it was posted."""
    until_hooks_per_second: float
    """From the first post to the last delivered webhook."""
    used: Used
    load_cpu_s: float
    """Of the load and the stand-ins."""
    added_ms: list[float] = field(repr=False)
    """Of each message from its post to its send, without the model's time."""

    def cpu_ms(self, seconds: float) -> float:
        """Milliseconds a message."""
        return seconds / self.messages * 1000

    def percentile(self, percent: int) -> float:
        """Of the added milliseconds."""
        return quantiles(self.added_ms, n=100, method="inclusive")[percent - 1]


async def closed(contender: Contender, seconds: float, *, flight: int, contacts: Contacts) -> Sample:
    """Keep `flight` messages between the door and Meta for so long; those that the model thinks about do not count.

    A slow contender is so posted to as fast as it can send and no faster, and the time of the model takes nothing from the load.
    """
    ledger = contender.outside.ledger
    busy = 0
    changed = asyncio.Event()
    sends: list[float] = []
    added: list[float] = []
    posts: set[asyncio.Task[None]] = set()

    def sent(contact: str, added_s: float) -> None:
        nonlocal busy
        busy -= 1
        sends.append(time.perf_counter())
        added.append(added_s * 1000)
        contacts.answered(contact)
        changed.set()

    def at_model(change: int) -> None:
        nonlocal busy
        busy -= change
        changed.set()

    async def run() -> tuple[float, float]:
        nonlocal busy
        began = time.perf_counter()
        ends = began + seconds
        while time.perf_counter() < ends:
            contact = contacts.next() if busy < flight else None
            if contact is None:
                await _until(changed, min(0.5, ends - time.perf_counter()))
                _raise_failed(posts)
                contender.check()
                continue
            busy += 1
            _start(posts, contender.post(contact, ledger.ask(contact)))
        return began, time.perf_counter()

    ledger.on_sent, ledger.on_model = sent, at_model
    began, _, measured = await _measured(contender, run, posts)
    worked_s = sends[-1] - began - contender.outside.think_s
    return Sample(len(sends), len(sends) / worked_s, len(sends) / measured.seconds, *measured.costs, added)


async def paced(
    contender: Contender, seconds: float, *, rate: float, contacts: Contacts, warm_s: float = 1.0
) -> Sample:
    """Post `rate` messages a second, whatever becomes of them; those of the first `warm_s` seconds are not timed."""
    ledger = contender.outside.ledger
    added: list[float] = []
    posts: set[asyncio.Task[None]] = set()
    sent_count = 0
    timed: set[str] = set()

    def sent(contact: str, added_s: float) -> None:
        nonlocal sent_count
        sent_count += 1
        contacts.answered(contact)
        if contact in timed:
            added.append(added_s * 1000)

    async def run() -> tuple[float, float]:
        began = time.perf_counter()
        for number in range(int(rate * (warm_s + seconds))):
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            contact = contacts.next()
            if contact is None:
                raise RuntimeError("more contacts wait for an answer than there are")
            if number >= rate * warm_s:
                timed.add(contact)
            _start(posts, contender.post(contact, ledger.ask(contact)))
            if number % 100 == 0:
                _raise_failed(posts)
                contender.check()
        return began, time.perf_counter()

    ledger.on_sent = sent
    began, ended, measured = await _measured(contender, run, posts)
    return Sample(sent_count, sent_count / (ended - began), sent_count / measured.seconds, *measured.costs, added)


@dataclass(frozen=True, slots=True)
class _Measured:
    seconds: float
    costs: tuple[Used, float]


async def _measured(
    contender: Contender, run: Callable[[], Awaitable[tuple[float, float]]], posts: "set[asyncio.Task[None]]"
) -> tuple[float, float, _Measured]:
    """Run a load and wait until all of it is done, webhooks too: they are part of what a message costs."""
    ledger = contender.outside.ledger
    before, load_before = await contender.used(), _own_cpu_s()
    try:
        began, ended = await run()
        await asyncio.gather(*posts)
        await settled(contender)
        all_done = time.perf_counter()
    finally:
        for post in posts:
            post.cancel()
        ledger.on_sent, ledger.on_model = lambda _contact, _s: None, lambda _change: None
    used = (await contender.used()).since(before)
    return began, ended, _Measured(all_done - began, (used, _own_cpu_s() - load_before))


async def settled(contender: Contender) -> None:
    """Wait until every message of the contender was answered and every webhook delivered.

    Raises:
        RuntimeError: for a minute nothing arrived, beside the time that the model takes.
    """
    ledger = contender.outside.ledger
    seen, since = -1, time.perf_counter()
    while ledger.answered < ledger.asked or ledger.hooks < ledger.answered:
        contender.check()
        if ledger.answered + ledger.hooks > seen:
            seen, since = ledger.answered + ledger.hooks, time.perf_counter()
        if time.perf_counter() - since > _PROGRESS_WITHIN_S + contender.outside.think_s:
            raise RuntimeError(
                f"{contender.name}: nothing arrives any more; {ledger.asked - ledger.answered} of {ledger.asked} messages are "
                f"not answered, {ledger.answered - ledger.hooks} webhooks not delivered\n{contender.end_of_log()}"
            )
        await asyncio.sleep(_LOOK_EVERY_S)


def _start(posts: "set[asyncio.Task[None]]", posting: Awaitable[None]) -> None:
    post = asyncio.ensure_future(posting)
    posts.add(post)
    post.add_done_callback(lambda done: posts.discard(done) if not done.cancelled() and not done.exception() else None)


def _raise_failed(posts: "set[asyncio.Task[None]]") -> None:
    for post in posts:
        if post.done():
            post.result()


async def _until(changed: asyncio.Event, seconds: float) -> None:
    changed.clear()
    try:
        async with asyncio.timeout(max(0.001, seconds)):
            await changed.wait()
    except TimeoutError:
        return


def _own_cpu_s() -> float:
    used = os.times()
    return used.user + used.system


def _phone(number: int) -> str:
    return f"49{number:012d}"

"""Callbacks to our door: posted as the real services post them, tried again until 2xx, and bent by faults."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import aiohttp

from replyline.standins.faults import CALLBACK_KINDS, Faults

_TRIES = 5
_FIRST_PAUSE_S = 0.2
_MAX_WAITING = 50_000

Item = TypeVar("Item")
Sign = Callable[[bytes], Mapping[str, str]]


class Callbacks(Generic[Item]):
    """The outgoing side of a stand-in; a body is built of one or more items (messages, statuses).

    One session, at most 64 posts at once, at most 50,000 waiting.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._http: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(64)
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches: dict[str, list[Item]] = {}
        self.dropped = 0
        """Callbacks that never got a 2xx, or for which there was no room."""

    def later(self, url: str, items: Sequence[Item], build: Callable[[Sequence[Item]], bytes], sign: Sign) -> None:
        """Post in the background."""
        if len(self._tasks) >= _MAX_WAITING:
            self.dropped += 1
            return
        task = asyncio.create_task(self._bent(url, list(items), build, sign))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def now(self, url: str, items: Sequence[Item], build: Callable[[Sequence[Item]], bytes], sign: Sign) -> int:
        """Post once and return the status; 0 where nobody answered."""
        body = build(items)
        return await self._post(url, body, sign(body))

    async def close(self) -> None:
        """Give up what waits."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def _bent(self, url: str, items: list[Item], build: Callable[[Sequence[Item]], bytes], sign: Sign) -> None:
        fault = self._faults.pick(url, build(items), CALLBACK_KINDS)
        times = 1
        if fault is not None:
            match fault.kind:
                case "callback_drop":
                    return
                case "callback_delay":
                    await asyncio.sleep(fault.seconds)
                case "callback_reorder":
                    await asyncio.sleep(random.uniform(0, fault.seconds or 0.2))
                case "callback_repeat":
                    times = fault.repeat
                case "callback_batch":
                    joined = await self._batch(url, items, fault.size, fault.seconds or 0.2)
                    if joined is None:
                        return
                    items = joined
                case _:
                    pass
        await asyncio.gather(*(self._until_accepted(url, build(items), sign) for _ in range(times)))

    async def _batch(self, url: str, items: list[Item], size: int, within_s: float) -> list[Item] | None:
        """Collect until `size` or `within_s`: the one who came first posts them all, the others nothing."""
        waiting = self._batches.get(url)
        if waiting is not None and len(waiting) < size:
            waiting += items
            return None
        batch = self._batches[url] = list(items)
        await asyncio.sleep(within_s)
        if self._batches.get(url) is batch:
            del self._batches[url]
        return batch

    async def _until_accepted(self, url: str, body: bytes, sign: Sign) -> None:
        headers = sign(body)
        for attempt in range(_TRIES):
            if 200 <= await self._post(url, body, headers) < 300:
                return
            await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
        self.dropped += 1

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        async with self._slots:
            try:
                async with self._http.post(
                    url, data=body, headers={"Content-Type": "application/json", **headers}
                ) as response:
                    await response.read()
                    return response.status
            except (aiohttp.ClientError, TimeoutError):
                return 0  # nobody there: tried again like any answer that is not 2xx

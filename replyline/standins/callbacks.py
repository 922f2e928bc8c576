"""Callbacks to our door: posted as the real services post them, tried again until 2xx, and bent by faults."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Generic, TypeVar, assert_never

import aiohttp
import msgspec

from replyline.standins.faults import (
    CALLBACK_FAULTS,
    CallbackBatch,
    CallbackDelay,
    CallbackDrop,
    CallbackFault,
    CallbackReorder,
    CallbackRepeat,
    Faults,
    Seconds,
)

MAX_WAITING = 50_000
"""Callbacks that wait at once, at most; those of one send, posted one after the other, count as one."""
_AT_ONCE = 64
_TIMEOUT_S = 10.0

Item = TypeVar("Item")


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a callback is posted until it is taken, and the first pause in seconds; each pause is twice the one before."""

    tries: Annotated[int, msgspec.Meta(ge=1, le=20)] = 5
    first_wait_s: Seconds = 0.2


class Counts(msgspec.Struct, frozen=True):
    """`waiting`: not yet taken. `posted`: tries so far. `given_up`: never taken. `no_room`: too many waited."""

    waiting: int
    posted: int
    given_up: int
    no_room: int


@dataclass(frozen=True, slots=True)
class Callback(Generic[Item]):
    """What goes to `url`, signed with `secret`: messages and statuses."""

    url: str
    secret: str
    items: tuple[Item, ...]


_First = asyncio.Future[int]


@dataclass(frozen=True, slots=True)
class _Group(Generic[Item]):
    """Callbacks that are held, to be posted together or the last first."""

    rule: CallbackBatch | CallbackReorder
    held: list[tuple[Callback[Item], _First | None]] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)


class Callbacks(Generic[Item]):
    """The outgoing side of a stand-in: one session, at most 64 posts at once, at most `MAX_WAITING` waiting."""

    def __init__(
        self,
        faults: Faults,
        encode: Callable[[Sequence[Item]], bytes],
        sign: Callable[[str, bytes], Mapping[str, str]],
        *,
        most_waiting: int = MAX_WAITING,
    ) -> None:
        self.retry = Retry()
        self._faults = faults
        self._encode = encode
        self._sign = sign
        self._most_waiting = most_waiting
        self._http: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._groups: dict[tuple[type[CallbackFault], str, str], _Group[Item]] = {}
        self._posted = self._given_up = self._no_room = 0
        self._closed = False

    def counts(self) -> Counts:
        """How it goes."""
        return Counts(len(self._tasks), self._posted, self._given_up, self._no_room)

    def later(self, *callbacks: Callback[Item]) -> None:
        """Post in the background, one after the other; those that a fault bends go their own way."""
        self._spawn(self._in_turn(callbacks))

    async def now(self, callback: Callback[Item]) -> int:
        """Post, and return the status of the first answer; 0 where nobody answered or a fault dropped it.

        Where that is not 2xx, it is tried again in the background.
        """
        first: _First = asyncio.get_running_loop().create_future()
        if self._spawn(self._one(callback, first)) is None:
            return 0
        return await first

    async def at_once(self, *callbacks: Callback[Item]) -> None:
        """Post one after the other and wait for their first answers."""
        for callback in callbacks:
            await self.now(callback)

    async def post_once(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Status and body of one post, never repeated; (0, "") where nobody answered."""
        try:
            async with self._session().post(
                url, data=body, headers={"Content-Type": "application/json", **headers}, allow_redirects=False
            ) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""  # said to who asked: status 0

    async def get(self, url: str, query: Mapping[str, str]) -> tuple[int, str]:
        """Status and body of a GET; (0, "") where nobody answered."""
        try:
            async with self._session().get(url, params=query, allow_redirects=False) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""  # said to who asked: status 0

    async def close(self) -> None:
        """Give up what waits, and take no more."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._http

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None] | None:
        if self._closed or len(self._tasks) >= self._most_waiting:
            work.close()
            self._no_room += 1
            return None
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _in_turn(self, callbacks: Sequence[Callback[Item]]) -> None:
        for callback in callbacks:
            await self._one(callback, None)

    async def _one(self, callback: Callback[Item], first: _First | None) -> None:
        try:
            rule = (
                self._faults.pick(callback.url, self._encode(callback.items), CALLBACK_FAULTS) if self._faults else None
            )
            if rule is None:
                await self._until_taken(callback, [first])
            else:
                self._bend(rule, callback, first)
        except BaseException:  # who waits for the first answer must not wait for ever
            _answer([first], 0)
            raise

    def _bend(self, rule: CallbackFault, callback: Callback[Item], first: _First | None) -> None:
        match rule:
            case CallbackDrop():
                _answer([first], 0)
            case CallbackDelay(seconds=seconds):
                self._apart(self._delayed(seconds, callback, first), [first])
            case CallbackRepeat(repeat=repeat):
                for _ in range(repeat):
                    self._apart(self._until_taken(callback, [first]), [first])
            case CallbackBatch() | CallbackReorder():
                self._hold(rule, callback, first)
            case _:
                assert_never(rule)

    def _apart(self, work: Coroutine[object, object, None], firsts: Sequence[_First | None]) -> None:
        """Run it beside the one it came from; who waits for it hears of its end, even a forced one."""
        task = self._spawn(work)
        if task is None:
            _answer(firsts, 0)
        else:
            task.add_done_callback(lambda _: _answer(firsts, 0))

    async def _delayed(self, seconds: float, callback: Callback[Item], first: _First | None) -> None:
        await asyncio.sleep(seconds)
        await self._until_taken(callback, [first])

    def _hold(self, rule: CallbackBatch | CallbackReorder, callback: Callback[Item], first: _First | None) -> None:
        key = (type(rule), callback.url, callback.secret)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(rule)
            self._apart(self._let_go(key, group), [first])
        group.held.append((callback, first))
        if sum(len(held.items) for held, _ in group.held) >= group.rule.size:
            del self._groups[key]
            group.full.set()

    async def _let_go(self, key: tuple[type[CallbackFault], str, str], group: _Group[Item]) -> None:
        with suppress(TimeoutError):  # time is up: what there is goes
            async with asyncio.timeout(group.rule.within_s):
                await group.full.wait()
        if self._groups.get(key) is group:
            del self._groups[key]
        firsts = [first for _, first in group.held]
        try:
            if isinstance(group.rule, CallbackBatch):
                items = tuple(item for callback, _ in group.held for item in callback.items)
                await self._until_taken(Callback(key[1], key[2], items), firsts)
            else:
                for callback, first in reversed(group.held):
                    await self._until_taken(callback, [first])
        finally:
            _answer(firsts, 0)

    async def _until_taken(self, callback: Callback[Item], firsts: Sequence[_First | None]) -> None:
        """Post until 2xx; signed once, as the services do."""
        body = self._encode(callback.items)
        headers = {"Content-Type": "application/json", **self._sign(callback.secret, body)}
        retry = self.retry
        for attempt in range(retry.tries):
            if attempt:
                await asyncio.sleep(retry.first_wait_s * 2 ** (attempt - 1))
            status = await self._post(callback.url, body, headers)
            _answer(firsts, status)
            if 200 <= status < 300:
                return
        self._given_up += 1

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        async with self._slots:
            self._posted += 1
            try:
                async with self._session().post(url, data=body, headers=headers, allow_redirects=False) as response:
                    await response.read()
                    return response.status
            except (aiohttp.ClientError, TimeoutError):
                return 0  # nobody there: tried again like any answer that is not 2xx


def _answer(firsts: Sequence[_First | None], status: int) -> None:
    for first in firsts:
        if first is not None and not first.done():
            first.set_result(status)

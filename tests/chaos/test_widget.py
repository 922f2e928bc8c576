"""Harm done while visitors talk to a bot that writes slowly: every page has everything once, in order, and nothing half."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
import pytest

from replyline.broker import Broker
from tests.chaos.town import Town
from tests.waiting import until

pytestmark = pytest.mark.chaos

PAGES = 10
QUESTIONS = 3


class _Message(msgspec.Struct):
    author: str
    text: str


class _Page:
    """One visitor's page: it writes until it is taken, and listens from its last place, however often it is cut off."""

    def __init__(self, town: Town, name: str) -> None:
        self._town = town
        self._name = name
        self._page = uuid.uuid4().hex
        self._headers = {"Origin": town.api}
        self.log: list[tuple[int, str, str]] = []
        self.pieces = 0

    async def talk(self) -> None:
        """Ask, wait for the answer, ask again."""
        await self._begin()
        listening = asyncio.create_task(self._listen())
        try:
            for number in range(QUESTIONS):
                await self._write(f"{self._name} asks {number}?")
                await until(lambda: len(self.log) >= 2 * (number + 1), timeout_s=60, what=f"{self._name}: {self.log}")  # noqa: B023
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _begin(self) -> None:
        body = {"site_key": self._town.widget.external_id}
        async with self._town.http.post(f"{self._url}/sessions", json=body, headers=self._headers) as response:
            assert response.status == 201, await response.text()
            self._headers["Authorization"] = f"Bearer {(await response.json())['session_token']}"

    async def _write(self, text: str) -> None:
        body = {"client_id": str(uuid.uuid4()), "text": text}

        async def taken() -> bool:
            try:
                async with self._town.http.post(f"{self._url}/messages", json=body, headers=self._headers) as response:
                    return response.status in {200, 202}
            except aiohttp.ClientError:
                return False  # the door is away: the same message again

        await until(taken, timeout_s=30, what="the door to take it")

    async def _listen(self) -> None:
        while True:
            place = self.log[-1][0] if self.log else 0
            url = f"{self._url}/events?page={self._page}&after={place}"
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # cut off, or the door is away: again
                async with self._town.http.get(
                    url, headers=self._headers, timeout=aiohttp.ClientTimeout(total=None, sock_read=20)
                ) as response:
                    await self._read(response)
            await asyncio.sleep(0.05)

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        place, event = 0, ""
        async for raw in response.content:
            name, _, value = raw.decode().rstrip("\n").partition(": ")
            if name == "id":
                place = int(value)
            elif name == "event":
                event = value
            elif name == "data" and event in {"message.created", "message.completed"}:
                message = msgspec.json.decode(value, type=_Message)
                self.log.append((place, message.author, message.text))
            elif name == "data" and event == "message.delta":
                self.pieces += 1

    @property
    def _url(self) -> str:
        return f"{self._town.api}/widget/v1"

    @property
    def wanted(self) -> list[tuple[str, str]]:
        """What it must have seen, once and in this order."""
        asked = [f"{self._name} asks {number}?" for number in range(QUESTIONS)]
        return [one for text in asked for one in (("user", text), ("assistant", f"Echo: {text}"))]


async def _kill_a_worker(town: Town) -> None:
    town.kill("one")
    town.start_worker("three")


async def _kill_the_door(town: Town) -> None:
    town.kill("api")
    town.start_api()
    await town.until_ready()


async def _wipe_redis(town: Town) -> None:
    broker = Broker(town.valkey.url)
    await broker.open()
    await broker.command("FLUSHALL")
    await broker.close()


async def test_every_page_has_everything_once_and_in_order_whatever_is_killed_or_wiped() -> None:
    async with Town() as town:
        await town.tell("openai", "_configure", {"tokens_per_s": 20})
        town.start_worker("one")
        town.start_worker("two")
        for harm in (_kill_a_worker, _kill_the_door, _wipe_redis):
            await _talk_through(town, harm)


async def _talk_through(town: Town, harm: Callable[[Town], Awaitable[None]]) -> None:
    """Let visitors talk, do the harm in the middle, and see that no page misses anything."""
    pages = [_Page(town, f"{harm.__name__} {number}") for number in range(PAGES)]
    talking = asyncio.gather(*(page.talk() for page in pages))
    await until(lambda: sum(len(page.log) for page in pages) >= PAGES * QUESTIONS, timeout_s=60, what="the middle")
    assert not talking.done(), "all was over before the harm"
    await harm(town)
    await talking
    for page in pages:
        places = [place for place, _, _ in page.log]
        assert [(author, text) for _, author, text in page.log] == page.wanted
        assert places == sorted(set(places))
    assert sum(page.pieces for page in pages) > PAGES, "answers were seen while they were written"

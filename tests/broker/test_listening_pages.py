"""Listening first and reading then: a page shows every piece of an answer once, whatever is cut meanwhile."""

import asyncio
import random

import pytest

from replyline.broker import Broker, BrokerUnavailable, Told, Written
from tests.proxy import FaultProxy
from tests.waiting import until


class Page:
    """What a browser shows of one conversation: it listens first, then reads, and reads again where it may have missed some."""

    def __init__(self, broker: Broker, conversation: str) -> None:
        self._broker = broker
        self._conversation = conversation
        self._next = 0
        self._kept: list[Written] = []
        self._reads = True
        self.text = ""
        self.is_stale = True
        self.gaps = 0
        self.missed = 0
        self.listening = broker.listening(self._hear, self._miss)

    async def show(self) -> None:
        """Begin."""
        await self.listening.open()
        self.listening.watch(self._conversation)
        await self.listening.watching(self._conversation)
        await self.read()

    async def read(self) -> None:
        """Take what is written so far, and on top of it what was heard meanwhile."""
        self._reads = True
        self.is_stale = False
        found = await self._broker.live.so_far(self._conversation)
        if found is not None:
            self.text, self._next = found.text, found.next_index
        self._reads = False
        kept, self._kept = self._kept, []
        for piece in kept:
            self._put(piece)

    def _miss(self) -> None:
        self.missed += 1
        self.is_stale = True

    def _hear(self, heard: Told | Written) -> None:
        assert isinstance(heard, Written)
        if self._reads:
            self._kept.append(heard)
        else:
            self._put(heard)

    def _put(self, piece: Written) -> None:
        if piece.index > self._next:
            self.gaps += 1
            self.is_stale = True
        elif piece.index == self._next:
            self.text, self._next = self.text + piece.text, self._next + 1


@pytest.mark.parametrize("seed", range(4))
async def test_who_listens_first_and_then_reads_has_every_piece_once(
    broker: Broker, valkey_url: str, seed: int
) -> None:
    dice = random.Random(seed)
    pieces = ["".join(dice.choices("ab é\N{PARTY POPPER}", k=dice.randint(0, 9))) for _ in range(400)]
    worker = Broker(valkey_url)
    await worker.open()
    comes_at = sorted(dice.sample(range(len(pieces)), 12))
    pages: list[Page] = []
    await worker.live.begin("c", "s")
    async with asyncio.TaskGroup() as group:
        for number, piece in enumerate(pieces):
            if number in comes_at:
                pages.append(Page(broker, "c"))
                group.create_task(pages[-1].show())
            assert await worker.live.append("c", "s", piece)
    whole = "".join(pieces)
    await until(lambda: all(page.text == whole for page in pages))
    assert [page.gaps for page in pages] == [0] * 12
    for page in pages:
        await page.listening.close()
    await worker.close()


async def test_a_page_shows_everything_through_a_connection_that_is_cut_again_and_again(
    valkey_url: str, broker: Broker
) -> None:
    dice = random.Random(7)
    async with FaultProxy(valkey_url) as proxy:
        behind = Broker(proxy.url())
        await behind.open()
        page = Page(behind, "c")
        await broker.live.begin("c", "s")
        await page.show()
        whole, cuts = "", 0
        for number in range(1500):
            piece = f"{number} "
            assert await broker.live.append("c", "s", piece)
            whole += piece
            if dice.random() < 0.01:
                await proxy.cut()
                cuts += 1

        async def is_whole() -> bool:
            if page.is_stale:
                try:
                    await page.read()
                except BrokerUnavailable:
                    page.is_stale = True
            return page.text == whole

        await until(is_whole)
        assert cuts > 5
        assert page.missed
        await page.listening.close()
        await behind.close()

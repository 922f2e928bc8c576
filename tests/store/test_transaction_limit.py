"""The limit on transactions in flight: how many there are, whose turn it is, and how batches form."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from replyline.store.database import Connection, Database
from replyline.store.group_commit import GroupCommit
from replyline.store.outbox import Outbox
from replyline.store.transaction_limit import TransactionLimit


class _Watched:
    """Writes nothing in real transactions, and notes which began and how many ran at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.began: list[tuple[str, int]] = []
        self.running = 0
        self.most = 0

    @asynccontextmanager
    async def within(self) -> AsyncIterator[Connection]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async with self._database.hot_transaction() as connection:
                yield connection
        finally:
            self.running -= 1

    def commit(self, name: str, limit: TransactionLimit, *, size: int = 64) -> GroupCommit[int, int]:
        async def write(connection: Connection, rows: Sequence[int], _outbox: Outbox) -> Sequence[int]:
            self.began.append((name, len(rows)))
            await connection.execute("SELECT 1")
            return rows

        return GroupCommit(
            write, within=self.within, limit=limit, key=lambda row: row, publish=lambda _outbox: None, size=size
        )


@pytest.mark.parametrize("most", [1, 3])
async def test_all_moves_of_a_process_share_the_limit(database: Database, most: int) -> None:
    watched, limit = _Watched(database), TransactionLimit(most)
    moves = [watched.commit(f"move {number}", limit, size=4) for number in range(5)]
    written = await asyncio.gather(*(move(row) for row in range(100) for move in moves))
    assert len(written) == 500
    assert watched.most == most


async def test_batches_grow_with_what_waits(database: Database) -> None:
    watched = _Watched(database)
    move = watched.commit("move", TransactionLimit(1))
    await move(0)
    await asyncio.gather(*(move(row) for row in range(1, 65)))
    assert [rows for _, rows in watched.began] == [1, 64]


async def test_a_flood_of_one_move_does_not_delay_another(database: Database) -> None:
    watched, limit = _Watched(database), TransactionLimit(2)
    flood, other = watched.commit("flood", limit, size=5), watched.commit("other", limit)
    flooding = [asyncio.ensure_future(flood(row)) for row in range(500)]
    await flooding[0]
    begun = len(watched.began)
    await other(1)
    before = [name for name, _ in watched.began[begun:]]
    # Those in flight may end, and one that had asked before may begin.
    assert before.index("other") <= 3
    await asyncio.gather(*flooding)


async def test_rows_tried_one_by_one_leave_the_limit_to_others(database: Database) -> None:
    """The rows of a failed batch may wait for locks; meanwhile others go on, although the limit is one."""
    limit = TransactionLimit(1)
    gate = asyncio.Event()

    async def write(connection: Connection, rows: Sequence[int], _outbox: Outbox) -> Sequence[int]:
        if len(rows) > 1:
            await connection.execute("SELECT 1 / 0")
        await gate.wait()
        return rows

    stuck: GroupCommit[int, int] = GroupCommit(
        write, within=database.hot_transaction, limit=limit, key=lambda row: row, publish=lambda _outbox: None
    )
    rows = [asyncio.ensure_future(stuck(row)) for row in range(3)]
    watched = _Watched(database)
    assert await watched.commit("other", limit)(7) == 7
    assert not any(row.done() for row in rows)
    gate.set()
    assert await asyncio.gather(*rows) == [0, 1, 2]


async def test_a_cancelled_transaction_gives_its_place_back(database: Database) -> None:
    limit = TransactionLimit(1)
    entered = asyncio.Event()

    async def write(_connection: Connection, rows: Sequence[int], _outbox: Outbox) -> Sequence[int]:
        entered.set()
        await asyncio.Event().wait()
        return rows

    endless: GroupCommit[int, int] = GroupCommit(
        write, within=database.hot_transaction, limit=limit, key=lambda row: row, publish=lambda _outbox: None
    )
    waiting = asyncio.ensure_future(endless(1))
    await entered.wait()
    for task in asyncio.all_tasks():
        if "_commit" in repr(task.get_coro()):
            task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await _Watched(database).commit("other", limit)(7) == 7


def test_a_limit_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        TransactionLimit(0)

"""A lock that another session keeps, a timeout, a server that cannot write: they are waited for, and delay only themselves."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from replyline.store.database import Database, StoreBusy, StoreUnavailable
from tests.proxy import FaultProxy
from tests.store.scene import make_scene
from tests.waiting import until


@asynccontextmanager
async def _locked(database_url: str, *conversations: object) -> AsyncIterator[None]:
    """A session that has locked these conversations and then vanished without a word."""
    vanished = await asyncpg.connect(database_url)
    try:
        transaction = vanished.transaction()
        await transaction.start()
        await vanished.execute("SELECT 1 FROM conversations WHERE id = ANY($1::uuid[]) FOR UPDATE", conversations)
        yield
        await transaction.rollback()
    finally:
        await vanished.close()


async def test_a_locked_conversation_delays_only_itself(database: Database, database_url: str) -> None:
    scene = await make_scene(database)
    for number in range(30):
        await scene.hear("hello", sender=f"person-{number}")
    rows = await scene.fetch("SELECT v.id, i.value FROM conversations v JOIN contact_identities i USING (contact_id)")
    locked = {row["value"] for row in rows[:3]}
    took: dict[str, list[float]] = {}

    async def write(sender: str) -> None:
        for number in range(5):
            accepted = await scene.accept(f"again {number}", sender=sender)
            started = time.monotonic()
            try:
                await scene.receive(accepted)
            except StoreBusy:
                assert sender in locked
            else:
                assert sender not in locked
            took.setdefault(sender, []).append(time.monotonic() - started)

    async with _locked(database_url, *(row["id"] for row in rows[:3])):
        started = time.monotonic()
        await asyncio.gather(*(write(row["value"]) for row in rows))
        in_all = time.monotonic() - started
    waits = sorted(wait for sender, times in took.items() if sender not in locked for wait in times)
    assert len(waits) == 27 * 5
    # The first batch meets the locks and is split; from then on the locked ones go their own way, five times each.
    assert sum(wait > 0.5 for wait in waits) <= 64
    assert in_all < 20
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM messages WHERE direction = 'INBOUND'") == 30 + 27 * 5


@pytest.mark.parametrize(
    ("statement", "code", "raised"),
    [
        ("lock", "55P03", StoreBusy),
        ("timeout", "57014", StoreBusy),
        ("deadlock", "40P01", StoreBusy),
        ("serialization", "40001", StoreBusy),
        ("disk full", "53100", StoreUnavailable),
        ("memory", "53200", StoreUnavailable),
        ("cannot write", "58030", StoreUnavailable),
        ("read only", "25006", StoreUnavailable),
        ("shutdown", "57P01", StoreUnavailable),
    ],
)
async def test_what_postgres_cannot_do_now_is_not_the_rows_fault(
    database: Database, statement: str, code: str, raised: type[StoreUnavailable]
) -> None:
    with pytest.raises(StoreUnavailable, match=statement) as caught:
        async with database.transaction() as connection:
            await connection.execute(f"DO $$ BEGIN RAISE EXCEPTION '{statement}' USING ERRCODE = '{code}'; END $$")
    assert type(caught.value) is raised


async def test_a_database_that_is_read_only_is_unavailable(database: Database, database_url: str) -> None:
    separator = "&" if "?" in database_url else "?"
    read_only = Database(f"{database_url}{separator}default_transaction_read_only=on")
    await read_only.open()
    try:
        with pytest.raises(StoreUnavailable, match="read-only"):
            await make_scene(read_only)
    finally:
        await read_only.close()


async def test_sessions_of_ours_do_not_keep_locks_when_they_are_forgotten(database: Database) -> None:
    async with database.connection() as connection:
        shown = {
            name: await connection.fetchval(f"SHOW {name}")
            for name in ("lock_timeout", "idle_in_transaction_session_timeout")
        }
    assert shown == {"lock_timeout": "1s", "idle_in_transaction_session_timeout": "1min"}


async def test_a_database_that_does_not_exist_is_said(database_url: str) -> None:
    parts = urlsplit(database_url)
    nowhere = Database(urlunsplit(parts._replace(path=f"{parts.path}_none")))
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await nowhere.open()


async def test_connections_that_a_firewall_forgot_are_found_in_seconds_all_at_once(database_url: str) -> None:
    async with FaultProxy(database_url) as proxy:
        behind = Database(proxy.url(), pool_size=6)
        await behind.open()
        try:
            await asyncio.gather(*(_ask(behind) for _ in range(6)))
            assert proxy.accepted == 6
            proxy.forget()
            started = time.monotonic()
            await until(lambda: _all_answered(behind, 6), timeout_s=25, what="six answers at once")
            assert time.monotonic() - started < 20
        finally:
            await behind.close()


async def _ask(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT pg_sleep(0.05)")


async def _all_answered(database: Database, count: int) -> bool:
    answers = await asyncio.gather(*(_ask(database) for _ in range(count)), return_exceptions=True)
    assert all(answer is None or isinstance(answer, StoreUnavailable) for answer in answers)
    return answers == [None] * count

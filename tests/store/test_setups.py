"""Postgres as others run it: with passwords and roles, TLS, several hosts, and a pooler in transaction mode before it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import asyncpg
import pytest

from replyline.jobs import IncomingMessageJob
from replyline.store.database import Database, StoreUnavailable
from replyline.store.migrate import migrate
from replyline.store.target import read_target
from tests.make import make_channel, make_chatbot, make_customer
from tests.running import settings_for, working
from tests.store.servers import free_port, make_certificate, pgbouncer, postgres_server, server_folder
from tests.waiting import until

OWNER = "re ply@line"  # quoted wherever it stands in a URL
PASSWORD = "p@ss/wörd#?"
SUPER = "super"


@asynccontextmanager
async def _server(*settings: str) -> AsyncIterator[int]:
    """A server with a database that a role without special rights owns."""
    async with postgres_server(password=SUPER, settings=settings) as port:
        admin = await asyncpg.connect(f"postgresql://postgres:{SUPER}@127.0.0.1:{port}/postgres")
        await admin.execute(f"CREATE ROLE \"{OWNER}\" LOGIN NOSUPERUSER NOCREATEDB PASSWORD '{PASSWORD}'")
        await admin.execute(f'CREATE DATABASE replyline OWNER "{OWNER}"')
        await admin.close()
        yield port


def _url(port: int, *, host: str = "127.0.0.1", query: str = "", password: str = PASSWORD) -> str:
    login = f"{quote(OWNER, safe='')}:{quote(password, safe='')}"
    return f"postgresql://{login}@{host}:{port}/replyline{query}"


async def _answers(valkey_url: str, url: str, *, messages: int = 20, **settings: object) -> None:
    """Migrate, and let the pipeline answer messages; no job of them may have failed a single time."""
    await asyncio.to_thread(migrate, url)
    async with working(settings_for(valkey_url, url, **settings)) as app:
        customer = await make_customer(app.database)
        chatbot = await make_chatbot(app.database, customer.id)
        await make_channel(app.database, chatbot)
        jobs = [
            IncomingMessageJob(
                chatbot_id=chatbot.id, external_user_id=f"visitor-{number}", content="Hello", channel="WIDGET"
            )
            for number in range(messages)
        ]
        await asyncio.gather(*(app.enqueue(job) for job in jobs))

        async def answered() -> bool:
            async with app.database.connection() as connection:
                count = await connection.fetchval(
                    "SELECT count(*) FROM messages WHERE direction = 'OUTBOUND' AND status IN ('SENT', 'DELIVERED')"
                )
            return bool(count == messages)

        await until(answered, timeout_s=60)
        async with app.database.connection() as connection:
            assert await connection.fetch("SELECT errors FROM all_jobs WHERE attempts > 0 OR state = 'DEAD'") == []


async def test_an_owner_without_special_rights_and_a_password_that_must_be_quoted_are_enough(valkey_url: str) -> None:
    async with _server() as port:
        await _answers(valkey_url, _url(port, query="?application_name=shop&connect_timeout=5"))


async def test_a_wrong_password_and_a_missing_database_are_named_with_what_to_change() -> None:
    async with _server() as port:
        for url, remedy in (
            (_url(port, password="wrong"), "correct the user or the password in DATABASE_URL"),
            (_url(port).replace("/replyline", "/nowhere"), "create the database, or correct its name"),
        ):
            with pytest.raises(StoreUnavailable, match=remedy) as refused:
                await Database(url).open()
            assert PASSWORD not in str(refused.value)


async def test_tls_is_verified_alike_by_migrate_and_by_the_app(valkey_url: str) -> None:
    with server_folder() as folder:
        key, pem = await make_certificate(folder)
        async with _server("ssl=on", f"ssl_key_file={key}", f"ssl_cert_file={pem}") as port:
            verified = f"?sslmode=verify-full&sslrootcert={quote(pem)}"
            await _answers(valkey_url, _url(port, host="localhost", query=verified), messages=3)
            wrong_name = _url(port, query=verified)
            with pytest.raises(StoreUnavailable, match="correct sslmode"):
                await Database(wrong_name).open()
            with pytest.raises(OSError, match="certificate"):
                await asyncio.to_thread(migrate, wrong_name)


async def test_of_several_hosts_the_one_that_answers_is_used_by_migrate_and_by_the_app(valkey_url: str) -> None:
    async with _server() as port:
        url = _url(port).replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()},127.0.0.1:{port}")
        await _answers(valkey_url, url, messages=3)


async def test_the_pipeline_works_through_pgbouncer_in_transaction_mode(valkey_url: str) -> None:
    async with _server() as port, pgbouncer(port, user=OWNER, password=PASSWORD) as pooler:
        await _answers(valkey_url, _url(pooler), messages=40, database_pooler=True)


async def test_a_pooler_that_nobody_spoke_of_is_named() -> None:
    async with (
        _server() as port,
        pgbouncer(port, user=OWNER, password=PASSWORD) as pooler,
    ):
        with pytest.raises(StoreUnavailable, match="set REPLYLINE_DATABASE_POOLER=true"):
            await Database(_url(pooler)).open()


async def test_each_transaction_through_a_pooler_has_our_lock_timeout() -> None:
    async with (
        _server() as port,
        pgbouncer(port, user=OWNER, password=PASSWORD, pool=1) as pooler,
    ):
        database = Database(_url(pooler, query="?pgbouncer=true"))
        await database.open()
        for within in (database.connection, database.transaction):
            async with within() as connection:
                assert await connection.fetchval("SHOW lock_timeout") == "1s"
        await database.close()


def test_a_url_means_the_same_in_every_spelling() -> None:
    plain = read_target("postgresql://u@h/d?sslmode=require")
    assert read_target("postgresql+asyncpg://u@h/d?ssl=require") == plain
    assert read_target("postgres://u@h/d?ssl=true") == plain
    with_schema = read_target("postgresql://u@h/d?schema=shop&statement_timeout=5s&channel_binding=prefer")
    assert with_schema.settings == {"search_path": "shop", "statement_timeout": "5s"}
    assert with_schema.url == "postgresql://u@h/d"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u:hunter2@h/d", "must begin with postgresql://"),
        ("postgresql://u:hunter2@[h/d", "cannot be read as a URL"),
        ("postgresql://u:hunter2@h/d?sslmod=require", "did you mean sslmode"),
        ("postgresql://u:hunter2@h/d?channel_binding=require", "the driver cannot do"),
        ("postgresql://u:hunter2@h/d?keepalives_idle=5", "sets itself"),
        ("postgresql://u:hunter2@h/d?connect_timeout=soon", "a number of seconds"),
    ],
)
def test_a_url_that_cannot_be_honoured_is_refused_without_repeating_its_password(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        Database(url)
    assert "hunter2" not in str(refused.value)

"""A send queue that was external becomes ours again: what its worker may have sent is not sent a second time at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest
from aiohttp import web

from replyline.app import App
from replyline.broker import ActiveJob, Outcome
from replyline.jobs import WHATSAPP_CLOUD_SEND, WHATSAPP_QR_SEND, ChannelKind, IncomingMessageJob
from replyline.store.database import Database
from tests.make import make_channel, make_chatbot, make_customer
from tests.running import settings_for, working
from tests.waiting import until

_QUEUES: dict[ChannelKind, str] = {"WHATSAPP_CLOUD": WHATSAPP_CLOUD_SEND, "WHATSAPP_QR": WHATSAPP_QR_SEND}
_BASES: dict[ChannelKind, str] = {"WHATSAPP_CLOUD": "graph_base", "WHATSAPP_QR": "gateway_url"}


@asynccontextmanager
async def _far_side() -> AsyncIterator[tuple[str, list[str]]]:
    """What both gateways and Meta are here: its address, and the body of every request that it got."""
    bodies: list[str] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.text())
        return web.json_response({"wa_id": "SENT-1", "messages": [{"id": "wamid.SENT1"}]})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", bodies
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("seen", [True, False], ids=["seen-at-work", "never-looked-at"])
@pytest.mark.parametrize("kind", ["WHATSAPP_QR", "WHATSAPP_CLOUD"])
async def test_what_an_external_worker_may_have_sent_is_of_unknown_outcome_and_not_sent_at_once(
    database: Database, database_url: str, valkey_url: str, kind: ChannelKind, *, seen: bool
) -> None:
    queue = _QUEUES[kind]
    quick = {"lock_s": 1, "stalled_every_s": 0.5, "sweep_every_s": 0.2 if seen else 60}
    async with _far_side() as (url, bodies):
        async with working(settings_for(valkey_url, database_url, external_queues=queue, **quick)) as app:
            await _ask(app, database, kind, {_BASES[kind]: url})
            sent = await _sent_by_one_that_never_told(app, queue)
            if seen:
                await until(lambda: _handed_over(database))
        assert len(sent) == 1
        assert bool(await _handed_over(database)) is seen
        async with working(settings_for(valkey_url, database_url, reconcile_after_s=600, **quick)):
            (message,) = await until(lambda: _unknown(database))
        assert [body for body in bodies if message["content"] in body] == []


@pytest.mark.parametrize("kind", ["WHATSAPP_QR", "WHATSAPP_CLOUD"])
async def test_it_is_sent_once_by_us_when_its_outcome_stayed_unknown(
    database: Database, database_url: str, valkey_url: str, kind: ChannelKind
) -> None:
    queue = _QUEUES[kind]
    quick = {"lock_s": 1, "stalled_every_s": 0.5, "sweep_every_s": 0.2}
    async with _far_side() as (url, bodies):
        async with working(settings_for(valkey_url, database_url, external_queues=queue, **quick)) as app:
            await _ask(app, database, kind, {_BASES[kind]: url})
            await _sent_by_one_that_never_told(app, queue)
        async with working(settings_for(valkey_url, database_url, reconcile_after_s=0.2, **quick)):
            (message,) = await until(lambda: _settled(database), timeout_s=30)
        assert len([body for body in bodies if message["content"] in body]) == 1


async def _ask(app: App, database: Database, kind: ChannelKind, config: dict[str, str]) -> None:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    channel = await make_channel(database, chatbot, kind, config=config)
    asked = IncomingMessageJob(
        chatbot_id=chatbot.id,
        external_user_id="4915112345678",
        content="Hi",
        channel=kind,
        channel_id=channel.id,
    )
    await app.accept(asked)


async def _sent_by_one_that_never_told(app: App, queue: str) -> list[ActiveJob]:
    """What an external worker had that is killed when it has sent, and before BullMQ has its result."""
    sent: list[ActiveJob] = []

    async def handler(job: ActiveJob) -> Outcome:
        sent.append(job)
        await asyncio.Event().wait()
        raise AssertionError("it never ends")

    worker = app.broker.worker(queue, handler, concurrency=1, name="nest", lock_s=1, stalled_every_s=0.5)
    running = asyncio.create_task(worker.run())
    await until(lambda: len(sent) == 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return sent


async def _rows(database: Database, query: str) -> Sequence[asyncpg.Record]:
    async with database.connection() as connection:
        return await connection.fetch(query)


async def _handed_over(database: Database) -> Sequence[asyncpg.Record]:
    return await _rows(database, "SELECT id FROM jobs WHERE handed_over_at IS NOT NULL")


async def _unknown(database: Database) -> Sequence[asyncpg.Record]:
    return await _rows(database, "SELECT content FROM messages WHERE direction = 'OUTBOUND' AND status = 'UNKNOWN'")


async def _settled(database: Database) -> Sequence[asyncpg.Record]:
    return await _rows(
        database,
        "SELECT content FROM messages WHERE direction = 'OUTBOUND' AND (status = 'SENT' OR accepted_at IS NOT NULL)",
    )

"""A message on WhatsApp, by both ways: to its delivery, to a dead letter, and back by replay."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
import msgspec
import pytest

from replyline.app import App
from replyline.jobs import ChannelKind, IncomingMessageJob
from replyline.standins import Standins
from replyline.statuses import StatusUpdate
from replyline.store.channels import Channel
from replyline.store.database import Database
from replyline.store.moves.statuses import ReportedStatus
from tests.make import (
    CLOUD_SECRETS,
    EVERY_EVENT,
    QR_SECRETS,
    make_channel,
    make_chatbot,
    make_customer,
    make_webhook_endpoint,
)
from tests.running import quick_retries, settings_for, working
from tests.waiting import until

_WAYS: list[tuple[ChannelKind, str, str]] = [
    ("WHATSAPP_CLOUD", "whatsapp_cloud", "whatsapp-cloud-send"),
    ("WHATSAPP_QR", "qr_gateway", "whatsapp-qr-send"),
]


@dataclass
class _Journey:
    app: App
    standins: Standins
    database: Database
    channel: Channel
    name: str

    async def hear(self, text: str) -> None:
        await self.app.accept(
            IncomingMessageJob(
                chatbot_id=self.channel.chatbot_id,
                external_user_id="4915112345678",
                content=text,
                channel=self.channel.kind,
            )
        )

    async def tell(self, route: str, body: object) -> None:
        async with self.app.http.post(f"{self.standins.urls[self.name]}/{route}", json=body) as response:
            assert response.status == 200, await response.text()

    async def seen(self) -> list[str]:
        async with self.app.http.get(f"{self.standins.urls[self.name]}/_sent") as response:
            sent = msgspec.json.decode(await response.read(), type=list[dict[str, object]])
        return [str(one["text"]) for one in sent]

    async def confirm(self) -> None:
        """WhatsApp has what the gateway took: only its word makes a message SENT there."""
        if self.channel.kind != "WHATSAPP_QR":
            return
        async with self.app.http.get(f"{self.standins.urls[self.name]}/_sent") as response:
            sent = msgspec.json.decode(await response.read(), type=list[dict[str, object]])
        for one in sent:
            update = StatusUpdate(str(one["id"]), "SENT", datetime.now(UTC))
            await self.app.moves.apply_status(ReportedStatus(self.channel.id, self.channel.customer_id, update))

    async def rows(self, query: str) -> Sequence[asyncpg.Record]:
        async with self.database.connection() as connection:
            return await connection.fetch(query)


@asynccontextmanager
async def _journey(
    database: Database, database_url: str, valkey_url: str, kind: ChannelKind, name: str
) -> AsyncIterator[_Journey]:
    customer = await make_customer(database, monthly_price=60)
    async with Standins() as standins:
        chatbot = await make_chatbot(
            database,
            customer.id,
            settings={
                "provider": "openai_compatible",
                "model": "test-1",
                "provider_base_url": f"{standins.urls['openai']}/v1",
            },
        )
        config = (
            {"graph_base": standins.urls[name]} if name == "whatsapp_cloud" else {"gateway_url": standins.urls[name]}
        )
        channel = await make_channel(database, chatbot, kind, config=config)
        await make_webhook_endpoint(database, customer.id, url=f"{standins.urls['customer']}/hooks", events=EVERY_EVENT)
        async with working(settings_for(valkey_url, database_url, queues=quick_retries())) as app:
            journey = _Journey(app, standins, database, channel, name)
            if name == "whatsapp_cloud":
                await journey.tell("_configure", {"numbers": {channel.external_id: dict(CLOUD_SECRETS)}})
            else:
                session = {"secret": QR_SECRETS["secret"], "token": QR_SECRETS["gateway_token"]}
                await journey.tell("_configure", {"sessions": {channel.external_id: session}})
            yield journey


@pytest.mark.parametrize(("kind", "name", "queue"), _WAYS)
async def test_a_message_is_answered_delivered_counted_and_announced(
    database: Database, database_url: str, valkey_url: str, *, kind: ChannelKind, name: str, queue: str
) -> None:
    async with _journey(database, database_url, valkey_url, kind, name) as journey:
        await journey.hear("Hello")
        assert await until(journey.seen) == ["Echo: Hello"]
        await journey.confirm()

        async def announced() -> list[str]:
            rows = await journey.rows("SELECT type FROM webhook_events WHERE status = 'DELIVERED' ORDER BY id")
            return [row["type"] for row in rows] if len(rows) == 2 else []

        assert await until(announced) == ["message.received", "message.sent"]
        jobs = await journey.rows("SELECT queue, state, priority FROM all_jobs ORDER BY id")
        assert {row["state"] for row in jobs} == {"DONE"}
        assert {row["priority"] for row in jobs} == {3}, "the plan's priority on every job of every queue"
        assert {queue, "incoming-messages", "ai-processing", "outgoing-messages", "webhook-delivery"} == {
            row["queue"] for row in jobs
        }
        facts = await journey.rows("SELECT kind, channel_kind FROM usage_logs ORDER BY id")
        assert [tuple(row) for row in facts] == [
            ("message_received", kind),
            ("ai_answer", kind),
            ("message_sent", kind),
        ]
        (message,) = await journey.rows("SELECT status, external_id FROM messages WHERE direction = 'OUTBOUND'")
        assert message["status"] == "SENT"
        assert message["external_id"]


@pytest.mark.parametrize(("kind", "name", "queue"), _WAYS)
async def test_a_refused_message_is_a_dead_letter_and_comes_back_by_replay(
    database: Database, database_url: str, valkey_url: str, *, kind: ChannelKind, name: str, queue: str
) -> None:
    async with _journey(database, database_url, valkey_url, kind, name) as journey:
        await journey.tell("_faults", {"kind": "error", "status": 400, "times": 1, "match": {"path": "/messages"}})
        await journey.hear("Hello")

        async def dead() -> Sequence[asyncpg.Record]:
            return await journey.rows("SELECT id, queue, reason FROM all_jobs WHERE state = 'DEAD'")

        (letter,) = await until(dead)
        assert letter["queue"] == queue
        (message,) = await journey.rows("SELECT status, error_reason FROM messages WHERE direction = 'OUTBOUND'")
        assert (message["status"], message["error_reason"]) == ("FAILED", letter["reason"])
        notice = f"{letter['id']}-0"

        async def noticed() -> bool:
            return await journey.app.broker.states("dead-letter", [notice]) == ["prioritized"]

        await until(noticed, what="the notice for BullMQ's tools")
        assert await journey.seen() == []

        await journey.app.replay(letter["id"], customer_id=journey.channel.customer_id)
        assert await until(journey.seen) == ["Echo: Hello"]
        await journey.confirm()

        async def sent() -> Sequence[asyncpg.Record]:
            return await journey.rows("SELECT id FROM messages WHERE direction = 'OUTBOUND' AND status = 'SENT'")

        assert len(await until(sent)) == 1
        assert await journey.app.broker.states("dead-letter", [notice]) == [None]


@pytest.mark.parametrize(("kind", "name", "queue"), _WAYS)
async def test_a_send_that_fails_for_a_moment_is_repeated_and_seen_once(
    database: Database, database_url: str, valkey_url: str, *, kind: ChannelKind, name: str, queue: str
) -> None:
    async with _journey(database, database_url, valkey_url, kind, name) as journey:
        await journey.tell(
            "_faults",
            {
                "kind": "error",
                "status": 429,
                "times": 2,
                "headers": {"Retry-After": "0.05"},
                "match": {"path": "/messages"},
            },
        )
        await journey.hear("Hello")
        assert await until(journey.seen) == ["Echo: Hello"]

        async def done() -> Sequence[asyncpg.Record]:
            return await journey.rows(f"SELECT attempts FROM all_jobs WHERE queue = '{queue}' AND state = 'DONE'")  # noqa: S608

        (job,) = await until(done)
        assert job["attempts"] == 0, "waiting is not failing"

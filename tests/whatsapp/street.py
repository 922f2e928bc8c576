"""One business on WhatsApp with everything around it, in this process: people write, and what comes of it can be looked at."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import asyncpg
import msgspec

from replyline.app import App
from replyline.jobs import QUEUE_NAMES
from replyline.standins import Standins
from replyline.store.channels import Channel
from replyline.store.chatbots import Chatbot, ChatbotChanges
from replyline.store.database import Database
from replyline.worker.run import work
from tests.make import (
    CLOUD_SECRETS,
    QR_SECRETS,
    make_api_key,
    make_channel,
    make_chatbot,
    make_customer,
    make_webhook_endpoint,
)
from tests.running import quick_retries
from tests.waiting import until
from tests.web.conftest import Answer, Door, Serve

Kind = Literal["WHATSAPP_CLOUD", "WHATSAPP_QR"]
STANDIN = {"WHATSAPP_CLOUD": "whatsapp_cloud", "WHATSAPP_QR": "qr_gateway"}
ANA = "4915112345678"


class Sent(msgspec.Struct):
    """A message that a person has seen."""

    at: float
    to: str
    text: str
    id: str
    our_id: str | None = None
    type: str = "text"
    context: str | None = None
    body: object = None


@dataclass
class Street:
    """The business and its people."""

    door: Door
    standins: Standins
    database: Database
    chatbot: Chatbot
    channel: Channel
    key: str
    kind: Kind
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def app(self) -> App:
        """The application."""
        return self.door.app

    async def write(self, text: str, *, sender: str = ANA, message_id: str | None = None, **more: object) -> str:
        """A person writes; the id of the message. `more` as the stand-in's `_inbound` takes it."""
        message_id = message_id or f"in-{next(self._numbers)}"
        address = sender if self.kind == "WHATSAPP_CLOUD" or "@" in sender else f"{sender}@s.whatsapp.net"
        body: dict[str, object] = {"from": address, "text": text, "id": message_id, **more}
        answer = await self.tell("_inbound", {**self._named(), **body})
        assert msgspec.convert(answer, dict[str, object])["status"] == 200, answer
        return message_id

    async def do(self, message: Mapping[str, object], *, sender: str = ANA, **more: object) -> None:
        """A person does something else, in Meta's own words."""
        body = {"from": sender, "message": dict(message), "id": f"in-{next(self._numbers)}", **more}
        answer = await self.tell("_inbound", {**self._named(), **body})
        assert msgspec.convert(answer, dict[str, object])["status"] == 200, answer

    def _named(self) -> dict[str, object]:
        if self.kind == "WHATSAPP_CLOUD":
            return {"phone_number_id": self.channel.external_id}
        return {"session": self.channel.external_id}

    async def tell(self, route: str, body: object, *, standin: str | None = None) -> object:
        """Post to a control route of a stand-in, the channel's own if none is named."""
        url = self.standins.urls[standin or STANDIN[self.kind]]
        async with self.door.http.post(f"{url}/{route}", json=body) as response:
            answer: object = await response.json()
            assert response.status == 200, answer
            return answer

    async def told(self, route: str, *, standin: str | None = None) -> list[dict[str, object]]:
        """A list that a control route of a stand-in shows."""
        url = self.standins.urls[standin or STANDIN[self.kind]]
        async with self.door.http.get(f"{url}/{route}") as response:
            return msgspec.json.decode(await response.read(), type=list[dict[str, object]])

    async def fault(self, standin: str | None = None, **fault: object) -> None:
        """Tell a stand-in to fail."""
        await self.tell("_faults", fault, standin=standin)

    async def heal(self) -> None:
        """Remove the faults of the channel's stand-in."""
        async with self.door.http.delete(f"{self.standins.urls[STANDIN[self.kind]]}/_faults") as response:
            assert response.status == 200

    async def configure(self, **fields: object) -> None:
        """Change the number, or session, at the stand-in."""
        part = "numbers" if self.kind == "WHATSAPP_CLOUD" else "sessions"
        await self.tell("_configure", {part: {self.channel.external_id: fields}})

    async def seen(self) -> list[Sent]:
        """What people have seen, in the order they saw it."""
        async with self.door.http.get(f"{self.standins.urls[STANDIN[self.kind]]}/_sent") as response:
            return msgspec.json.decode(await response.read(), type=list[Sent])

    async def texts(self) -> list[str]:
        """The texts of these."""
        return [sent.text for sent in await self.seen()]

    async def last_call(self, method: str) -> dict[str, object]:
        """The last call with that method that the channel's stand-in had."""
        url = self.standins.urls[STANDIN[self.kind]]
        async with self.door.http.get(f"{url}/_calls") as response:
            page = msgspec.json.decode(await response.read(), type=dict[str, object])
        return [call for call in msgspec.convert(page["calls"], list[dict[str, object]]) if call["method"] == method][
            -1
        ]

    async def sends(self) -> list[dict[str, object]]:
        """Every send that the stand-in was asked for, with its answer's status."""
        url = self.standins.urls[STANDIN[self.kind]]
        async with self.door.http.get(f"{url}/_calls") as response:
            page = msgspec.json.decode(await response.read(), type=dict[str, object])
        calls = msgspec.convert(page["calls"], list[dict[str, object]])
        return [call for call in calls if str(call["path"]).endswith("/messages") and not _is_sign(call["body"])]

    async def until_seen(self, *texts: str, timeout_s: float = 20) -> None:
        """Until people have seen exactly these texts, in this order."""

        async def there() -> bool:
            return await self.texts() == list(texts)

        try:
            await until(there, timeout_s=timeout_s)
        except AssertionError:
            raise AssertionError(f"seen: {await self.texts()}; jobs: {await self.waiting()}") from None

    async def until_at_rest(self, *, timeout_s: float = 20) -> None:
        """Until no job waits, but for those that are held."""

        async def rested() -> bool:
            return not await self.rows("SELECT 1 FROM all_jobs WHERE state = 'WAITING' AND held_by IS NULL")

        try:
            await until(rested, timeout_s=timeout_s)
        except AssertionError:
            raise AssertionError(f"still waiting: {await self.waiting()}") from None

    async def waiting(self) -> list[tuple[object, ...]]:
        """What waits, and why."""
        rows = await self.rows("SELECT queue, wait_reason, attempts, run_at FROM all_jobs WHERE state = 'WAITING'")
        return [tuple(row) for row in rows]

    async def rows(self, query: str, *values: object) -> Sequence[asyncpg.Record]:
        """Rows as they are in Postgres."""
        async with self.database.connection() as connection:
            return await connection.fetch(query, *values)

    async def value(self, query: str, *values: object) -> object:
        """One value as it is in Postgres."""
        async with self.database.connection() as connection:
            return await connection.fetchval(query, *values)

    async def ours(self) -> list[tuple[str, str]]:
        """Our messages as (text, status), in their order."""
        rows = await self.rows("SELECT content, status FROM messages WHERE direction = 'OUTBOUND' ORDER BY seq")
        return [(row["content"], row["status"]) for row in rows]

    async def until_ours(self, *expected: tuple[str, str], timeout_s: float = 20) -> None:
        """Until our messages are these."""

        async def there() -> bool:
            return await self.ours() == list(expected)

        try:
            await until(there, timeout_s=timeout_s)
        except AssertionError:
            raise AssertionError(f"ours: {await self.ours()}; jobs: {await self.waiting()}") from None

    async def dead(self) -> list[tuple[str, str]]:
        """The dead letters, as (queue, reason)."""
        rows = await self.rows("SELECT queue, reason FROM all_jobs WHERE state = 'DEAD' ORDER BY id")
        return [(row["queue"], row["reason"]) for row in rows]

    async def events(self) -> list[str]:
        """The webhook events of the channel itself."""
        rows = await self.rows("SELECT type FROM webhook_events WHERE type LIKE 'channel.%' ORDER BY id")
        return [row["type"] for row in rows]

    async def call(self, method: str, path: str, *, json: object = None) -> Answer:
        """A call of our API with the customer's key."""
        return await self.door.call(method, path, key=self.key, json=json)


def _is_sign(body: object) -> bool:
    return isinstance(body, dict) and body.get("status") == "read"


Open = Callable[..., AbstractAsyncContextManager[Street]]


def opener(serve: Serve, database: Database) -> Open:
    """Opens streets."""

    @asynccontextmanager
    async def street(
        kind: Kind,
        *,
        config: Mapping[str, str] | None = None,
        bot: ChatbotChanges | None = None,
        settings: Mapping[str, object] | None = None,
        statuses: Sequence[str] = ("sent", "delivered"),
    ) -> AsyncIterator[Street]:
        given: dict[str, object] = {
            "queues": quick_retries(),
            "sweep_every_s": 0.1,
            "sweep_grace_s": 2.0,
            "reconcile_after_s": 0.6,
            "probe_first_s": 0.2,
            **(settings or {}),
        }
        async with Standins() as standins, serve(**given) as door:
            made = await _furnish(database, standins, door, kind, config or {}, bot or {})
            await made.tell("_configure", {"statuses": list(statuses), "retry": {"tries": 10, "first_wait_s": 0.05}})
            stop = asyncio.Event()
            worker = asyncio.create_task(work(door.app, queues=QUEUE_NAMES, concurrency={}, stop=stop))
            try:
                yield made
            finally:
                stop.set()
                await worker

    return street


async def _furnish(  # noqa: PLR0917  what a business consists of
    database: Database,
    standins: Standins,
    door: Door,
    kind: Kind,
    config: Mapping[str, str],
    bot: ChatbotChanges,
) -> Street:
    customer = await make_customer(database, monthly_price=60)
    provider: ChatbotChanges = {
        "provider": "openai_compatible",
        "model": "test-1",
        "provider_base_url": f"{standins.urls['openai']}/v1",
    }
    chatbot = await make_chatbot(database, customer.id, settings={**provider, **bot})
    address = "graph_base" if kind == "WHATSAPP_CLOUD" else "gateway_url"
    channel = await make_channel(database, chatbot, kind, config={address: standins.urls[STANDIN[kind]], **config})
    await make_webhook_endpoint(database, customer.id, url=f"{standins.urls['customer']}/hooks")
    key = await make_api_key(database, customer.id)
    street = Street(door, standins, database, chatbot, channel, key, kind)
    path = f"{door.url}/callbacks/{kind.lower().replace('_', '-')}/{channel.channel_key}"
    if kind == "WHATSAPP_CLOUD":
        await street.configure(
            access_token=CLOUD_SECRETS["access_token"], app_secret=CLOUD_SECRETS["app_secret"], callback_url=path
        )
    else:
        await street.configure(secret=QR_SECRETS["secret"], token=QR_SECRETS["gateway_token"], callback_url=path)
    return street

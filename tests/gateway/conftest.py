"""A business whose telephone is behind our own gateway."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replyline.jobs import QUEUE_NAMES
from replyline.store.channels import Channel, update
from replyline.store.database import Database
from replyline.worker.run import work
from tests.gateway.process import TOKEN, GatewayFolder, GatewayProcess, need_gateway
from tests.make import QR_SECRETS, VAULT, make_api_key, make_channel, make_chatbot, make_customer
from tests.running import quick_retries
from tests.waiting import until
from tests.web.conftest import Answer, Door, Serve, serve

__all__ = ["serve"]

JID = "4915112345678@s.whatsapp.net"


@dataclass
class Shop:
    """The business, the gateway of its telephone, and our door."""

    door: Door
    database: Database
    channel: Channel
    key: str
    folder: GatewayFolder
    gateway: GatewayProcess

    @property
    def session(self) -> str:
        """The telephone's session."""
        return self.channel.external_id

    async def call(self, method: str, path: str, *, json: object = None) -> Answer:
        """A call about the session, over our API."""
        return await self.door.call(method, f"/v1/channels/{self.channel.id}/session{path}", key=self.key, json=json)

    async def connect(self) -> None:
        """Make the session at the gateway, with our door as its webhook."""
        callback = f"{self.door.url}/callbacks/whatsapp-qr/{self.channel.channel_key}"
        body = {"webhook_url": callback, "webhook_secret": QR_SECRETS["secret"], "label": "Shop"}
        url = f"{self.gateway.url}/v1/sessions/{self.session}"
        async with self.door.http.put(url, json=body, headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            assert response.status == 200, await response.text()
            state = (await response.json())["state"]
        if state == "logged_out":
            assert (await self.call("POST", "/restart")).status == 200

    async def pair(self) -> None:
        """Connect, and scan the code."""
        await self.connect()
        await until(lambda: self._state("qr"), what="a code to scan")
        await self.gateway.script(self.door.http, self.session, "scan")
        await until(lambda: self._state("open"), what="an open session")

    async def _state(self, state: str) -> bool:
        answer = await self.call("GET", "")
        return answer.status == 200 and answer.json["state"] == state

    async def move_to(self, gateway: GatewayProcess) -> None:
        """The channel's gateway is another one from now on."""
        self.gateway = gateway
        config = {**self.channel.config, "gateway_url": gateway.url}
        changed = await update(
            self.database, VAULT, self.channel.id, customer_id=self.channel.customer_id, changes={"config": config}
        )
        assert changed is not None
        self.channel = changed
        self.door.app.forget_account(self.channel.id)

    async def hear(self, text: str, *, jid: str = JID, message_id: str, **more: object) -> None:
        """A message comes to the telephone."""
        await self.gateway.hear(
            self.door.http,
            self.session,
            text,
            jid=jid,
            message_id=message_id,
            **more,  # type: ignore[arg-type]
        )

    async def hear_when_open(self) -> None:
        """A message comes as soon as the session is open at the present gateway."""
        await until(lambda: self._state("open"), timeout_s=30, what="an open session")
        await self.hear("Hello", message_id="AFTER1")

    def arrived(self) -> list[str | None]:
        """The texts that WhatsApp was handed."""
        return [line.text for line in self.folder.lines("send")]

    async def value(self, query: str) -> object:
        """One value as it is in Postgres."""
        async with self.database.connection() as connection:
            return await connection.fetchval(query)

    async def at_rest(self) -> bool:
        """Whether no job waits."""
        return await self.value("SELECT count(*) FROM all_jobs WHERE state = 'WAITING'") == 0


@pytest.fixture
async def folder(tmp_path: Path) -> GatewayFolder:
    """Data for gateways; skips if it cannot be started."""
    need_gateway()
    return GatewayFolder(tmp_path)


@pytest.fixture
async def shop(serve: Serve, database: Database, folder: GatewayFolder) -> AsyncIterator[Shop]:
    """A business with a gateway and workers; nothing is paired yet."""
    customer = await make_customer(database, monthly_price=60)
    chatbot = await make_chatbot(database, customer.id)
    gateway = await folder.start()
    config = {"gateway_url": gateway.url, "signs_of_life": "off"}
    channel = await make_channel(database, chatbot, "WHATSAPP_QR", config=config, secrets={"gateway_token": TOKEN})
    async with serve(queues=quick_retries([0.1] * 12), sweep_every_s=0.2) as door:
        made = Shop(door, database, channel, await make_api_key(database, customer.id), folder, gateway)
        stop = asyncio.Event()
        worker = asyncio.create_task(work(door.app, queues=QUEUE_NAMES, concurrency={}, stop=stop))
        try:
            yield made
        finally:
            stop.set()
            await worker
            made.gateway.kill()

"""The HTTP application on a real socket, as production serves it, with real stores behind it."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest
from fastapi import FastAPI
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server
from starlette.types import ASGIApp

from replyline.app import App, open_app
from replyline.jobs import QUEUE_NAMES
from replyline.settings import load
from replyline.standins import Standins
from replyline.store.database import Database
from replyline.web import create_app, let_pages_go
from replyline.worker.run import work
from tests.make import (
    SECRET_KEY,
    make_api_key,
    make_channel,
    make_chatbot,
    make_customer,
    make_document,
    make_webhook_endpoint,
)
from tests.running import quick_retries
from tests.waiting import until

ADMIN_KEY = "the-operator-of-the-tests"


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        """The body, which must be a JSON object."""
        return msgspec.json.decode(self.body, type=dict[str, object])

    @property
    def entries(self) -> list[dict[str, object]]:
        """What a page shows."""
        return msgspec.convert(self.json["data"], type=list[dict[str, object]])

    @property
    def problem(self) -> tuple[int, object]:
        """Status and code of a problem, after a look at whether it is one."""
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["status"] == self.status
        assert self.json["type"] == "about:blank"
        assert isinstance(self.json["detail"], str)
        return self.status, self.json["code"]


@dataclass(frozen=True, slots=True)
class Door:
    """A served application and a client of it."""

    app: App
    url: str
    http: aiohttp.ClientSession
    api: FastAPI

    async def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        json: object = None,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Make one call, with `key` as bearer; `json` is sent as JSON, `data` as it is."""
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        if json is not None:
            data = msgspec.json.encode(json)
            sent.setdefault("Content-Type", "application/json")
        async with self.http.request(method, f"{self.url}{path}", data=data, headers=sent) as response:
            lower = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, lower, await response.read())

    async def operator(self, method: str, path: str, *, json: object = None) -> Answer:
        """Make one call with the operator's key."""
        return await self.call(method, path, key=ADMIN_KEY, json=json)


Serve = Callable[..., AbstractAsyncContextManager[Door]]


@pytest.fixture
def serve(valkey_url: str, database_url: str, tmp_path: Path) -> Serve:
    """Serves the application; what is given replaces the tests' settings."""

    @asynccontextmanager
    async def serving(**given: object) -> AsyncIterator[Door]:
        settings = load(
            **{
                "redis_url": valkey_url,
                "database_url": database_url,
                "secret_key": SECRET_KEY,
                "admin_key": ADMIN_KEY,
                "webhook_allow_private": True,
                "database_pool": 8,
                "data": tmp_path,
                **given,
            }
        )
        async with open_app(settings) as app, aiohttp.ClientSession() as http:
            api = create_app(app)
            async with served(api) as url:
                yield Door(app, url, http, api)

    return serving


@pytest.fixture
async def door(serve: Serve) -> AsyncIterator[Door]:
    """The application with the tests' settings."""
    async with serve() as door:
        yield door


@asynccontextmanager
async def served(application: ASGIApp) -> AsyncIterator[str]:
    """Serve an ASGI application on loopback; gives its URL."""
    port = free_port()
    server = Server(
        application,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
        log_level=LogLevels.error,
    )
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: _listens(port), what="the server")
        yield f"http://127.0.0.1:{port}"
    finally:
        if isinstance(application, FastAPI) and hasattr(application.state, "streams"):
            await let_pages_go(application)
        server.stop()  # type: ignore[no-untyped-call]  # granian has no types there
        await serving


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
async def standins() -> AsyncIterator[Standins]:
    async with Standins() as standins:
        yield standins


@pytest.fixture
async def worked(serve: Serve, tmp_path: Path) -> AsyncIterator[Door]:
    """A server whose queues are worked."""
    async with serve(data=tmp_path, queues=quick_retries()) as door:
        stop = asyncio.Event()
        worker = asyncio.create_task(work(door.app, queues=QUEUE_NAMES, concurrency={}, stop=stop))
        yield door
        stop.set()
        await worker


@pytest.fixture
async def demo_door(worked: Door, database: Database, standins: Standins, tmp_path: Path) -> Door:
    """The same, and beside it what `replyline start --demo` leaves in ready.json."""
    (tmp_path / "ready.json").write_text(json.dumps(await _prepare(worked, database, standins)))
    return worked


async def _prepare(door: Door, database: Database, standins: Standins) -> dict[str, object]:
    customer = await make_customer(database)
    chatbot = await make_chatbot(database, customer.id)
    await make_document(database, chatbot)
    await make_webhook_endpoint(database, customer.id, url=f"{standins.urls['customer']}/hooks")
    widget = await make_channel(database, chatbot, "WIDGET")
    cloud = await make_channel(
        database, chatbot, "WHATSAPP_CLOUD", config={"graph_base": standins.urls["whatsapp_cloud"]}
    )
    qr = await make_channel(
        database, chatbot, "WHATSAPP_QR", external_id="demo", config={"gateway_url": standins.urls["qr_gateway"]}
    )
    number = {
        "access_token": "cloud-token",
        "app_secret": "cloud-app-secret-of-32-characters",
        "callback_url": f"{door.url}/callbacks/whatsapp-cloud/{cloud.channel_key}",
    }
    session = {
        "secret": "qr-callback-secret-of-32-characters",
        "token": "qr-gateway-token",
        "callback_url": f"{door.url}/callbacks/whatsapp-qr/{qr.channel_key}",
    }
    async with aiohttp.ClientSession() as http:
        for name, body in (
            ("whatsapp_cloud", {"numbers": {cloud.external_id: number}}),
            ("qr_gateway", {"sessions": {"demo": session}}),
        ):
            async with http.post(f"{standins.urls[name]}/_configure", json=body) as response:
                assert response.status == 200, await response.text()
    return {
        "pid": os.getpid(),
        "database_url": door.app.settings.database_url,
        "standins": dict(standins.urls),
        "demo": {
            "customer_id": str(customer.id),
            "api_key": await make_api_key(database, customer.id),
            "chatbot_id": str(chatbot.id),
            "channels": {
                "WIDGET": {"channel_id": str(widget.id), "site_key": widget.external_id},
                "WHATSAPP_CLOUD": {"channel_id": str(cloud.id), "phone_number_id": cloud.external_id},
                "WHATSAPP_QR": {"channel_id": str(qr.id), "session": "demo"},
            },
        },
    }

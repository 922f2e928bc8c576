"""What the door stands on: servers, and for each tree a database, a Redis database, a customer, and its API process."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg

from replyline.embedded import EmbeddedPostgres, EmbeddedValkey
from replyline.store.channels import Channel
from replyline.store.database import Database
from tests.make import SECRET_KEY, make_api_key, make_channel, make_chatbot, make_customer
from tests.web.conftest import free_port

ROOT = Path(__file__).parent.parent.parent
ORIGIN = "https://shop.example"
_VISITORS = 400


@dataclass
class Door:
    """One API process and whom it serves."""

    name: str
    url: str
    pid: int
    http: aiohttp.ClientSession
    api_key: str
    cloud: Channel
    qr: Channel
    sessions: list[str]
    """Session tokens of visitors of its widget."""
    sent: int = 0

    async def published(self) -> None:
        """Wait until Redis knows of every message."""
        while True:
            async with self.http.get(f"{self.url}/metrics") as response:
                said = await response.text()
            if "\nreplyline_unpublished_jobs 0.0" in said:
                return
            await asyncio.sleep(0.05)


class Stage:
    """Opened once for a whole run."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="replyline-bench-")
        self._path = Path(self._folder.name)
        self._path.chmod(0o711)
        self._valkey = EmbeddedValkey(self._path)
        self._postgres = EmbeddedPostgres(self._path)
        self._log = (self._path / "log").open("ab")

    async def __aenter__(self) -> Self:
        await asyncio.gather(self._valkey.start(), self._postgres.start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(self._postgres.stop(), self._valkey.stop())
        self._log.close()
        if error is not None:
            sys.stderr.write((self._path / "log").read_text(errors="replace")[-3000:])
        self._folder.cleanup()

    @asynccontextmanager
    async def door(self, name: str, tree: Path, number: int) -> AsyncIterator[Door]:
        """The API process of that tree, with its schema."""
        database_url = urlunsplit(urlsplit(self._postgres.url)._replace(path=f"/bench_{name}"))
        await self._create_database(f"bench_{name}")
        port = free_port()
        environment = {
            **os.environ,
            "REDIS_URL": f"{self._valkey.url.partition('?')[0]}?db={number}",
            "DATABASE_URL": database_url,
            "REPLYLINE_SECRET_KEY": SECRET_KEY,
            "REPLYLINE_DATA": self._folder.name,
            "REPLYLINE_LOG_LEVEL": "warning",
            "REPLYLINE_WIDGET_VISITORS_PER_SITE": "off",
            "REPLYLINE_WIDGET_MESSAGES_PER_VISITOR": "off",
        }
        command = [sys.executable, "-m", "replyline"]
        await asyncio.to_thread(
            subprocess.run, [*command, "migrate"], cwd=tree, env=environment, stdout=self._log, check=True
        )
        key, cloud, qr, widget = await _furnish(database_url)
        process = subprocess.Popen(  # noqa: ASYNC220  it is not waited for
            [*command, "api", "--port", str(port)], cwd=tree, env=environment, stdout=self._log, stderr=self._log
        )
        timeout = aiohttp.ClientTimeout(total=60)
        try:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
                door = Door(name, f"http://127.0.0.1:{port}", process.pid, http, key, cloud, qr, [])
                await _ready(door)
                door.sessions = [await _begin(door, widget) for _ in range(_VISITORS)]
                yield door
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)

    async def _create_database(self, name: str) -> None:
        connection = await asyncpg.connect(urlunsplit(urlsplit(self._postgres.url)._replace(path="/postgres")))
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()


async def _furnish(database_url: str) -> tuple[str, Channel, Channel, Channel]:
    database = Database(database_url, pool_size=2)
    await database.open()
    customer = await make_customer(database, monthly_price=120)
    key = await make_api_key(database, customer.id)
    chatbot = await make_chatbot(database, customer.id)
    cloud = await make_channel(database, chatbot, "WHATSAPP_CLOUD")
    qr = await make_channel(database, chatbot, "WHATSAPP_QR")
    widget = await make_channel(database, chatbot, "WIDGET", config={"allowed_origins": ORIGIN})
    await database.close()
    return key, cloud, qr, widget


async def _ready(door: Door) -> None:
    for _ in range(600):
        try:
            async with door.http.get(f"{door.url}/health/ready") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{door.name} did not come up")


async def _begin(door: Door, widget: Channel) -> str:
    body = {"site_key": widget.external_id}
    async with door.http.post(f"{door.url}/widget/v1/sessions", json=body, headers={"Origin": ORIGIN}) as response:
        if response.status not in {200, 201}:
            raise RuntimeError(await response.text())
        token: str = (await response.json())["session_token"]
        return token


def cpu_s(pid: int) -> float:
    """User and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

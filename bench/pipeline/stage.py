"""What both contenders stand on: servers, stand-ins, a database each with the same customer, and their processes."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg

from replyline.embedded import EmbeddedPostgres, EmbeddedValkey
from replyline.store.database import Database
from replyline.store.migrate import migrate
from tests.make import (
    CLOUD_SECRETS,
    SECRET_KEY,
    WEBHOOK_SECRET,
    make_api_key,
    make_channel,
    make_chatbot,
    make_customer,
    make_webhook_endpoint,
)
from tests.web.conftest import free_port

ROOT = Path(__file__).parent.parent.parent
NODE = ROOT / "bench" / "node-baseline"
CONCURRENCY = 50


@dataclass
class Contender:
    """One program under load."""

    name: str
    database_url: str
    redis_url: str
    api: str
    api_key: str
    chatbot_id: str
    chatbot_customer: str
    processes: "list[subprocess.Popen[bytes]]"

    def cpu_s(self) -> float:
        """CPU seconds its own processes have used."""
        return sum(cpu_of(process.pid) for process in self.processes)


class Stage:
    """Opened once for a whole run."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="replyline-bench-")
        folder = Path(self._folder.name)
        folder.chmod(0o711)
        self.valkey = EmbeddedValkey(folder)
        self.postgres = EmbeddedPostgres(folder, more={"shared_preload_libraries": "pg_stat_statements"})
        self.standins: dict[str, str] = {}
        self._standins: subprocess.Popen[str] | None = None
        self._log = (folder / "log").open("ab")
        self.http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        await asyncio.gather(self.valkey.start(), self.postgres.start())
        await asyncio.to_thread(migrate, self.postgres.url)
        await execute(self.postgres.url, "CREATE EXTENSION pg_stat_statements")
        self._standins = subprocess.Popen(  # noqa: ASYNC220  its pipe is read in a thread
            [sys.executable, "-m", "replyline", "standins"], stdout=subprocess.PIPE, text=True
        )
        assert self._standins.stdout is not None
        self.standins = json.loads(await asyncio.to_thread(self._standins.stdout.readline))
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()
        if self._standins is not None:
            self._standins.terminate()
            await asyncio.to_thread(self._standins.wait)
        await asyncio.gather(self.postgres.stop(), self.valkey.stop())
        self._log.close()
        if error is not None:
            sys.stderr.write((Path(self._folder.name) / "log").read_text(errors="replace")[-3000:])
        self._folder.cleanup()

    async def furnish(self, name: str, number: int) -> Contender:
        """A database and a Redis database of its own, with the same customer, bot, channel and endpoint."""
        server = self.postgres.url
        await execute(_named(server, "postgres"), f"CREATE DATABASE bench_{name} TEMPLATE replyline")
        url = _named(server, f"bench_{name}")
        database = Database(url, pool_size=2)
        await database.open()
        customer = await make_customer(database, monthly_price=120)
        key = await make_api_key(database, customer.id)
        chatbot = await make_chatbot(
            database,
            customer.id,
            settings={
                "provider": "openai_compatible",
                "model": "bench-1",
                "provider_base_url": f"{self.standins['openai']}/v1",
                "provider_key": "bench-key",
                "instructions": "Answer briefly.",
            },
        )
        channel = await make_channel(
            database, chatbot, "WHATSAPP_CLOUD", config={"graph_base": self.standins["whatsapp_cloud"]}
        )
        await make_webhook_endpoint(
            database, customer.id, url=f"{self.standins['customer']}/{name}", events=["message.sent"]
        )
        await database.close()
        await self.tell(
            "whatsapp_cloud",
            "_configure",
            {
                "numbers": {
                    channel.external_id: {
                        "access_token": CLOUD_SECRETS["access_token"],
                        "app_secret": CLOUD_SECRETS["app_secret"],
                    }
                },
                "statuses": [],
            },
        )
        redis_url = f"{self.valkey.url.partition('?')[0]}?db={number}"
        api = f"http://127.0.0.1:{free_port()}"
        return Contender(name, url, redis_url, api, key, str(chatbot.id), str(customer.id), [])

    def start_ours(self, ours: Contender, *, door: bool = True, workers: int = 1) -> None:
        """Replyline as in production: an API process and worker processes."""
        environment = {
            **os.environ,
            "REDIS_URL": ours.redis_url,
            "DATABASE_URL": ours.database_url,
            "REPLYLINE_SECRET_KEY": SECRET_KEY,
            "REPLYLINE_DATA": self._folder.name,
            "REPLYLINE_WEBHOOK_ALLOW_PRIVATE": "true",
            "REPLYLINE_LOG_LEVEL": "warning",
        }
        for queue in (
            "INCOMING_MESSAGES",
            "AI_PROCESSING",
            "OUTGOING_MESSAGES",
            "WHATSAPP_CLOUD_SEND",
            "WEBHOOK_DELIVERY",
        ):
            environment[f"REPLYLINE_QUEUES__{queue}__CONCURRENCY"] = str(CONCURRENCY * (20 if queue[0] == "A" else 1))
        port = str(urlsplit(ours.api).port)
        commands = [["api", "--port", port]] if door else []
        for command in [*commands, *([["worker"]] * workers)]:
            ours.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "replyline", *command], env=environment, stdout=self._log, stderr=self._log
                )
            )

    def start_node(self, node: Contender) -> None:
        """The baseline: a door process and a worker process."""
        folder = urlsplit(node.database_url)
        environment = {
            **os.environ,
            "REDIS_URL": node.redis_url.removeprefix("unix://").partition("?")[0],
            "REDIS_DB": node.redis_url.rpartition("=")[2],
            "DATABASE_URL": urlunsplit(folder),
            "PORT": str(urlsplit(node.api).port),
            "CLOUD_TOKEN": CLOUD_SECRETS["access_token"],
            "WEBHOOK_SECRET": WEBHOOK_SECRET,
            "CONCURRENCY": str(CONCURRENCY),
            "NODE_ENV": "production",
        }
        for file in ("door.mjs", "worker.mjs"):
            node.processes.append(
                subprocess.Popen(
                    ["node", file],
                    cwd=NODE,
                    env=environment,
                    stdout=self._log,
                    stderr=self._log,
                )
            )

    async def ready(self, contender: Contender) -> None:
        """Wait for its door."""
        for _ in range(600):
            try:
                async with self.http.get(f"{contender.api}/health/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{contender.name} did not come up")

    async def stop(self, contender: Contender) -> None:
        """End its processes."""
        for process in contender.processes:
            process.terminate()
        for process in contender.processes:
            await asyncio.to_thread(process.wait)
        contender.processes.clear()

    async def tell(self, standin: str, route: str, body: object) -> None:
        """Post to a control route of a stand-in."""
        async with self.http.post(f"{self.standins[standin]}/{route}", json=body) as response:
            if response.status != 200:
                raise RuntimeError(await response.text())

    def servers_cpu_s(self) -> tuple[float, float]:
        """CPU seconds that Valkey and Postgres have used."""
        return cpu_of(self.valkey.pid or 0), cpu_of(self.postgres.pid or 0, children=True)


def cpu_of(pid: int, *, children: bool = False) -> float:
    """User and system seconds of a process, with its living and reaped children where asked for."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = sum(map(int, fields[11:15] if children else fields[11:13])) / ticks
    if children:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it ended while we looked; the parent has its time
                if int(stat[1]) == pid:
                    total += sum(map(int, stat[11:13])) / ticks
    return total


async def execute(url: str, statement: str) -> None:
    """One statement on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def value(url: str, query: str) -> int:
    """One number."""
    connection = await asyncpg.connect(url)
    try:
        found: int = await connection.fetchval(query)
        return found
    finally:
        await connection.close()


def _named(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))

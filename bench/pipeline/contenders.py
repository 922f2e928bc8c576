"""Those who are measured: Replyline of this checkout, of another one, and plain BullMQ for Node. Each has servers of its own."""

import asyncio
import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import msgspec

from bench.pipeline.cpu import tree_cpu_s
from bench.pipeline.outside import MODEL_KEY, Outside
from bench.pipeline.servers import Counts, Servers
from bench.pipeline.wire import Client, RequestFailed
from tests.make import CLOUD_SECRETS, SECRET_KEY, WEBHOOK_SECRET
from tests.web.conftest import free_port

ROOT = Path(__file__).parents[2]
NODE = ROOT / "bench" / "node-baseline"
CONCURRENCY = 50
AI_CONCURRENCY = 4000
"""Answers are waited for, not worked for: more than any part lets wait at once."""
_OTHERS = 20
_UP_WITHIN_S = 120.0
_DOWN_WITHIN_S = 120.0
_SETUP_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Account:
    """Whose door is knocked at, and for which chatbot."""

    api_key: str
    customer_id: str
    chatbot_id: str
    channel_id: str


@dataclass(frozen=True, slots=True)
class Used:
    """What a contender and its servers have used and done, processes that were stopped included."""

    api_cpu_s: float
    worker_cpu_s: float
    servers: Counts

    def since(self, before: "Used") -> "Used":
        """The difference."""
        return Used(
            self.api_cpu_s - before.api_cpu_s,
            self.worker_cpu_s - before.worker_cpu_s,
            self.servers.since(before.servers),
        )

    @property
    def cpu_s(self) -> float:
        """Of everything."""
        return self.api_cpu_s + self.worker_cpu_s + self.servers.valkey_cpu_s + self.servers.postgres_cpu_s


class Contender(ABC):
    """One program with its servers and its outside."""

    def __init__(self, name: str, servers: Servers, folder: Path) -> None:
        self.name = name
        self.servers = servers
        self.outside = Outside(CLOUD_SECRETS["access_token"])
        self.workers = 1
        """How many worker processes `start` runs."""
        self.account: Account
        self.others: list[Account] = []
        """Customers beside the one that is measured."""
        self.stored_before = 0
        """Messages of each direction that the tables hold beside those that were posted."""
        self.log = folder / f"{name}.log"
        self.worker_processes: list[subprocess.Popen[bytes]] = []
        self.api_process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self._door = Client("127.0.0.1", self._port)
        self._ended_cpu_s = [0.0, 0.0]

    @abstractmethod
    async def _furnish(self) -> Account:
        """Schema and customer, into the pristine database."""

    @abstractmethod
    def _api(self) -> "subprocess.Popen[bytes]":
        """Start the door."""

    @abstractmethod
    def _worker(self) -> "subprocess.Popen[bytes]":
        """Start one worker."""

    async def prepare(self) -> None:
        """Schema, customer, and an outside to talk to; once."""
        await self.outside.start()
        self.account = await self._furnish()
        await self.servers.begin_anew()

    async def begin_anew(self) -> None:
        """Stop; tables as they were furnished, Valkey empty, nothing asked yet."""
        await self.stop()
        self.outside.ledger.forget()
        self.stored_before = 0
        await self.servers.begin_anew()

    async def start(self) -> None:
        """Start the door and the workers, and wait for the door."""
        await self.start_api()
        self.start_workers()

    async def start_api(self) -> None:
        """Start the door and wait until it is ready."""
        self.api_process = self._api()
        deadline = asyncio.get_running_loop().time() + _UP_WITHIN_S
        async with aiohttp.ClientSession() as http:
            while True:
                with suppress(aiohttp.ClientError):
                    async with http.get(f"http://127.0.0.1:{self._port}/health/ready") as response:
                        if response.status == 200:
                            return
                if self.api_process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                    raise RuntimeError(f"{self.name} did not come up:\n{self.end_of_log()}")
                await asyncio.sleep(0.1)

    def start_workers(self) -> None:
        """Start as many as `workers` says."""
        for _ in range(self.workers):
            self.worker_processes.append(self._worker())

    async def stop_workers(self) -> None:
        """End them as a deployment does, with SIGTERM."""
        self._ended_cpu_s[1] += await self._end(self.worker_processes)
        self.worker_processes.clear()

    async def stop(self) -> None:
        """End everything but the servers."""
        await self.stop_workers()
        if self.api_process is not None:
            self._ended_cpu_s[0] += await self._end([self.api_process])
            self.api_process = None
        self._door.close()

    async def used(self) -> Used:
        """What has been used so far."""
        api = [self.api_process] if self.api_process else []
        servers = await self.servers.counts()
        own = [await asyncio.to_thread(_cpu_s, processes) for processes in (api, self.worker_processes)]
        return Used(self._ended_cpu_s[0] + own[0], self._ended_cpu_s[1] + own[1], servers)

    async def post(self, contact: str, text: str, account: Account | None = None) -> None:
        """Bring a message to the door, of the customer that is measured or of another.

        Raises:
            RuntimeError: it was not accepted.
        """
        account = account or self.account
        body = msgspec.json.encode(
            {
                "chatbotId": account.chatbot_id,
                "externalUserId": contact,
                "content": text,
                "channel": "WHATSAPP_CLOUD",
            }
        )
        head = (
            f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {account.api_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            status, answer = await self._door.ask(head.encode() + body)
        except (OSError, RequestFailed) as error:
            raise RuntimeError(f"{self.name} did not answer: {error}\n{self.end_of_log()}") from error
        if status != 202:
            raise RuntimeError(f"{self.name} answered {status}: {answer[:300]!r}\n{self.end_of_log()}")

    def check(self) -> None:
        """Raises RuntimeError where a process has ended."""
        processes = [*self.worker_processes, *([self.api_process] if self.api_process else [])]
        if any(process.poll() is not None for process in processes):
            raise RuntimeError(f"a process of {self.name} has ended:\n{self.end_of_log()}")

    def end_of_log(self) -> str:
        """The last lines that its processes wrote."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def _run(self, command: list[str], environment: Mapping[str, str], folder: Path) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

    async def _end(self, processes: "list[subprocess.Popen[bytes]]") -> float:
        """End them; the CPU seconds that they used, read at the last moment."""
        used = await asyncio.to_thread(_cpu_s, processes)
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                await asyncio.to_thread(process.wait, _DOWN_WITHIN_S)
            except subprocess.TimeoutExpired as error:
                for other in processes:
                    other.kill()
                processes.clear()
                raise RuntimeError(f"a process of {self.name} did not end:\n{self.end_of_log()}") from error
        return used


class Replyline(Contender):
    """As in production: an API process and worker processes, run by the interpreter of their own checkout."""

    def __init__(self, name: str, servers: Servers, folder: Path, checkout: Path) -> None:
        """Raises ValueError where there is no checkout with an interpreter in `checkout`."""
        super().__init__(name, servers, folder)
        self.checkout = checkout.absolute()
        own = self.checkout / ".venv" / "bin" / "python"
        self._python = sys.executable if self.checkout == ROOT else str(own)
        if not (self.checkout / "replyline").is_dir() or not Path(self._python).exists():
            raise ValueError(f"{checkout} is no checkout of Replyline with a .venv: run `make .venv/.installed` there")
        self.metrics_port = free_port()
        self.more: dict[str, str] = {}
        """Further settings, as environment variables."""
        self._folder = folder

    async def _furnish(self) -> Account:
        url = self.servers.pristine_url
        await self._setup([self._python, "-m", "replyline", "migrate"], {"DATABASE_URL": url})
        script = str(ROOT / "bench" / "pipeline" / "furnish.py")
        outside = [self.outside.model.url, MODEL_KEY, self.outside.meta.url, self.outside.customer.url, str(_OTHERS)]
        said = await self._setup([self._python, "-P", script, url, *outside], {"PYTHONPATH": str(self.checkout)})
        account, *self.others = [Account(**made) for made in json.loads(said)]
        return account

    async def pause(self, queue: str) -> None:
        """Let no worker take jobs of a queue."""
        await self._setup([self._python, "-m", "replyline", "queues", "pause", queue], {})

    async def _setup(self, command: list[str], more: Mapping[str, str]) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self.checkout, env={**self._environment(), **more}, stdout=-1, stderr=-1
        )
        said, errors = await asyncio.wait_for(process.communicate(), _SETUP_WITHIN_S)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command[:4])} in {self.checkout} failed:\n{errors.decode()[-3000:]}")
        return said

    def _api(self) -> "subprocess.Popen[bytes]":
        command = [self._python, "-m", "replyline", "api", "--port", str(self._port)]
        return self._run(command, self._environment(), self.checkout)

    def _worker(self) -> "subprocess.Popen[bytes]":
        environment = self._environment()
        if not self.worker_processes:
            environment["REPLYLINE_METRICS_PORT"] = str(self.metrics_port)
        return self._run([self._python, "-m", "replyline", "worker"], environment, self.checkout)

    def _environment(self) -> dict[str, str]:
        environment = {
            **os.environ,
            "REDIS_URL": self.servers.redis_url,
            "DATABASE_URL": self.servers.database_url,
            "REPLYLINE_SECRET_KEY": SECRET_KEY,
            "REPLYLINE_DATA": str(self._folder),
            "REPLYLINE_WEBHOOK_ALLOW_PRIVATE": "true",
            "REPLYLINE_LOG_LEVEL": "warning",
            "REPLYLINE_QUEUES__AI_PROCESSING__CONCURRENCY": str(AI_CONCURRENCY),
        }
        for queue in ("INCOMING_MESSAGES", "OUTGOING_MESSAGES", "WHATSAPP_CLOUD_SEND", "WEBHOOK_DELIVERY"):
            environment[f"REPLYLINE_QUEUES__{queue}__CONCURRENCY"] = str(CONCURRENCY)
        return {**environment, **self.more}


class Node(Contender):
    """bench/node-baseline: a door process and a worker process, on the tables that it was written for."""

    async def _furnish(self) -> Account:
        connection = await asyncpg.connect(self.servers.pristine_url)
        try:
            await connection.execute((NODE / "schema.sql").read_text())
            return await self._customer(connection)
        finally:
            await connection.close()

    async def _customer(self, connection: asyncpg.Connection) -> Account:
        customer, bot, channel = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
        key = secrets.token_urlsafe(32)
        await connection.execute(
            "INSERT INTO customers (id, name, monthly_price) VALUES ($1, 'Bakery Blum', 120)", customer
        )
        await connection.execute(
            "INSERT INTO api_keys (id, customer_id, name, key_prefix, key_hash) VALUES ($1, $2, 'server', $3, $4)",
            *(uuid.uuid4(), customer, key[:8], hashlib.sha256(key.encode()).digest()),
        )
        await connection.execute(
            "INSERT INTO chatbots (id, customer_id, name, instructions, provider, model, provider_base_url) "
            "VALUES ($1, $2, 'Assistant', 'Answer briefly.', 'openai_compatible', 'bench-1', $3)",
            *(bot, customer, f"{self.outside.model.url}/v1"),
        )
        await connection.execute(
            "INSERT INTO channels (id, customer_id, chatbot_id, kind, name, channel_key, external_id, config) "
            "VALUES ($1, $2, $3, 'WHATSAPP_CLOUD', 'Number', 'key', '106540352242922', $4)",
            *(channel, customer, bot, json.dumps({"graph_base": self.outside.meta.url, "graph_version": "v25.0"})),
        )
        await connection.execute(
            "INSERT INTO webhook_endpoints (id, customer_id, url, events, secret_sealed) "
            "VALUES ($1, $2, $3, ARRAY['message.sent'], $4)",
            *(uuid.uuid4(), customer, f"{self.outside.customer.url}/hooks", base64.b64encode(b"none").decode()),
        )
        return Account(key, str(customer), str(bot), str(channel))

    def _api(self) -> "subprocess.Popen[bytes]":
        return self._run(["node", "door.mjs"], self._environment(), NODE)

    def _worker(self) -> "subprocess.Popen[bytes]":
        return self._run(["node", "worker.mjs"], self._environment(), NODE)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "REDIS_URL": urlsplit(self.servers.redis_url).path,
            "REDIS_DB": "0",
            "DATABASE_URL": self.servers.database_url,
            "PORT": str(self._port),
            "CLOUD_TOKEN": CLOUD_SECRETS["access_token"],
            "WEBHOOK_SECRET": WEBHOOK_SECRET,
            "CONCURRENCY": str(CONCURRENCY),
            "AI_CONCURRENCY": str(AI_CONCURRENCY),
            "NODE_ENV": "production",
        }


def _cpu_s(processes: "list[subprocess.Popen[bytes]]") -> float:
    return sum(tree_cpu_s(process.pid) for process in processes)

"""A whole deployment to do harm to: servers, processes, stand-ins, and a customer with all they need."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import asyncpg
import msgspec
import redis.asyncio

from replyline.embedded import EmbeddedPostgres, EmbeddedValkey
from replyline.jobs import QUEUE_NAMES
from replyline.standins import Standins
from replyline.store.channels import Channel
from replyline.store.database import Database
from tests.chaos.migrated import start_migrated
from tests.make import CLOUD_SECRETS, QR_SECRETS, SECRET_KEY, make_channel, make_chatbot, make_customer
from tests.waiting import until
from tests.web.conftest import free_port

_SETTINGS = {
    "REPLYLINE_LOCK_S": "2",
    "REPLYLINE_STALLED_EVERY_S": "1",
    "REPLYLINE_SWEEP_EVERY_S": "0.5",
    "REPLYLINE_SWEEP_GRACE_S": "2",
    "REPLYLINE_RECONCILE_AFTER_S": "2",
    "REPLYLINE_DRAIN_S": "5",
    "REPLYLINE_LOG_LEVEL": "error",
    "REPLYLINE_LOG_FORMAT": "json",
    "REPLYLINE_WEBHOOK_ALLOW_PRIVATE": "true",
    "REPLYLINE_DATABASE_POOL": "10",
}


class Sent(msgspec.Struct):
    """A message that a person has seen."""

    at: float
    to: str
    text: str
    id: str
    our_id: str | None = None


class Town:
    """Everything of a deployment, each part of which can be killed by itself."""

    def __init__(
        self,
        *,
        waits_s: Sequence[float] = (0.2, 0.4, 0.8, 1.6),
        cloud_config: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="replyline-chaos-")
        folder = Path(self._folder.name)
        folder.chmod(0o711)  # started by root, Postgres runs as somebody else, who must get through
        self.valkey = EmbeddedValkey(folder)
        self.postgres = EmbeddedPostgres(folder)  # as in production: what is committed survives a kill
        self.standins = Standins()
        self._waits = msgspec.json.encode(list(waits_s)).decode()
        self._cloud_config = cloud_config or {}
        self._settings = {**_SETTINGS, **(settings or {})}
        self._port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._log = (folder / "processes.log").open("ab")
        self._http: aiohttp.ClientSession | None = None
        self._reading: asyncpg.Connection | None = None
        self._one_at_a_time = asyncio.Lock()
        self.cloud: Channel
        self.qr: Channel
        self.widget: Channel

    @property
    def http(self) -> aiohttp.ClientSession:
        """A client; only inside `async with`."""
        assert self._http is not None
        return self._http

    @property
    def api(self) -> str:
        """Where the door is."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await asyncio.gather(self.valkey.start(), start_migrated(self.postgres), self.standins.start())
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        await self._furnish()
        self.start_api()
        await self.until_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._processes):
            self.kill(name)
        await self.http.close()
        if self._reading is not None:
            self._reading.terminate()
        await self.standins.close()
        await asyncio.gather(self.postgres.stop(), self.valkey.stop())
        self._log.close()
        if error is not None:
            sys.stderr.write((Path(self._folder.name) / "processes.log").read_text(errors="replace")[-5000:])
        self._folder.cleanup()

    async def _furnish(self) -> None:
        database = Database(self.postgres.url, pool_size=4)
        await database.open()
        try:
            customer = await make_customer(database, monthly_price=120)
            chatbot = await make_chatbot(
                database,
                customer.id,
                settings={
                    "provider": "openai_compatible",
                    "model": "test-1",
                    "provider_base_url": f"{self.standins.urls['openai']}/v1",
                },
            )
            self.cloud = await make_channel(
                database,
                chatbot,
                "WHATSAPP_CLOUD",
                config={"graph_base": self.standins.urls["whatsapp_cloud"], **self._cloud_config},
            )
            self.qr = await make_channel(
                database, chatbot, "WHATSAPP_QR", config={"gateway_url": self.standins.urls["qr_gateway"]}
            )
            self.widget = await make_channel(database, chatbot, "WIDGET")
        finally:
            await database.close()
        await self.tell(
            "whatsapp_cloud",
            "_configure",
            {
                "retry": {"tries": 14},
                "numbers": {
                    self.cloud.external_id: {
                        "access_token": CLOUD_SECRETS["access_token"],
                        "app_secret": CLOUD_SECRETS["app_secret"],
                        "callback_url": f"{self.api}/callbacks/whatsapp-cloud/{self.cloud.channel_key}",
                    }
                },
            },
        )
        await self.tell(
            "qr_gateway",
            "_configure",
            {
                "retry": {"tries": 14},
                "sessions": {
                    self.qr.external_id: {
                        "secret": QR_SECRETS["secret"],
                        "token": QR_SECRETS["gateway_token"],
                        "callback_url": f"{self.api}/callbacks/whatsapp-qr/{self.qr.channel_key}",
                    }
                },
            },
        )

    # Processes.

    def start_api(self) -> None:
        """Start the door."""
        self._start("api", "api", "--port", str(self._port))

    def start_worker(self, name: str = "worker", *, clock_ahead_s: int = 0) -> None:
        """Start a worker for all queues, on a machine whose clock is so many seconds ahead."""
        self._start(name, "worker", clock_ahead_s=clock_ahead_s)

    def _start(self, name: str, *arguments: str, clock_ahead_s: int = 0) -> None:
        environment = {
            **os.environ,
            **self._settings,
            **{f"REPLYLINE_QUEUES__{queue.upper().replace('-', '_')}__WAITS_S": self._waits for queue in QUEUE_NAMES},
            "REDIS_URL": self.valkey.url,
            "DATABASE_URL": self.postgres.url,
            "REPLYLINE_SECRET_KEY": SECRET_KEY,
            "REPLYLINE_DATA": self._folder.name,
        }
        program = ["tests.chaos.wrong_clock", str(clock_ahead_s)] if clock_ahead_s else ["replyline"]
        self._processes[name] = subprocess.Popen(
            [sys.executable, "-m", *program, *arguments],
            env=environment,
            cwd=Path(__file__).parents[2],
            stdout=self._log,
            stderr=self._log,
        )

    def pid(self, name: str) -> int:
        """The process id of one of ours."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """SIGKILL a process, and see it gone."""
        process = self._processes.pop(name)
        process.kill()
        process.wait(10)

    async def terminate(self, name: str) -> int:
        """SIGTERM a process, and give its exit code."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(process.wait, 30)

    def kill_all(self) -> None:
        """SIGKILL every process of ours at once."""
        for process in self._processes.values():
            process.kill()
        for name in list(self._processes):
            self.kill(name)

    async def until_ready(self) -> None:
        """Wait for the door."""

        async def ready() -> bool:
            try:
                async with self.http.get(f"{self.api}/health/ready") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False  # not listening yet

        await until(ready, timeout_s=120, what="the door")

    # Stand-ins and people.

    async def tell(self, standin: str, route: str, body: object) -> object:
        """Post to a control route of a stand-in."""
        async with self.http.post(f"{self.standins.urls[standin]}/{route}", json=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer

    async def fault(self, standin: str, **fault: object) -> None:
        """Tell a stand-in to fail."""
        await self.tell(standin, "_faults", fault)

    async def heal(self, standin: str) -> None:
        """Remove the faults of a stand-in."""
        async with self.http.delete(f"{self.standins.urls[standin]}/_faults") as response:
            assert response.status == 200

    async def write(self, people: Mapping[str, Sequence[str]], *, channel: str = "cloud", times: int = 1) -> None:
        """Each person writes their texts one after the other; the service repeats what the door did not take."""
        await asyncio.gather(*(self._write(sender, texts, channel, times) for sender, texts in people.items()))

    async def write_to_the_middle(self, people: Mapping[str, Sequence[str]]) -> "asyncio.Future[tuple[None, None]]":
        """Half of the people write, and once half of those have seen a reply, the others begin to.

        Returns when the first of the others is at the door: what is done now meets messages at every stage. The future ends when
        all have written.
        """
        everybody = list(people.items())
        half = len(everybody) // 2
        seen, taken = await self.count_seen(), await self._count_taken()
        first = asyncio.create_task(self.write(dict(everybody[:half])))
        await until(lambda: self._are_seen(seen + half // 2), timeout_s=90, what="replies to a quarter")
        others = asyncio.create_task(self.write(dict(everybody[half:])))
        await until(lambda: self._are_taken(taken + half + 1), timeout_s=90, what="the second half")
        assert await self.count_seen() < seen + len(everybody), "all was over before the harm"
        return asyncio.gather(first, others)

    async def _are_seen(self, count: int) -> bool:
        return await self.count_seen() >= count

    async def _are_taken(self, count: int) -> bool:
        return await self._count_taken() >= count

    async def _count_taken(self) -> int:
        (row,) = await self.rows("SELECT count(*)::int AS jobs FROM all_jobs WHERE queue = 'incoming-messages'")
        return msgspec.convert(row["jobs"], int)

    async def _write(self, sender: str, texts: Sequence[str], channel: str, times: int) -> None:
        for text in texts:
            body = {"from": sender, "text": text, "id": f"in-{sender}-{text}", "times": times}
            if channel == "cloud":
                await self.tell("whatsapp_cloud", "_inbound", {"phone_number_id": self.cloud.external_id, **body})
            else:
                await self.tell("qr_gateway", "_inbound", {"session": self.qr.external_id, **body})

    async def seen(self, channel: str = "cloud") -> list[Sent]:
        """What people have seen, in the order they saw it."""
        name = "whatsapp_cloud" if channel == "cloud" else "qr_gateway"
        async with self.http.get(f"{self.standins.urls[name]}/_sent") as response:
            return msgspec.json.decode(await response.read(), type=list[Sent])

    async def calls(self, standin: str) -> list[dict[str, object]]:
        """Everything that a stand-in was asked, page after page."""
        found: list[dict[str, object]] = []
        since = 0
        while True:
            async with self.http.get(f"{self.standins.urls[standin]}/_calls?since={since}") as response:
                page = msgspec.json.decode(await response.read(), type=dict[str, object])
            calls = msgspec.convert(page["calls"], list[dict[str, object]])
            if not calls:
                return found
            found += calls
            since = msgspec.convert(page["next"], int)

    async def count_seen(self, channel: str = "cloud") -> int:
        """How many messages people have seen."""
        return len(await self.seen(channel))

    # Counting.

    async def rows(self, query: str) -> list[asyncpg.Record]:
        """Rows of Postgres, by a connection that is the test's alone; it is opened again after Postgres was killed."""
        async with self._one_at_a_time:
            if self._reading is None or self._reading.is_closed():
                self._reading = await asyncpg.connect(self.postgres.url)
            try:
                return await self._reading.fetch(query)
            except asyncpg.PostgresError:
                self._reading.terminate()
                raise

    async def redis(self, *words: str) -> list[str]:
        """What Valkey answers to a command, by a connection of its own; a single answer is a list of one."""
        async with redis.asyncio.Redis.from_url(self.valkey.url, decode_responses=True) as client:
            answer = await client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py says nothing of it
        return [str(part) for part in answer] if isinstance(answer, list) else [str(answer)]

    async def until_settled(self, *, timeout_s: float = 180) -> None:
        """Until no job waits any more, and every message that came in was received."""

        async def settled() -> bool:
            try:
                waiting = await self.rows(
                    "SELECT queue, count(*) AS jobs FROM all_jobs WHERE state = 'WAITING' GROUP BY queue"
                )
            except (OSError, asyncpg.PostgresError):
                return False  # the database is what this test is about
            return not waiting

        started = time.monotonic()
        try:
            await until(settled, timeout_s=timeout_s, what="everything done")
        except AssertionError:
            rows = await self.rows(
                "SELECT queue, wait_reason, attempts, count(*) AS jobs, min(run_at) AS due, now() AS now FROM all_jobs "
                "WHERE state = 'WAITING' GROUP BY 1, 2, 3"
            )
            raise AssertionError(f"still waiting after {time.monotonic() - started:.0f} s: {rows}") from None

    async def dead(self) -> list[tuple[str, str]]:
        """The dead letters, as (queue, reason)."""
        return [
            (row["queue"], row["reason"])
            for row in await self.rows("SELECT queue, reason FROM all_jobs WHERE state = 'DEAD'")
        ]


def people(count: int, *, messages: int = 1) -> dict[str, list[str]]:
    """So many people, each with so many texts that tell who wrote them and in which order."""
    return {f"49151{number:08d}": [f"q{number}.{index}" for index in range(messages)] for number in range(count)}


def lost_and_doubled(wrote: Mapping[str, Sequence[str]], seen: Sequence[Sent]) -> tuple[list[str], list[str]]:
    """Of people who wrote one text each: whose reply did not come, and whose came more than once."""
    replies = Counter((sent.to.lstrip("+"), sent.text) for sent in seen)
    lost = [sender for sender, texts in wrote.items() if not replies[sender, f"Echo: {texts[-1]}"]]
    doubled = [f"{sender}: {text}" for (sender, text), times in replies.items() if times > 1]
    return lost, doubled

"""What the streams stand on: servers, one API process, a customer with a widget, and the process with the pages."""

import asyncio
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec

from bench.pipeline.cpu import tree_cpu_s
from bench.streams_pages import ORIGIN
from bench.streams_wire import Begin, Collect, Command, Count, Counted, Failed, Seen
from replyline.app import App, open_app
from replyline.embedded import EmbeddedPostgres, EmbeddedValkey
from replyline.settings import load
from replyline.store.channels import Channel
from replyline.store.customers import Customer
from replyline.store.migrate import migrate
from tests.make import SECRET_KEY, make_channel, make_chatbot, make_customer
from tests.waiting import until
from tests.web.conftest import free_port

_PIPE_LIMIT = 2**27
_LIMITS_OFF = {
    f"REPLYLINE_WIDGET_{name}": "off"
    for name in (
        "VISITORS_PER_SITE",
        "VISITORS_PER_ADDRESS",
        "MESSAGES_PER_VISITOR",
        "MESSAGES_PER_ADDRESS",
        "CONVERSATIONS_PER_ADDRESS",
    )
}
Found = TypeVar("Found")


@dataclass(frozen=True)
class Memory:
    """Of the API process, in bytes: what is in memory, and its share of what it shares with others."""

    rss: int
    pss: int


class Stage:
    """Opened once for a whole run."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._folder = tempfile.TemporaryDirectory(prefix="replyline-bench-")
        self._path = Path(self._folder.name)
        self._path.chmod(0o711)
        self._log = (self._path / "log").open("ab")
        self._port = free_port()
        self._api: subprocess.Popen[bytes] | None = None
        self._pages: asyncio.subprocess.Process | None = None
        self.valkey = EmbeddedValkey(self._path)
        self.postgres = EmbeddedPostgres(self._path)
        self.http: aiohttp.ClientSession
        self.app: App
        """The driver's own, whose moves write what pages then see."""
        self.customer: Customer
        self.channel: Channel

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        _lift_file_limit()
        await asyncio.gather(self.valkey.start(), self.postgres.start())
        await asyncio.to_thread(migrate, self.postgres.url)
        settings = load(
            redis_url=self.valkey.url,
            database_url=self.postgres.url,
            secret_key=SECRET_KEY,
            data=self._path,
            log_level="error",
        )
        self.app = await self._stack.enter_async_context(open_app(settings))
        self.http = await self._stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        )
        self.customer = await make_customer(self.app.database, monthly_price=60)
        chatbot = await make_chatbot(self.app.database, self.customer.id)
        self.channel = await make_channel(self.app.database, chatbot, "WIDGET", config={"allowed_origins": ORIGIN})
        self._start_api()
        self._pages = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.streams_pages",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            limit=_PIPE_LIMIT,
        )
        await until(self._is_ready, timeout_s=60, what="the door")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pages is not None and self._pages.returncode is None:
            self._pages.kill()
            await self._pages.wait()
        if self._api is not None:
            self._api.terminate()
            await asyncio.to_thread(self._api.wait)
        await self._stack.aclose()
        await asyncio.gather(self.postgres.stop(), self.valkey.stop())
        self._log.close()
        if error is not None:
            sys.stderr.write((self._path / "log").read_text(errors="replace")[-3000:])
        self._folder.cleanup()

    def _start_api(self) -> None:
        environment = {
            **os.environ,
            **_LIMITS_OFF,
            "REDIS_URL": self.valkey.url,
            "DATABASE_URL": self.postgres.url,
            "REPLYLINE_SECRET_KEY": SECRET_KEY,
            "REPLYLINE_DATA": self._folder.name,
            "REPLYLINE_LOG_LEVEL": "warning",
        }
        self._api = subprocess.Popen(
            [sys.executable, "-m", "replyline", "api", "--port", str(self._port)],
            env=environment,
            stdout=self._log,
            stderr=self._log,
        )

    async def _is_ready(self) -> bool:
        try:
            async with self.http.get(f"{self.url}/health/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False  # not listening yet

    # The API process, from outside.

    @property
    def pid(self) -> int:
        """The API process."""
        assert self._api is not None
        return self._api.pid

    def cpu_s(self) -> float:
        """CPU seconds that the API process has used."""
        return tree_cpu_s(self.pid)

    def memory(self) -> Memory:
        """What the API process has in memory now."""
        rolled = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        found = dict(re.findall(r"^(Rss|Pss):\s+(\d+) kB$", rolled, re.MULTILINE))
        return Memory(int(found["Rss"]) * 1024, int(found["Pss"]) * 1024)

    async def metric(self, name: str) -> float:
        """One of the API process' metrics, with its labels; 0 where it is not counted yet."""
        async with self.http.get(f"{self.url}/metrics") as response:
            text = await response.text()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def until_open(self, count: int) -> None:
        """Wait until the API process has so many open streams."""

        async def open_now() -> bool:
            return await self.metric("replyline_open_streams") == count

        await until(open_now, timeout_s=30, what=f"{count} open streams")

    # The pages.

    async def begin(self, count: int) -> Sequence[str]:
        """Make the visitors; their conversations."""
        return await self._ask(Begin(self.url, self.channel.external_id, count), list[str])

    async def tell(self, command: Command) -> Counted:
        """Have the pages do something."""
        return await self._ask(command, Counted)

    async def collect(self) -> Sequence[Seen]:
        """What each page has seen."""
        return await self._ask(Collect(), list[Seen])

    async def until_seen(self, messages: int, *, timeout_s: float) -> bool:
        """Wait until the pages have so many messages; whether they had them in time."""

        async def enough() -> bool:
            return (await self.tell(Count())).messages >= messages

        try:
            return await until(enough, timeout_s=timeout_s, what=f"{messages} messages")
        except AssertionError:
            return False  # which ones are lost is counted later

    async def _ask(self, command: Command, kind: type[Found]) -> Found:
        assert self._pages is not None
        assert self._pages.stdin is not None
        assert self._pages.stdout is not None
        self._pages.stdin.write(msgspec.json.encode(command) + b"\n")
        line = await self._pages.stdout.readline()
        if not line:
            raise RuntimeError(f"the pages' process ended at {type(command).__name__}")
        if line.startswith(b'{"type":"Failed"'):
            failed = msgspec.json.decode(line, type=Failed)
            raise RuntimeError(f"{type(command).__name__}: {failed.why}; {failed.open} streams are open")
        return msgspec.json.decode(line, type=kind)


def _lift_file_limit() -> None:
    """A connection is a file: let the processes have as many as they may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""Gateway processes on a scripted WhatsApp (gateway/README.md, "Scripted mode"), and what their WhatsApp saw."""

import asyncio
import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest

ENTRY = Path(__file__).parents[2] / "gateway" / "dist" / "src" / "main.js"
TOKEN = "a-gateway-token-of-the-tests"


class Line(msgspec.Struct):
    """One thing that the scripted WhatsApp saw."""

    event: str
    session: str
    pid: int
    time: float
    id: str | None = None
    jid: str | None = None
    text: str | None = None
    type: str | None = None
    kind: str | None = None
    sha256: str | None = None


def need_gateway() -> None:
    """Skip where the gateway is not built; where the whole suite must run, fail instead."""
    if shutil.which("node") and ENTRY.is_file():
        return
    said = "the QR gateway is not built: make gateway (Node 20 or newer)"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


class GatewayFolder:
    """The data that gateways share, and the log of their WhatsApp."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "gateway"
        self.log = folder / "script.log"
        self._key = base64.b64encode(secrets.token_bytes(32)).decode()

    def lines(self, event: str) -> list[Line]:
        """What was seen of one kind, in the order it happened."""
        if not self.log.exists():
            return []
        seen = [msgspec.json.decode(line, type=Line) for line in self.log.read_bytes().splitlines() if line]
        return [line for line in seen if line.event == event]

    async def start(self, *, port: int = 0, **settings: str) -> "GatewayProcess":
        """Start a gateway on this data; `settings` are its variables without GATEWAY_."""
        environment = {
            **os.environ,
            "GATEWAY_PORT": str(port),
            "GATEWAY_DATA": str(self.data),
            "GATEWAY_KEY": self._key,
            "GATEWAY_TOKEN": TOKEN,
            "GATEWAY_SOCKET": "scripted",
            "GATEWAY_SCRIPT_LOG": str(self.log),
            "GATEWAY_SEND_INTERVAL_MS": "0",
            "GATEWAY_CHAT_INTERVAL_MS": "0",
            "GATEWAY_LEASE_MS": "2000",
            "GATEWAY_RETRY_FIRST_MS": "50",
            "GATEWAY_ALLOW_PRIVATE_LINKS": "yes",
            **{f"GATEWAY_{name}": value for name, value in settings.items()},
        }
        return await asyncio.wait_for(asyncio.to_thread(_started, environment), 20)


def _started(environment: dict[str, str]) -> "GatewayProcess":
    process = subprocess.Popen(["node", str(ENTRY)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the gateway ended instead of coming up"
    return GatewayProcess(process, str(json.loads(line)["url"]))


class GatewayProcess:
    """One gateway."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self._process = process
        self.url = url
        self.pid = process.pid

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """SIGKILL, and see it gone."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    async def terminate(self) -> int:
        """SIGTERM; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(self._process.wait, 10)
        self.kill()
        return code

    async def script(self, http: aiohttp.ClientSession, session: str, what: str, **body: object) -> None:
        """Tell its WhatsApp to do something."""
        async with http.post(f"{self.url}/_script/{session}/{what}", json=body) as response:
            assert response.status == 200, await response.text()

    async def hear(
        self,
        http: aiohttp.ClientSession,
        session: str,
        text: str,
        *,
        jid: str,
        message_id: str,
        kind: str = "notify",
        from_me: bool = False,
        age_s: float = 0,
        alt: str | None = None,
    ) -> None:
        """A message comes, as Baileys reports it."""
        key: dict[str, object] = {"remoteJid": jid, "fromMe": from_me, "id": message_id}
        if alt is not None:
            key["remoteJidAlt"] = alt
        message = {
            "key": key,
            "message": {"conversation": text},
            "messageTimestamp": int(time.time() - age_s),
            "pushName": "Ana",
        }
        await self.script(http, session, "emit", event="messages.upsert", data={"messages": [message], "type": kind})

    async def hear_message(
        self, http: aiohttp.ClientSession, session: str, content: dict[str, object], *, jid: str, message_id: str
    ) -> None:
        """A message of any kind comes, in WhatsApp's own words."""
        key = {"remoteJid": jid, "fromMe": False, "id": message_id}
        message = {"key": key, "message": content, "messageTimestamp": int(time.time()), "pushName": "Ana"}
        data = {"messages": [message], "type": "notify"}
        await self.script(http, session, "emit", event="messages.upsert", data=data)

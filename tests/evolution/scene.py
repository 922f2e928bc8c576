"""Evolution (its stand-in), the adapter before it, and Replyline's side of both."""

from dataclasses import dataclass, field

import aiohttp
import msgspec
from aiohttp import web

from replyline.channels import CHANNELS, ChannelAccount
from replyline.ids import new_id
from tests.make import QR_SECRETS
from tests.standins.side import Side

TOKEN = "a-token-for-the-adapter"
ANA = "4915112345678"
JID = f"{ANA}@s.whatsapp.net"


def account_at(url: str) -> ChannelAccount:
    """The channel of the session `shop`, sending through the adapter at `url`."""
    ids = (new_id(), new_id(), new_id())
    secrets = {**QR_SECRETS, "gateway_token": TOKEN}
    return ChannelAccount(*ids, "WHATSAPP_QR", "ck_test", "shop", {"gateway_url": url}, secrets)


@dataclass
class Hook:
    """Replyline's side of the webhook: everything that came, verified and read by our own channel."""

    account: ChannelAccount
    url: str = ""
    status: int = 200
    events: list[dict[str, object]] = field(default_factory=list)
    forged: int = 0

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        CHANNELS["WHATSAPP_QR"].verify(self.account, headers, raw)
        if 200 <= self.status < 300:
            self.events.append(msgspec.json.decode(raw, type=dict[str, object]))
        return web.Response(status=self.status)

    def of(self, kind: str) -> list[dict[str, object]]:
        """The data of the events of one kind."""
        return [msgspec.convert(event["data"], dict[str, object]) for event in self.events if event["type"] == kind]


@dataclass
class Scene:
    """Evolution, the adapter, and Replyline's side of both."""

    evolution: Side
    adapter_url: str
    http: aiohttp.ClientSession
    hook: Hook
    account: ChannelAccount

    async def call(
        self, method: str, path: str = "", body: object = None, key: str | None = None
    ) -> tuple[int, dict[str, object]]:
        """A call of the contract."""
        headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Idempotency-Key": key} if key else {})
        url = f"{self.adapter_url}/v1/sessions/shop{path}"
        async with self.http.request(method, url, json=body, headers=headers) as response:
            raw = await response.read()
            return response.status, msgspec.json.decode(raw, type=dict[str, object]) if raw else {}

    async def send(self, text: str, key: str, to: str = ANA) -> tuple[int, dict[str, object]]:
        """One send."""
        return await self.call("POST", "/messages", {"to": to, "type": "text", "text": text}, key)

    async def pair(self) -> None:
        """Make the session and scan its code."""
        status, made = await self.call(
            "PUT", "", {"webhook_url": self.hook.url, "webhook_secret": QR_SECRETS["secret"], "label": "Shop"}
        )
        assert (status, made["state"]) == (200, "qr")
        await self.hear(event="connection.update", data={"state": "open", "statusReason": 200, "wuid": JID})

    async def hear(self, **inbound: object) -> int:
        """Something happens at Evolution; the adapter's answer to its webhook."""
        said = await self.evolution.tell("/_inbound", {"instance": "shop", **inbound})
        return msgspec.convert(said.json()["status"], int)

    async def webhook(self) -> tuple[str, dict[str, str]]:
        """Where Evolution was told to post, and with which headers."""
        created = next(call for call in (await self.evolution.calls()).calls if call.path == "/instance/create")
        webhook = msgspec.convert(msgspec.convert(created.body, dict[str, object])["webhook"], dict[str, object])
        return str(webhook["url"]), msgspec.convert(webhook["headers"], dict[str, str])

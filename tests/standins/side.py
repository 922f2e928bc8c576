"""One stand-in as a test speaks to it: over HTTP, like anybody else."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import msgspec

TOKEN, APP_SECRET, VERIFY_TOKEN = "token-of-number", "secret-of-app", "verify-me"
NUMBER, SESSION = "106540352242922", "shop/1"
GATEWAY_TOKEN, GATEWAY_SECRET = "token-of-gateway", "secret-of-gateway"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    status: int
    raw: bytes
    headers: Mapping[str, str]

    def json(self) -> dict[str, object]:
        """The body as an object."""
        return msgspec.json.decode(self.raw, type=dict[str, object])

    def error(self) -> dict[str, object]:
        """What is under `error`."""
        return msgspec.convert(self.json()["error"], dict[str, object])


class Call(msgspec.Struct):
    """A call that a stand-in recorded."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: object
    status: int | None


class Page(msgspec.Struct):
    """Recorded calls."""

    next: int
    calls: list[Call]


class Sent(msgspec.Struct):
    """A message that a person has seen."""

    at: float
    to: str
    text: str
    id: str
    our_id: str | None
    type: str = "text"
    context: str | None = None
    body: object = None


class Counts(msgspec.Struct):
    """How the callbacks go."""

    waiting: int
    posted: int
    given_up: int
    no_room: int


@dataclass(frozen=True, slots=True)
class Side:
    """A stand-in at `url`."""

    url: str
    http: aiohttp.ClientSession

    async def call(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Said:
        """Any call; bytes go as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        async with self.http.request(
            method, f"{self.url}{path}", data=io.BytesIO(raw), headers=headers, allow_redirects=False
        ) as answer:
            return Said(answer.status, await answer.read(), answer.headers)

    async def tell(self, route: str, body: object) -> Said:
        """A control route that must take what it is told."""
        said = await self.call("POST", route, body)
        assert said.status == 200, said.raw
        return said

    async def fault(self, kind: str, **more: object) -> None:
        """Tell it to fail."""
        await self.tell("/_faults", {"kind": kind, **more})

    async def calls(self, since: int = 0) -> Page:
        """What it recorded."""
        return msgspec.json.decode((await self.call("GET", f"/_calls?since={since}")).raw, type=Page)

    async def sent(self) -> list[Sent]:
        """What people have seen."""
        return msgspec.json.decode((await self.call("GET", "/_sent")).raw, type=list[Sent])

    async def counts(self) -> Counts:
        """How its callbacks go."""
        return msgspec.json.decode((await self.call("GET", "/_callbacks")).raw, type=Counts)

    async def send_by_cloud(self, text: str = "Hello", *, token: str = TOKEN, **more: object) -> Said:
        """A text to a person, as our channel sends it."""
        body = {"messaging_product": "whatsapp", "to": "+16505551234", "type": "text", "text": {"body": text}, **more}
        return await self.call("POST", f"/v25.0/{NUMBER}/messages", body, headers={"Authorization": f"Bearer {token}"})

    async def send_by_qr(self, text: str = "Hello", *, key: str = "m-1", **more: object) -> Said:
        """A text to a person, as our channel sends it."""
        body = {"to": "16505551234@s.whatsapp.net", "type": "text", "text": text, **more}
        headers = {"Authorization": f"Bearer {GATEWAY_TOKEN}", "Idempotency-Key": key}
        return await self.call("POST", "/v1/sessions/shop%2F1/messages", body, headers=headers)

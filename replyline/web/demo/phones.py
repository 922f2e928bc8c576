"""The two phones of the demo: what people write on them and see there, by way of the stand-ins of Meta and the QR gateway."""

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import aiohttp
import msgspec

from replyline.app import App
from replyline.settings import Settings
from replyline.store import conversations, messages
from replyline.store.moves.accept import dedupe_key
from replyline.web.problems import Problem

PhoneName = Literal["cloud", "qr"]
PHONES: tuple[PhoneName, ...] = ("cloud", "qr")
FaultName = Literal["cloud_fails_twice", "cloud_refuses", "ai_fails_once", "ai_slow", "qr_down", "none"]

_MOST_SHOWN = 100
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_TYPING_S = 25.0  # as long as WhatsApp shows it (contracts §1.9)
_STANDINS: Mapping[str, str] = {"cloud": "whatsapp_cloud", "qr": "qr_gateway"}

# What is told to whom; the schedule of retries does the rest.
_FAULTS: Mapping[str, tuple[str, dict[str, object]]] = {
    "cloud_fails_twice": (
        "whatsapp_cloud",
        {"kind": "error", "code": 131016, "status": 400, "times": 2, "match": {"contains": '"recipient_type"'}},
    ),
    # No try can help: the send is given up at once, and its dead letter can be replayed.
    "cloud_refuses": (
        "whatsapp_cloud",
        {"kind": "error", "code": 131026, "status": 400, "times": 1, "match": {"contains": '"recipient_type"'}},
    ),
    "ai_fails_once": ("openai", {"kind": "error", "status": 500, "times": 1}),
    "ai_slow": ("openai", {"kind": "slow", "seconds": 6, "times": 1}),
}


class _Widget(msgspec.Struct):
    site_key: str


class _Cloud(msgspec.Struct):
    channel_id: uuid.UUID
    phone_number_id: str


class _Qr(msgspec.Struct):
    channel_id: uuid.UUID
    session: str


class _Kinds(msgspec.Struct):
    WIDGET: _Widget
    WHATSAPP_CLOUD: _Cloud
    WHATSAPP_QR: _Qr


class _Customer(msgspec.Struct):
    customer_id: uuid.UUID
    channels: _Kinds


class _Ready(msgspec.Struct):
    """The part of ready.json that is needed here."""

    pid: Annotated[int, msgspec.Meta(gt=0)]
    database_url: str
    standins: dict[str, str]
    demo: _Customer
    redis_url: str = ""
    embedded_redis: bool = False


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo of `replyline start --demo`, as ready.json has it."""

    customer_id: uuid.UUID
    site_key: str
    phone_number_id: str
    session: str
    channels: Mapping[str, uuid.UUID]
    standins: Mapping[str, str]
    own_redis: bool
    """Whether our Redis is the one that `start` brought: nobody else's data is in it."""

    @classmethod
    def read(cls, settings: Settings) -> "Demo | None":
        """The one that runs beside us; None where none does (a file that a killed start left behind does not count)."""
        try:
            ready = msgspec.json.decode(settings.ready_file.read_bytes(), type=_Ready)
            os.kill(ready.pid, 0)
        except (OSError, msgspec.MsgspecError):
            return None
        if ready.database_url != settings.database_url:
            return None
        kinds = ready.demo.channels
        return cls(
            customer_id=ready.demo.customer_id,
            site_key=kinds.WIDGET.site_key,
            phone_number_id=kinds.WHATSAPP_CLOUD.phone_number_id,
            session=kinds.WHATSAPP_QR.session,
            channels={"cloud": kinds.WHATSAPP_CLOUD.channel_id, "qr": kinds.WHATSAPP_QR.channel_id},
            standins=ready.standins,
            own_redis=ready.embedded_redis and ready.redis_url == settings.external_redis_url,
        )


@dataclass(frozen=True, slots=True)
class Bubble:
    """One message on a phone; `at` in Unix seconds."""

    id: str
    at: float
    text: str
    inbound: bool


@dataclass(frozen=True, slots=True)
class Screen:
    """What a phone shows: the newest messages, whether somebody is writing, and whether theirs was read."""

    messages: Sequence[Bubble]
    typing: bool
    read: bool


class _Sent(msgspec.Struct):
    at: float
    text: str
    id: str


class _Read(msgspec.Struct):
    at: float
    message_id: str
    typing: bool = False


class _Sign(msgspec.Struct):
    at: float
    session: str
    kind: str
    to: str
    on: bool | None = None
    message_ids: list[str] | None = None


class _Posted(msgspec.Struct):
    status: int
    ids: list[str]


class Phones:
    """Both phones, for one request."""

    def __init__(self, app: App, demo: Demo) -> None:
        self._app = app
        self._demo = demo

    async def write(self, name: PhoneName, person: str, text: str) -> tuple[uuid.UUID, str]:
        """The person writes; gives our id of the message and the channel's.

        Raises:
            Problem: 502, the stand-in is away, or our door did not take its callback.
        """
        body: dict[str, object] = {"text": text, "from": _address(name, person), "name": "You"}
        body |= {"phone_number_id": self._demo.phone_number_id} if name == "cloud" else {"session": self._demo.session}
        posted = msgspec.json.decode(await self._call(name, "POST", "/_inbound", body), type=_Posted)
        if not 200 <= posted.status < 300 or not posted.ids:
            raise Problem(502, "callback_refused", f"our door answered the callback with {posted.status}")
        key = dedupe_key(self._demo.channels[name], posted.ids[0])
        message_id = await self._app.accepted_as(key, customer_id=self._demo.customer_id)
        if message_id is None:
            raise Problem(502, "callback_lost", "our door took the callback, but the message is not there")
        return message_id, posted.ids[0]

    async def screen(self, name: PhoneName, person: str) -> Screen:
        """What the phone shows now."""
        address = _address(name, person)
        sent = msgspec.json.decode(await self._call(name, "GET", f"/_sent?to={address}"), type=list[_Sent])
        written = await self._written(name, person)
        bubbles = [Bubble(one.id, one.at, one.text, inbound=False) for one in sent[-_MOST_SHOWN:]]
        bubbles = sorted([*bubbles, *written], key=lambda bubble: bubble.at)[-_MOST_SHOWN:]
        last_sent = sent[-1].at if sent else 0.0
        typing, read = await self._signs(name, address, {bubble.id for bubble in written}, after=last_sent)
        return Screen(bubbles, typing=typing, read=read)

    async def fail(self, what: FaultName) -> None:
        """Let something outside fail, or nothing any more."""
        if what == "none":
            for far_end in ("whatsapp_cloud", "qr_gateway", "openai"):
                await self._call(far_end, "DELETE", "/_faults")
            await self._call("qr_gateway", "POST", "/_session", {"session": self._demo.session, "state": "open"})
        elif what == "qr_down":
            await self._call("qr_gateway", "POST", "/_session", {"session": self._demo.session, "state": "logged_out"})
        else:
            far_end, fault = _FAULTS[what]
            await self._call(far_end, "POST", "/_faults", fault)

    async def _written(self, name: PhoneName, person: str) -> list[Bubble]:
        conversation = await conversations.of_person(
            self._app.database,
            channel_id=self._demo.channels[name],
            customer_id=self._demo.customer_id,
            names=[person, _address(name, person)],
        )
        if conversation is None:
            return []
        found = await messages.list_page(
            self._app.database, customer_id=self._demo.customer_id, conversation_id=conversation, limit=_MOST_SHOWN
        )
        return [
            Bubble(one.external_id or str(one.id), one.created_at.timestamp(), one.content, inbound=True)
            for one in found
            if one.direction == "INBOUND"
        ]

    async def _signs(self, name: PhoneName, address: str, written: set[str], *, after: float) -> tuple[bool, bool]:
        """Whether somebody is writing, and whether what the person wrote was read."""
        since = max(after, time.time() - _TYPING_S)
        if name == "cloud":
            reads = msgspec.json.decode(await self._call(name, "GET", "/_read"), type=list[_Read])
            mine = [one for one in reads if one.message_id in written]
            return any(one.typing and one.at > since for one in mine), bool(mine)
        signs = msgspec.json.decode(await self._call(name, "GET", "/_presence"), type=list[_Sign])
        about = [one for one in signs if one.session == self._demo.session and one.to == address]
        writing = [one for one in about if one.on is not None]
        typing = bool(writing) and writing[-1].on is True and writing[-1].at > since
        return typing, any(one.message_ids for one in about)

    async def _call(self, far_end: str, method: str, path: str, body: object = None) -> bytes:
        url = self._demo.standins[_STANDINS.get(far_end, far_end)]
        try:
            async with self._app.http.request(method, f"{url}{path}", json=body, timeout=_TIMEOUT) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Problem(502, "standin_away", f"the stand-in does not answer: {type(error).__name__}") from error
        if response.status >= 400:
            raise Problem(502, "standin_refused", raw[:300].decode(errors="replace"))
        return raw


def _address(name: PhoneName, person: str) -> str:
    return person if name == "cloud" else f"{person}@s.whatsapp.net"

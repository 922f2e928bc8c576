"""A page of a customer's site with the widget on it, as the widget's own script talks to us."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import msgspec

from replyline.store.channels import Channel
from replyline.store.database import Database
from replyline.store.moves.accept import Accepted
from tests.make import make_channel, make_chatbot, make_customer
from tests.store.scene import Scene
from tests.waiting import until
from tests.web.conftest import Answer, Door

ORIGIN = "https://shop.example"
ALLOWED = f"{ORIGIN} https://*.chain.example"
IDENTITY_SECRET = "the-shop-and-we-know-it-nobody-else-does"


async def make_site(database: Database, **config: str) -> Scene:
    """A customer with a chatbot and a widget that pages of ORIGIN may show."""
    customer = await make_customer(database, monthly_price=60)
    chatbot = await make_chatbot(database, customer.id)
    channel = await make_channel(
        database,
        chatbot,
        "WIDGET",
        config={"allowed_origins": ALLOWED, **config},
        secrets={"identity_secret": IDENTITY_SECRET},
    )
    return Scene(database, customer, chatbot, channel)


@dataclass(slots=True)
class Event:
    """One event as it came; `id` is None where it has no place."""

    id: int | None
    name: str
    data: dict[str, object]


@dataclass(slots=True)
class Stream:
    """An open event stream, read as it comes."""

    response: aiohttp.ClientResponse
    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    ended: bool = False

    async def read(self) -> None:
        """Read until the stream ends."""
        lines: list[str] = []
        async for raw in self.response.content:
            line = raw.decode().rstrip("\n")
            if line:
                lines.append(line)
                continue
            self._take(lines)
            lines = []
        self.ended = True

    def _take(self, lines: list[str]) -> None:
        found = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        if "" in found:
            self.comments.append(found[""])
        if "event" in found:
            place = int(found["id"]) if "id" in found else None
            self.events.append(Event(place, found["event"], msgspec.json.decode(found["data"], type=dict[str, object])))

    def named(self, *names: str) -> list[Event]:
        """The events of these names, in order."""
        return [event for event in self.events if event.name in names]

    @property
    def logged(self) -> list[tuple[int | None, object]]:
        """Place and text of the messages that came."""
        return [(event.id, event.data["text"]) for event in self.named("message.created", "message.completed")]

    async def until(self, name: str, count: int = 1) -> list[Event]:
        """Wait for that many events of the name."""

        def enough() -> bool:
            return len(self.named(name)) >= count

        await until(enough, what=f"{count} of {name} among {[event.name for event in self.events]}")
        return self.named(name)


@dataclass(slots=True)
class Page:
    """One page: its visitor's token, which it keeps, and the session of now."""

    door: Door
    site_key: str
    origin: str | None = ORIGIN
    visitor_token: str | None = None
    session_token: str = ""
    conversation_id: str = ""
    address: str | None = None
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    """The page's name for itself, as the script makes one when it is loaded."""

    async def begin(self, **more: object) -> Answer:
        """Begin a session, or go on with the visitor's token."""
        body = {"site_key": self.site_key, "visitor_token": self.visitor_token, **more}
        answer = await self.call("POST", "/sessions", json=body)
        if answer.status == 201:
            self.visitor_token, self.session_token = (
                str(answer.json["visitor_token"]),
                str(answer.json["session_token"]),
            )
            self.conversation_id = str(answer.json["conversation_id"])
        return answer

    async def call(self, method: str, path: str, **more: object) -> Answer:
        """One call as the browser makes it."""
        return await self.door.call(
            method,
            f"/widget/v1{path}",
            key=self.session_token or None,
            headers={**self.headers, **msgspec.convert(more.pop("headers", {}), dict[str, str])},
            **more,  # type: ignore[arg-type]  # Door.call's own
        )

    @property
    def headers(self) -> dict[str, str]:
        """What a browser adds, and a proxy before us."""
        found = {} if self.origin is None else {"Origin": self.origin}
        return found if self.address is None else {**found, "X-Forwarded-For": self.address}

    async def write(self, text: str, client_id: str | None = None, **more: object) -> Answer:
        """Send a message."""
        body = {"client_id": client_id or str(uuid.uuid4()), "text": text, **more}
        return await self.call("POST", "/messages", json=body)

    async def history(self, query: str = "") -> list[tuple[str, str]]:
        """Who said what, oldest first."""
        answer = await self.call("GET", f"/messages{query}")
        assert answer.status == 200, answer.json
        return [(str(entry["author"]), str(entry["text"])) for entry in answer.entries]

    @asynccontextmanager
    async def stream(self, query: str = "", **headers: str) -> AsyncIterator[Stream]:
        """Listen until the end of the block."""
        sent = {"Authorization": f"Bearer {self.session_token}", **self.headers, **headers}
        url = f"{self.door.url}/widget/v1/events?page={self.name}&{query.removeprefix('?')}"
        async with self.door.http.get(url, headers=sent) as response:
            assert response.status == 200, await response.text()
            stream = Stream(response)
            reading = asyncio.create_task(stream.read())
            try:
                yield stream
            finally:
                response.close()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


async def open_page(door: Door, channel: Channel, **more: object) -> Page:
    """A page with a new visitor."""
    page = Page(door, channel.external_id)
    answer = await page.begin(**more)
    assert answer.status == 201, answer.body
    return page


async def save_all(scene: Scene) -> None:
    """Do what incoming-messages would."""
    for row in await scene.fetch(
        "SELECT id, message_id, trace_id FROM all_jobs WHERE queue = 'incoming-messages' AND state = 'WAITING' ORDER BY id"
    ):
        await scene.receive(Accepted(row["id"], row["message_id"], row["trace_id"], duplicate=False))


async def answer_all(scene: Scene, text: str) -> None:
    """Answer the one open turn, and put the answer into the log."""
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, text)
    await scene.route()

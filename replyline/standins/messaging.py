"""What the two WhatsApp stand-ins share: callbacks to our door, what people have seen, and what they write."""

from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from aiohttp import web

from replyline.standins.callbacks import Callback, Callbacks, Retry
from replyline.standins.faults import CALL_FAULTS, CALLBACK_FAULTS, StatusFailed, StatusFirst
from replyline.standins.server import ControlRoute, Standin, json_response

MAX_SENT = 100_000

Item = TypeVar("Item")
Status = Literal["sent", "delivered", "read"]
Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/?#]+")]
Copies = Annotated[int, msgspec.Meta(ge=1, le=100)]


class Sent(msgspec.Struct, frozen=True):
    """A message that a person has seen. `at` is Unix seconds; `our_id` is what the sender calls it."""

    at: float
    to: str
    text: str
    id: str
    our_id: str | None
    type: str = "text"
    context: str | None = None
    """The id of the message that it quotes."""
    body: object = None
    """What it is, as the sender put it."""


class MessagingConfiguration(msgspec.Struct, forbid_unknown_fields=True):
    """Which statuses follow a send, and how callbacks are tried again."""

    statuses: list[Status] | None = None
    retry: Retry | None = None


@dataclass(frozen=True, slots=True)
class Written(Generic[Item]):
    """What people wrote: the callbacks that bring it, how often each is posted, and the ids of the messages."""

    callbacks: tuple[Callback[Item], ...]
    copies: int
    ids: list[str]


class MessagingStandin(Standin, Generic[Item]):
    """A service that carries messages both ways."""

    takes = (*CALL_FAULTS, StatusFailed, StatusFirst, *CALLBACK_FAULTS)

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: Callbacks[Item] = Callbacks(self.faults, self.encode, self.sign)
        self.statuses: list[Status] = ["sent", "delivered"]
        self._sent: deque[Sent] = deque(maxlen=MAX_SENT)

    @abstractmethod
    def encode(self, items: Sequence[Item]) -> bytes:
        """The body of one callback."""

    @abstractmethod
    def sign(self, secret: str, raw: bytes) -> Mapping[str, str]:
        """The headers that prove it."""

    @abstractmethod
    def written(self, raw: bytes) -> Written[Item]:
        """Read the body of `POST /_inbound`. Raises BadControl."""

    def deliver(self, sent: Sent) -> None:
        """A person sees a message."""
        self._sent.append(sent)

    def configure_messaging(self, given: MessagingConfiguration) -> None:
        """Take what both have."""
        self.statuses = given.statuses if given.statuses is not None else self.statuses
        self.callbacks.retry = given.retry if given.retry is not None else self.callbacks.retry

    def control_routes(self) -> list[ControlRoute]:
        """What people have seen, what they write, and how the callbacks go."""
        return [
            ("GET", "/_sent", self._get_sent),
            ("DELETE", "/_sent", self._delete_sent),
            ("POST", "/_inbound", self._post_inbound),
            ("GET", "/_callbacks", self._get_callbacks),
        ]

    async def close(self) -> None:
        """Stop, and give up callbacks that wait."""
        await self.callbacks.close()
        await super().close()

    async def _get_sent(self, received: web.Request) -> web.Response:
        to = received.query.get("to")
        return json_response([sent for sent in self._sent if to in {None, sent.to}])

    async def _delete_sent(self, _: web.Request) -> web.Response:
        self._sent.clear()
        return json_response([])

    async def _get_callbacks(self, _: web.Request) -> web.Response:
        return json_response(self.callbacks.counts())

    async def _post_inbound(self, received: web.Request) -> web.Response:
        """A person writes; `status` is our door's answer, of several the first that is not 2xx."""
        written = self.written(await received.read())
        for _ in range(written.copies - 1):
            self.callbacks.later(*written.callbacks)
        statuses = [await self.callbacks.now(callback) for callback in written.callbacks]
        refused = [status for status in statuses if not 200 <= status < 300]
        return json_response({"status": refused[0] if refused else statuses[-1], "ids": written.ids})

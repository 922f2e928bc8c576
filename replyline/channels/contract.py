"""What a channel must be able to do: check and read callbacks, send, and say in our words what went wrong."""

import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import aiohttp

from replyline.contents import Content, Template
from replyline.errors import Permanent
from replyline.inbound_content import NOTHING_ELSE, InboundContent
from replyline.jobs import ChannelKind, Identity, IdentityKind, IncomingKind, MediaRef
from replyline.notices import Notice, Preference
from replyline.statuses import DeliveryStatus, StatusUpdate

__all__ = [
    "Accepted",
    "Callback",
    "Channel",
    "ChannelAccount",
    "DeliveryStatus",
    "ForgedCallback",
    "IdentityKind",
    "InboundMessage",
    "Outgoing",
    "Pace",
    "SessionReport",
    "Sign",
    "StatusUpdate",
    "UnreadItem",
    "UnreadableCallback",
]


@dataclass(frozen=True, slots=True)
class ChannelAccount:
    """One connected account: a row of `channels` with its secrets opened."""

    id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    kind: ChannelKind
    channel_key: str
    external_id: str
    """phone_number_id (Cloud), session (QR) or site key (widget)."""
    config: Mapping[str, str] = field(default_factory=dict)
    """What `store/channels.py` lists for its kind."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Cloud: app_secret, verify_token, access_token. QR: secret (signs callbacks), gateway_token (optional)."""
    healthy: bool = True
    health_reason: str | None = None
    trial_job_id: uuid.UUID | None = None
    """While the account is not healthy: the one send job that may test whether it works again."""


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """One thing that a person did, as the channel reported it; usually a message."""

    external_id: str
    sender: str
    identity_kind: IdentityKind
    reply_to: str
    content: str
    content_type: str = "text"
    name: str | None = None
    provider_timestamp: float | None = None
    kind: IncomingKind = "message"
    also_known_as: tuple[Identity, ...] = ()
    target_id: str | None = None
    media: MediaRef | None = None
    body: InboundContent = NOTHING_ELSE
    """What it holds besides `content`."""


@dataclass(frozen=True, slots=True)
class UnreadItem:
    """A part of a callback that was not understood, as it came; kept for a human to look at."""

    reason: str
    raw: bytes
    own: bool = True
    """Whether it names the account; else it names no account, and goes to the account whose URL was called."""


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What a gateway says of the session behind a channel; `down` is why nothing can be sent, None where it can.

    `event_id` is the gateway's own, the same whenever it says the same event again.
    """

    event_id: str
    state: str
    raw: bytes
    down: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Callback:
    """Everything one callback brought for one account; `ignored` counts items that do not concern the account."""

    messages: tuple[InboundMessage, ...] = ()
    statuses: tuple[StatusUpdate, ...] = ()
    unread: tuple[UnreadItem, ...] = ()
    session: SessionReport | None = None
    notices: tuple[Notice, ...] = ()
    preferences: tuple[Preference, ...] = ()
    ignored: int = 0
    businesses: Mapping[str, int] = field(default_factory=dict)
    """How many items are about a business account as a whole (by its id), which other channels may belong to too."""
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    """How many items name another account (by its external id) than the one asked for."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to be sent; `message_id` is our id, which makes repeats recognisable where the channel can tell."""

    message_id: uuid.UUID
    to: str
    text: str
    content: Content | None = None
    """What it is, where it is not plain text; `text` is then the same in words."""
    quotes: str | None = None
    """The channel's id of the message that is being replied to."""
    also_to: str | None = None
    """Another address of the same person, for a channel that cannot use the first."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The channel took the message and gave it this id."""

    external_id: str


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life to a person who waits: their message was read, and an answer is being written (or no longer)."""

    to: str
    read_id: str | None
    typing: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an account may send: every message, and messages to one recipient. Intervals in seconds, 0 is no limit."""

    every_s: float = 0.0
    burst: int = 1
    recipient_every_s: float = 0.0
    recipient_burst: int = 1
    per_day: int = 0
    """Messages in any 24 hours; 0 is no limit."""


class ForgedCallback(Exception):
    """The callback's signature is missing, wrong or stale: nothing of it may be stored."""


class UnreadableCallback(Exception):
    """The signature is right but the body is not what the channel's contract says; the message names what is wrong."""


class Channel(Protocol):
    """A kind of channel. What a kind does not have, it need not write: the defaults here do nothing."""

    kind: ClassVar[ChannelKind]
    repeat_is_safe: ClassVar[bool]
    """Whether the same `message_id` cannot reach the person twice; if it can, an unknown outcome is reconciled first."""
    accepted_is_sent: ClassVar[bool] = True
    """Whether an accepted message counts as SENT; if not, it does when a status says so."""
    sign_every_s: ClassVar[float | None] = None
    """How often a sign of life must be given again, in seconds; None where the channel has none."""
    files_come_from_a_gateway: ClassVar[bool] = False
    """Whether files of people are fetched from the address that the operator gave the channel, and from no other."""
    shows_writing: ClassVar[bool] = False
    """Whether an open page shows an answer while it is being written."""
    window_s: ClassVar[float | None] = None
    """How long after a person's last message free text may be sent to them, in seconds; None for always."""

    def verify(self, account: ChannelAccount, headers: Mapping[str, str], raw: bytes) -> None:
        """Check the signature over the received bytes, in constant time. Header names are lower case.

        Raises:
            ForgedCallback: see there.
        """
        ...

    def parse(self, account: ChannelAccount, raw: bytes) -> Callback:
        """Split a verified callback into messages and statuses of this account; one bad item never hides another.

        Raises:
            UnreadableCallback: see there.
        """
        ...

    def render(self, text: str) -> tuple[str, ...]:
        """A model's Markdown as the messages that this channel shows, in order, none of them empty or too long."""
        return (text,)

    def unrendered(self, text: str) -> tuple[str, ...]:
        """The same with its Markdown as it is: for a text that takes too long to render."""
        return (text,)

    async def send(self, account: ChannelAccount, message: Outgoing, http: aiohttp.ClientSession) -> Accepted:
        """Send one message.

        Raises:
            Temporary: with `outcome_unknown` set where the message may have gone out although no answer came.
            RateLimited: the channel asks us to wait.
            Permanent: it will never go out.
            ChannelDown: nothing of this account goes out at the moment.
        """
        ...

    def pace(self, account: ChannelAccount) -> Pace:
        """How fast this account may send."""
        return Pace()

    def fallback(self, account: ChannelAccount, text: str) -> Template | None:
        """What is sent instead of `text` when `window_s` has passed; None where the customer has set nothing."""
        return None

    async def sign(self, account: ChannelAccount, sign: Sign, http: aiohttp.ClientSession) -> bool:
        """Give a sign of life; False if the channel has none.

        Raises:
            JobError: it was not given; nothing depends on it.
        """
        return False

    async def check(self, account: ChannelAccount, http: aiohttp.ClientSession) -> None:
        """Ask the other side whether the account can be used.

        Raises:
            ChannelDown: it cannot.
            Temporary: the other side does not say.
        """
        return

    def fetch_media(
        self, account: ChannelAccount, media: MediaRef, http: aiohttp.ClientSession
    ) -> AsyncIterator[bytes]:
        """The bytes of an inbound file, checked against what the channel said of it when they end.

        Raises (while it is read):
            Temporary, RateLimited, Permanent: it cannot be had now, or never.
        """
        raise Permanent(f"{self.kind} has no files to fetch", reason="no_media")

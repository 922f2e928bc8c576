"""What a channel must be able to do: check a callback, read it, send a text, and say in our words what went wrong."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import aiohttp

from replyline.jobs import ChannelKind
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
    "OutgoingText",
    "StatusUpdate",
    "UnreadableCallback",
]

IdentityKind = Literal["phone", "wa_id", "bsuid", "lid", "visitor", "external"]


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
    """Cloud: graph_base, graph_version (optional). QR: gateway_url."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Cloud: app_secret, verify_token, access_token. QR: secret (signs callbacks), gateway_token (optional)."""


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """One message that a person wrote, as the channel reported it."""

    external_id: str
    sender: str
    identity_kind: IdentityKind
    reply_to: str
    content: str
    content_type: str = "text"
    name: str | None = None
    provider_timestamp: float | None = None


@dataclass(frozen=True, slots=True)
class Callback:
    """Everything one callback brought; `ignored` counts items that are none of our business or not understood."""

    messages: tuple[InboundMessage, ...] = ()
    statuses: tuple[StatusUpdate, ...] = ()
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class OutgoingText:
    """One text to be sent; `message_id` is our id, which makes repeats recognisable where the channel can tell."""

    message_id: uuid.UUID
    to: str
    content: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The channel took the message and gave it this id."""

    external_id: str


class ForgedCallback(Exception):
    """The callback's signature is missing, wrong or stale: nothing of it may be stored."""


class UnreadableCallback(Exception):
    """The signature is right but the body is not what the channel's contract says; the message names what is wrong."""


class Channel(Protocol):
    """A kind of channel."""

    kind: ClassVar[ChannelKind]
    repeat_is_safe: ClassVar[bool]
    """Whether the same `message_id` cannot reach the person twice; if it can, an unknown outcome is reconciled first."""

    def verify(self, account: ChannelAccount, headers: Mapping[str, str], raw: bytes) -> None:
        """Check the signature over the received bytes, in constant time. Header names are lower case.

        Raises:
            ForgedCallback: see there.
        """
        ...

    def parse(self, account: ChannelAccount, raw: bytes) -> Callback:
        """Split a verified callback into messages and statuses; one bad item never hides another.

        Raises:
            UnreadableCallback: see there.
        """
        ...

    async def send(self, account: ChannelAccount, message: OutgoingText, http: aiohttp.ClientSession) -> Accepted:
        """Send one text.

        Raises:
            Temporary: with `outcome_unknown` set where the message may have gone out although no answer came.
            RateLimited: the channel asks us to wait.
            Permanent: it will never go out.
        """
        ...

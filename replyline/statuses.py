"""The status of a message of ours: the ladder it climbs and never goes down."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

DeliveryStatus = Literal["SENT", "DELIVERED", "READ", "FAILED"]

# A failure loses to `delivered` and `read`: the person has the message, whatever was reported in between.
_LADDER = ("QUEUED", "SENDING", "UNKNOWN", "SENT", "FAILED", "DELIVERED", "READ")
_RANK = {status: rank for rank, status in enumerate(_LADDER)}


@dataclass(frozen=True, slots=True)
class Pricing:
    """What the channel says it charges for a message, in its own words."""

    category: str
    type: str


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """What became of one message of ours. It is found by our own id if the channel gives it back, else by the channel's id."""

    external_id: str
    status: DeliveryStatus
    at: datetime
    message_id: uuid.UUID | None = None
    error_reason: str | None = None
    error_code: int | None = None
    error_title: str | None = None
    error_detail: str | None = None
    pricing: Pricing | None = None
    channel_down: bool = False
    """Whether the failure is the channel's as a whole, not this message's."""


def climbs(old: str, new: str) -> bool:
    """Whether a message with status `old` takes status `new`. SUPERSEDED, CANCELLED and BLOCKED_WINDOW are final."""
    return old in _RANK and _RANK[new] > _RANK[old]

"""What a channel's far end says of the account behind it, and of what people want: neither is a message."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from replyline.jobs import Identity

NoticeEvent: TypeAlias = Literal[
    "channel.quality_changed", "channel.template_status_changed", "channel.account_changed"
]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the account. `event` and `data` are what its customer is told; `digest` makes a repeat recognisable."""

    event: NoticeEvent
    data: Mapping[str, object]
    digest: bytes
    down: str | None = None
    """Why nothing can be sent from now on, as one word; None where that does not follow."""
    detail: str = ""
    down_for_s: float = 0.0
    """How long looking again would be no use, in seconds."""
    lifts: frozenset[str] = frozenset()
    """What an earlier notice said in `down`, and this one ends; a channel that is down for another reason stays so."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Whether a person wants marketing messages, by every name that the channel has for them; `at` is in Unix seconds."""

    identities: tuple[Identity, ...]
    opted_out: bool
    at: float | None

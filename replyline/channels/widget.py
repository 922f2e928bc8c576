"""The widget on a customer's site: its messages come through our own routes, its answers are read from the conversation."""

from collections.abc import Mapping
from typing import ClassVar

import aiohttp

from replyline.channels.contract import (
    Accepted,
    Callback,
    Channel,
    ChannelAccount,
    ForgedCallback,
    Outgoing,
    UnreadableCallback,
)
from replyline.errors import Permanent
from replyline.jobs import ChannelKind


class Widget(Channel):
    """The channel WIDGET. Nothing calls us back and nothing is sent outside: an open page reads the conversation's log."""

    kind: ClassVar[ChannelKind] = "WIDGET"
    repeat_is_safe: ClassVar[bool] = True
    shows_writing: ClassVar[bool] = True

    def verify(self, account: ChannelAccount, headers: Mapping[str, str], raw: bytes) -> None:
        """Refuse: a widget has no callbacks, so whatever claims to be one is forged."""
        raise ForgedCallback(f"channel {account.channel_key} is a widget: it has no callbacks")

    def parse(self, account: ChannelAccount, raw: bytes) -> Callback:
        """Refuse, for the same reason."""
        raise UnreadableCallback(f"channel {account.channel_key} is a widget: it has no callbacks")

    async def send(self, account: ChannelAccount, message: Outgoing, http: aiohttp.ClientSession) -> Accepted:
        """Refuse: the move `route` writes widget messages into the log, so a send job for one is a mistake."""
        raise Permanent("widget messages are not sent outside", reason="not_sent_outside")

"""The places where people write to a business: what a channel must be able to do, and the table of those that exist.

To add a channel: one file (or folder) here that offers a `Channel`, one line in `CHANNELS`, and, if it sends outside, its queue
in `replyline/queues.py` and its processor in `replyline/processors/`. Its test file runs the contract suite in `tests/channels/`.
"""

from replyline.channels.contract import (
    Accepted,
    Callback,
    Channel,
    ChannelAccount,
    ForgedCallback,
    InboundMessage,
    Outgoing,
    Pace,
    SessionReport,
    Sign,
    StatusUpdate,
    UnreadableCallback,
    UnreadItem,
)
from replyline.channels.whatsapp_cloud import WhatsAppCloud
from replyline.channels.whatsapp_qr import WhatsAppQr
from replyline.channels.widget import Widget
from replyline.jobs import ChannelKind

CHANNELS: dict[ChannelKind, Channel] = {
    "WIDGET": Widget(),
    "WHATSAPP_CLOUD": WhatsAppCloud(),
    "WHATSAPP_QR": WhatsAppQr(),
}

__all__ = [
    "CHANNELS",
    "Accepted",
    "Callback",
    "Channel",
    "ChannelAccount",
    "ForgedCallback",
    "InboundMessage",
    "Outgoing",
    "Pace",
    "SessionReport",
    "Sign",
    "StatusUpdate",
    "UnreadItem",
    "UnreadableCallback",
]

"""Callbacks as Meta and the QR gateway sign and send them."""

import hashlib
import hmac
import time
from collections.abc import Sequence

import msgspec

from replyline.store.channels import Channel
from tests.make import CLOUD_SECRETS, QR_SECRETS
from tests.web.conftest import Answer, Door


def cloud_text(
    message_id: str, text: str = "Are you open on Sunday?", *, sender: str = "16505551234"
) -> dict[str, object]:
    """One element of `messages[]` (WhatsApp Cloud API, webhooks)."""
    return {"from": sender, "id": message_id, "timestamp": "1764000000", "type": "text", "text": {"body": text}}


def cloud_body(
    channel: Channel, messages: Sequence[dict[str, object]] = (), statuses: Sequence[dict[str, object]] = ()
) -> bytes:
    """One callback of Meta's for the channel's number."""
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": channel.external_id},
        "messages": list(messages),
        "statuses": list(statuses),
    }
    return msgspec.json.encode(
        {
            "object": "whatsapp_business_account",
            "entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}],
        }
    )


async def post_cloud(door: Door, channel: Channel, body: bytes, *, secret: str | None = None) -> Answer:
    """Send it, signed with the channel's secret or another."""
    digest = hmac.new((secret or CLOUD_SECRETS["app_secret"]).encode(), body, hashlib.sha256).hexdigest()
    return await door.call(
        "POST",
        f"/callbacks/whatsapp-cloud/{channel.channel_key}",
        data=body,
        headers={"X-Hub-Signature-256": f"sha256={digest}", "Content-Type": "application/json"},
    )


def qr_body(channel: Channel, message_id: str, text: str = "Are you open?", **more: object) -> bytes:
    """One message event of the gateway's for the channel's session."""
    data = {"id": message_id, "from": "4917012345@s.whatsapp.net", "text": text, **more}
    return msgspec.json.encode(
        {"id": "evt_1", "type": "message", "session": channel.external_id, "ts": 1, "data": data}
    )


async def post_qr(door: Door, channel: Channel, body: bytes, *, secret: str | None = None) -> Answer:
    """Send it, signed with the channel's secret or another."""
    stamp = str(int(time.time()))
    signed = stamp.encode() + b"." + body
    digest = hmac.new((secret or QR_SECRETS["secret"]).encode(), signed, hashlib.sha256).hexdigest()
    return await door.call(
        "POST",
        f"/callbacks/whatsapp-qr/{channel.channel_key}",
        data=body,
        headers={"X-Gateway-Timestamp": stamp, "X-Gateway-Signature": f"v1={digest}"},
    )

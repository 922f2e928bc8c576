"""The callbacks of Meta's WhatsApp Cloud API: messages and statuses in its envelope, signed over the bytes."""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from replyline.standins.cloud_limits import Pair
from replyline.standins.graph_errors import failure
from replyline.standins.messaging import Copies, Status, Url

# What Meta says of the price of an answer within 24 hours (WhatsApp Cloud API, "Pricing").
_PRICING = {"billable": True, "pricing_model": "PMP", "type": "regular", "category": "service"}


class Number(msgspec.Struct, forbid_unknown_fields=True):
    """One business number; callbacks go to `callback_url`, signed with `app_secret`."""

    access_token: str
    app_secret: str = ""
    callback_url: Url | None = None
    verify_token: str | None = None
    display_phone_number: str = "15550783881"
    waba_id: str = "102290129340398"
    status: str = "CONNECTED"
    quality_rating: str = "GREEN"
    refuse_with: int | None = None
    """Every send is refused with this error code."""
    echo_our_id: bool = True
    """Whether statuses give `biz_opaque_callback_data` back."""
    messages_per_second: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    pair: Pair | None = None
    window: bool = False
    """Whether free text to somebody who has not written for 24 hours fails, as it does (131047, in a status)."""


class PersonText(msgspec.Struct, rename={"sender": "from"}, forbid_unknown_fields=True):
    """What a person wrote, who has a phone number (`from`), a business-scoped id (`user_id`), or both.

    `message` is a raw element of Meta's `messages`, for kinds other than text.
    """

    text: str | None = None
    sender: str | None = None
    user_id: str | None = None
    id: str | None = None
    name: str | None = None
    message: dict[str, object] | None = None
    timestamp: float | None = None


class Inbound(PersonText, rename={"sender": "from"}, forbid_unknown_fields=True, kw_only=True):
    """`POST /_inbound`: one message, or several `messages` in one callback; each callback is posted `times` times.

    `statuses` are raw elements of Meta's; `field` and `value` make a change of another field; `also` puts changes of other
    numbers into the same callback.
    """

    phone_number_id: str
    times: Copies = 1
    messages: list[PersonText] = []
    statuses: list[dict[str, object]] = []
    field: str | None = None
    value: dict[str, object] = {}
    also: "list[Inbound]" = []

    def texts(self) -> list[PersonText]:
        """All of them."""
        if self.text is None and self.message is None:
            return self.messages
        own = PersonText(self.text, self.sender, self.user_id, self.id, self.name, self.message, self.timestamp)
        return [own, *self.messages]


@dataclass(frozen=True, slots=True)
class Item:
    """One message or status, or a change of another `field`, and the number it belongs to."""

    number_id: str
    display_phone_number: str
    waba_id: str
    kind: Literal["messages", "statuses", "value"]
    content: Mapping[str, object]
    contact: Mapping[str, object] | None = None
    field: str = "messages"


def inbound_items(number_id: str, number: Number, given: Inbound) -> list[Item]:
    """All that a callback brings of one number."""
    made = [inbound_item(number_id, number, text) for text in given.texts()]
    made += [
        Item(number_id, number.display_phone_number, number.waba_id, "statuses", status) for status in given.statuses
    ]
    if given.field is not None:
        made.append(
            Item(number_id, number.display_phone_number, number.waba_id, "value", given.value, field=given.field)
        )
    return made


def inbound_item(number_id: str, number: Number, text: PersonText) -> Item:
    """A message of a person."""
    message: dict[str, object] = {
        "id": text.id or new_wamid(),
        "timestamp": str(int(text.timestamp if text.timestamp is not None else time.time())),
        "type": "text",
    }
    if text.text is not None:
        message["text"] = {"body": text.text}
    message |= text.message or {}
    contact: dict[str, object] = {"profile": {"name": text.name or text.sender or text.user_id}}
    if text.sender is not None:
        message["from"] = contact["wa_id"] = text.sender
    if text.user_id is not None:
        message["from_user_id"] = contact["user_id"] = text.user_id
    return Item(number_id, number.display_phone_number, number.waba_id, "messages", message, contact)


@dataclass(frozen=True, slots=True)
class SendOf:
    """A send that was accepted, of which statuses tell; `our_id` comes back as it was given."""

    number_id: str
    number: Number
    wamid: str
    recipient: Mapping[str, str]
    our_id: str | None

    def status(self, status: Status) -> Item:
        """How far it has come; what it costs is said with the first two."""
        return self._item(status, {} if status == "read" else {"pricing": _PRICING})

    def failed(self, code: int) -> Item:
        """That it has not come, and why."""
        return self._item("failed", {"errors": [failure(code)]})

    def _item(self, status: str, more: Mapping[str, object]) -> Item:
        content: dict[str, object] = {
            "id": self.wamid,
            "status": status,
            "timestamp": str(int(time.time())),
            **self.recipient,
            **more,
        }
        if self.our_id is not None and self.number.echo_our_id:
            content["biz_opaque_callback_data"] = self.our_id
        number = self.number
        return Item(self.number_id, number.display_phone_number, number.waba_id, "statuses", content)


def encode(items: Sequence[Item]) -> bytes:
    """One callback: an entry for each business account, a change for each item; non-ASCII escaped, as Meta signs it."""
    entries: dict[str, list[dict[str, object]]] = {}
    for item in items:
        value: dict[str, object] = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": item.display_phone_number, "phone_number_id": item.number_id},
        }
        if item.contact is not None:
            value["contacts"] = [item.contact]
        if item.kind == "value":
            value |= item.content
        else:
            value[item.kind] = [item.content]
        entries.setdefault(item.waba_id, []).append({"value": value, "field": item.field})
    body = {
        "object": "whatsapp_business_account",
        "entry": [{"id": waba_id, "changes": changes} for waba_id, changes in entries.items()],
    }
    return json.dumps(body, separators=(",", ":")).encode()


def sign(secret: str, raw: bytes) -> dict[str, str]:
    """`X-Hub-Signature-256` (WhatsApp Cloud API, "Webhooks: validate payloads")."""
    return {"X-Hub-Signature-256": f"sha256={hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()}"}


def new_wamid() -> str:
    """A message id of Meta's kind."""
    return f"wamid.{secrets.token_hex(16).upper()}"

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
from replyline.standins.server import BadControl

# What Meta says of the price, per message; the category is told beside it (WhatsApp Cloud API, "Pricing").
_PRICING = {"billable": True, "pricing_model": "PMP", "type": "regular"}


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


class PersonText(msgspec.Struct, rename={"sender": "from"}, forbid_unknown_fields=True, kw_only=True):
    """What a person wrote, who has a phone number (`from`), a business-scoped id (`user_id`), or both.

    `message` is a raw element of Meta's `messages`, for kinds other than text; it may name the person itself.
    """

    text: str | None = None
    sender: str | None = None
    user_id: str | None = None
    id: str | None = None
    name: str | None = None
    username: str | None = None
    parent_user_id: str | None = None
    message: dict[str, object] | None = None
    timestamp: float | None = None


class Change(PersonText, rename={"sender": "from"}, forbid_unknown_fields=True, kw_only=True):
    """What there is to tell of one number: a message, or several `messages`; raw `statuses`; a change of another `field`."""

    phone_number_id: str
    messages: list[PersonText] = []
    statuses: list[dict[str, object]] = []
    field: str | None = None
    value: dict[str, object] = {}

    def texts(self) -> list[PersonText]:
        """All messages. Raises BadControl for one that says nothing, or of which nobody knows whose it is."""
        own = [self] if self.text is not None or self.message is not None else []
        for text in (*own, *self.messages):
            named = text.sender is not None or text.user_id is not None or text.message is not None
            if not named or (text.text is None and text.message is None):
                raise BadControl("a message has a text, and `from` or `user_id`; or it is a raw `message`")
        return [*own, *self.messages]


class Inbound(Change, rename={"sender": "from"}, forbid_unknown_fields=True, kw_only=True):
    """`POST /_inbound`: one callback, posted `times` times; `also` brings changes of other numbers in it."""

    times: Copies = 1
    also: list[Change] = []


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

    def names(self) -> list[str]:
        """Of the person who wrote this message."""
        return [name for name in map(self.content.get, ("from", "from_user_id")) if isinstance(name, str)]

    def written_at(self) -> float:
        """Its time in Unix seconds; now where it has none that can be read."""
        try:
            return float(str(self.content.get("timestamp")))
        except ValueError:
            return time.time()


def inbound_items(number: Number, change: Change) -> list[Item]:
    """All that a callback brings of one number."""
    number_id, shown, waba_id = change.phone_number_id, number.display_phone_number, number.waba_id
    made = [inbound_item(number_id, number, text) for text in change.texts()]
    made += [Item(number_id, shown, waba_id, "statuses", status) for status in change.statuses]
    if change.field is not None:
        made.append(Item(number_id, shown, waba_id, "value", change.value, field=change.field))
    return made


def inbound_item(number_id: str, number: Number, text: PersonText) -> Item:
    """A message of a person; a raw one is laid over what every message has."""
    message: dict[str, object] = {
        "id": text.id or new_wamid(),
        "timestamp": str(int(text.timestamp if text.timestamp is not None else time.time())),
        "type": "text",
    }
    if text.text is not None:
        message["text"] = {"body": text.text}
    message |= text.message or {}
    given = {"from": text.sender, "from_user_id": text.user_id, "from_parent_user_id": text.parent_user_id}
    message |= {name: value for name, value in given.items() if value is not None}
    contact = None if message["type"] == "system" else _contact(message, text)
    return Item(number_id, number.display_phone_number, number.waba_id, "messages", message, contact)


def _contact(message: Mapping[str, object], text: PersonText) -> dict[str, object] | None:
    """The person as `contacts` has them: not with every kind of message, and without what is not known of them."""
    ids = {"wa_id": "from", "user_id": "from_user_id", "parent_user_id": "from_parent_user_id"}
    known = {name: message[source] for name, source in ids.items() if source in message}
    if not known:
        return None
    profile = {"name": text.name or known.get("wa_id") or known.get("user_id")}
    if text.username is not None:
        profile["username"] = text.username
    return {"profile": profile, **known}


@dataclass(frozen=True, slots=True)
class SendOf:
    """A send that was accepted, of which statuses tell; `our_id` comes back as it was given."""

    number_id: str
    number: Number
    wamid: str
    recipient: Mapping[str, str]
    our_id: str | None
    template: bool = False

    def statuses(self, statuses: Sequence[Status]) -> list[Item]:
        """How far it comes; what it costs is said with `sent`, and with the first of the others."""
        others = [status for status in statuses if status != "sent"]
        pricing = {**_PRICING, "category": "utility" if self.template else "service"}
        return [
            self._item(status, {"pricing": pricing} if status == "sent" or status == others[0] else {})
            for status in statuses
        ]

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

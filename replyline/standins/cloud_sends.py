"""One call to Meta's `messages`, checked as Meta checks it (WhatsApp Cloud API, "Messages"; facebook/openapi v23.0)."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from replyline.standins.cloud_bodies import (
    ContactCard,
    File,
    Interactive,
    Location,
    Reaction,
    Template,
    Text,
    Wrong,
    wrong_file,
    wrong_interactive,
    wrong_location,
    wrong_template,
)
from replyline.standins.graph_errors import graph_error
from replyline.standins.server import Reply

_PHONE = re.compile(r"^\+?\d{5,15}$")
_BSUID = re.compile(r"^[A-Z]{2}\.[A-Za-z0-9.]{1,128}$")
Id = Annotated[str, Meta(min_length=1, max_length=512)]


class _Context(msgspec.Struct, forbid_unknown_fields=True):
    message_id: Id


class _Typing(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text"]


class Send(msgspec.Struct, forbid_unknown_fields=True):
    """The body: of a message, or with `status` of a read receipt, maybe with a typing indicator."""

    messaging_product: Literal["whatsapp"]
    type: str = "text"
    text: Text | None = None
    image: File | None = None
    audio: File | None = None
    video: File | None = None
    document: File | None = None
    sticker: File | None = None
    location: Location | None = None
    contacts: Annotated[list[ContactCard], Meta(min_length=1)] | None = None
    interactive: Interactive | None = None
    template: Template | None = None
    reaction: Reaction | None = None
    to: str | None = None
    recipient: str | None = None
    recipient_type: Literal["individual", "group"] = "individual"
    recipient_identity_key_hash: str | None = None
    messaging_account_id: str | None = None
    context: _Context | None = None
    biz_opaque_callback_data: Annotated[str, Meta(max_length=512)] | None = None
    status: Literal["read"] | None = None
    message_id: Id | None = None
    typing_indicator: _Typing | None = None

    def words(self) -> str:
        """What a person reads of it."""
        match self.type:
            case "text":
                return self.text.body if self.text else ""
            case "image" | "video" | "document":
                file: File | None = getattr(self, self.type)
                return (file.caption or "") if file else ""
            case "interactive":
                return self.interactive.body.text if self.interactive else ""
            case "template":
                return self.template.name if self.template else ""
            case _:
                return ""


KINDS = frozenset(
    (
        "text", "image", "audio", "video", "document", "sticker", "location", "contacts", "interactive", "template", "reaction",
    )
)  # fmt: skip
_decoder = msgspec.json.Decoder(Send)
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_send(raw: bytes) -> Send | Reply:
    """The call, or Meta's refusal of it."""
    try:
        send = _decoder.decode(raw)
    except msgspec.ValidationError as error:
        missing = str(error).startswith("Object missing required field")
        return graph_error(131008 if missing else 100, str(error))
    except msgspec.DecodeError as error:
        return graph_error(100, f"The body is not JSON: {error}")
    wrong = _wrong_sign(send) if send.status or send.typing_indicator else _wrong(send)
    return send if wrong is None else graph_error(*wrong)


def typed_part(send: Send, raw: bytes) -> msgspec.Raw:
    """The part that belongs to the type, exactly as it was sent."""
    return _raw_decoder.decode(raw)[send.type].copy()


def _wrong_sign(send: Send) -> Wrong | None:
    if send.status is None:
        return 131008, "Parameter `status` is required"
    return None if send.message_id else (131008, "Parameter `message_id` is required")


def _wrong(send: Send) -> Wrong | None:
    if send.type not in KINDS:
        return 100, f"Param `type` must be one of {', '.join(sorted(KINDS))}"
    if getattr(send, send.type) is None:
        return 131008, f"Parameter `{send.type}` is required"
    others = sorted(kind for kind in KINDS - {send.type} if getattr(send, kind) is not None)
    if others:
        return 100, f"Unexpected key `{others[0]}`: the type is {send.type}"
    return _wrong_content(send) or _wrong_recipient(send)


def _wrong_recipient(send: Send) -> Wrong | None:
    if send.to is None and send.recipient is None:
        return 131008, "Parameter `to` is required"
    if send.to is not None and not _PHONE.match(send.to):
        return 131009, "`to` is not a phone number"
    if send.to is None and not _BSUID.match(send.recipient or ""):
        return 131009, "`recipient` is not a business-scoped user id"
    return None


def _wrong_content(send: Send) -> Wrong | None:
    content = getattr(send, send.type)
    match content:
        case File():
            return wrong_file(send.type, content)
        case Location():
            return wrong_location(content)
        case Interactive():
            return wrong_interactive(content)
        case Template():
            return wrong_template(content)
        case Reaction() if send.context is not None:
            return 100, "Unexpected key `context`: a reaction quotes nothing"
        case _:
            return None

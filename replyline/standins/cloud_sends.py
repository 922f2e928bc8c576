"""What may be posted to Meta's `messages`: every kind of body, checked as Meta checks it (facebook/openapi v23.0)."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from replyline.standins.graph_errors import graph_error
from replyline.standins.server import Reply

_PHONE = re.compile(r"^\+?\d{5,15}$")
_BSUID = re.compile(r"^[A-Z]{2}\.[A-Za-z0-9.]{1,128}$")

Caption = Annotated[str, Meta(max_length=1024)]
Title = Annotated[str, Meta(min_length=1, max_length=20)]
Line = Annotated[str, Meta(min_length=1, max_length=60)]
RowTitle = Annotated[str, Meta(min_length=1, max_length=24)]


class Text(msgspec.Struct):
    """A text."""

    body: Annotated[str, Meta(min_length=1, max_length=4096)]
    preview_url: bool = False


class File(msgspec.Struct):
    """A file that Meta has (`id`) or fetches (`link`)."""

    id: str | None = None
    link: Annotated[str, Meta(pattern=r"^https?://")] | None = None
    caption: Caption | None = None
    filename: str | None = None
    voice: bool | None = None


class Location(msgspec.Struct):
    """A place."""

    latitude: float
    longitude: float
    name: str | None = None
    address: str | None = None


class Reaction(msgspec.Struct):
    """An emoji at a message; an empty one takes it back."""

    message_id: str
    emoji: str = ""


class _Words(msgspec.Struct):
    text: Annotated[str, Meta(min_length=1, max_length=1024)]


class _Footer(msgspec.Struct):
    text: Line


class _ReplyButton(msgspec.Struct):
    id: Annotated[str, Meta(min_length=1, max_length=256)]
    title: Title


class _Button(msgspec.Struct):
    type: Literal["reply"]
    reply: _ReplyButton


class _Row(msgspec.Struct):
    id: Annotated[str, Meta(min_length=1, max_length=200)]
    title: RowTitle
    description: Annotated[str, Meta(max_length=72)] | None = None


class _Section(msgspec.Struct):
    rows: Annotated[list[_Row], Meta(min_length=1, max_length=10)]
    title: RowTitle | None = None


class _Action(msgspec.Struct):
    buttons: Annotated[list[_Button], Meta(min_length=1, max_length=3)] | None = None
    button: Title | None = None
    sections: Annotated[list[_Section], Meta(min_length=1, max_length=10)] | None = None
    name: str | None = None
    parameters: dict[str, str] | None = None


class Interactive(msgspec.Struct):
    """Buttons, a list, or a link."""

    type: Literal["button", "list", "cta_url"]
    body: _Words
    action: _Action
    header: dict[str, object] | None = None
    footer: _Footer | None = None


class _Language(msgspec.Struct):
    code: str


class _Parameter(msgspec.Struct):
    type: str
    text: str | None = None
    image: File | None = None
    video: File | None = None
    document: File | None = None
    payload: str | None = None
    parameter_name: str | None = None


class _Component(msgspec.Struct):
    type: Literal["header", "body", "button"]
    parameters: list[_Parameter] = []
    sub_type: str | None = None
    index: str | None = None


class Template(msgspec.Struct):
    """An approved message."""

    name: Annotated[str, Meta(min_length=1, max_length=512)]
    language: _Language
    components: list[_Component] = []


class _Context(msgspec.Struct):
    message_id: str


class _Typing(msgspec.Struct):
    type: Literal["text"]


class Send(msgspec.Struct):
    """One call."""

    messaging_product: Literal["whatsapp"]
    type: str = "text"
    text: Text | None = None
    image: File | None = None
    audio: File | None = None
    video: File | None = None
    document: File | None = None
    sticker: File | None = None
    location: Location | None = None
    contacts: list[dict[str, object]] | None = None
    interactive: Interactive | None = None
    template: Template | None = None
    reaction: Reaction | None = None
    to: str | None = None
    recipient: str | None = None
    recipient_type: Literal["individual", "group"] = "individual"
    context: _Context | None = None
    biz_opaque_callback_data: Annotated[str, Meta(max_length=512)] | None = None
    status: Literal["read"] | None = None
    message_id: str | None = None
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


def read_send(raw: bytes) -> Send | Reply:
    """The call, or Meta's refusal of it."""
    try:
        send = _decoder.decode(raw)
    except msgspec.ValidationError as error:
        missing = str(error).startswith("Object missing required field")
        return graph_error(131008 if missing else 100, str(error))
    except msgspec.DecodeError as error:
        return graph_error(100, f"The body is not JSON: {error}")
    if send.status is not None:
        return send if send.message_id else graph_error(131008, "message_id is required")
    return _refusal(send) or send


def _refusal(send: Send) -> Reply | None:
    if send.type not in KINDS:
        return graph_error(100, f"Param type must be one of {', '.join(sorted(KINDS))}")
    if getattr(send, send.type) is None:
        return graph_error(131008, f"Parameter `{send.type}` is required")
    if (wrong := _wrong_content(send)) is not None:
        return wrong
    if send.to is None and send.recipient is None:
        return graph_error(131008, "Parameter `to` is required")
    if send.to is not None and not _PHONE.match(send.to):
        return graph_error(131009, "`to` is not a phone number")
    if send.to is None and not _BSUID.match(send.recipient or ""):
        return graph_error(131009, "`recipient` is not a business-scoped user id")
    return None


def _wrong_content(send: Send) -> Reply | None:
    file = getattr(send, send.type)
    if isinstance(file, File):
        if (file.id is None) == (file.link is None):
            return graph_error(131009, f"`{send.type}` needs either id or link")
        if file.caption is not None and send.type in {"audio", "sticker"}:
            return graph_error(100, f"`{send.type}` has no caption")
    if send.interactive is not None:
        return _wrong_interactive(send.interactive)
    if send.template is not None:
        return _wrong_template(send.template)
    return None


def _wrong_interactive(interactive: Interactive) -> Reply | None:
    action = interactive.action
    match interactive.type:
        case "button":
            titles = [button.reply.title for button in action.buttons or []]
            if not titles or len(set(titles)) != len(titles):
                return graph_error(131009, "`interactive.action.buttons` are missing or alike")
        case "list":
            sections = action.sections or []
            rows = [row for section in sections for row in section.rows]
            if not rows or action.button is None:
                return graph_error(131008, "`interactive.action` needs button and sections")
            if len(rows) > 10 or len({row.id for row in rows}) != len(rows):
                return graph_error(131009, "a list has at most 10 rows in all, with ids of their own")
            if len(sections) > 1 and any(section.title is None for section in sections):
                return graph_error(131009, "several sections need titles")
        case "cta_url":
            if action.name != "cta_url" or not action.parameters or "url" not in action.parameters:
                return graph_error(131008, "`interactive.action` needs name and parameters.url")
    return None


def _wrong_template(template: Template) -> Reply | None:
    for component in template.components:
        for parameter in component.parameters:
            if parameter.type == "text" and not (parameter.text or "").strip():
                return graph_error(132012, "a text parameter is empty")
            if parameter.type == "text" and re.search(r"[\n\t]| {4}", parameter.text or ""):
                return graph_error(132018, "a text parameter has a newline, tab or four spaces")
    return None

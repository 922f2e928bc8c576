"""What messages to Meta are made of: the part of each kind, with Meta's limits (facebook/openapi v23.0; contracts §1.3)."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Wrong = tuple[int, str]
"""Meta's error code, and the details that name the field."""

_PLACES = {"latitude": 90.0, "longitude": 180.0}
_CAPTIONED = frozenset(("image", "video", "document"))
_GAPS = re.compile(r"[\n\r\t]| {4}")

Words = Annotated[str, Meta(min_length=1)]
Link = Annotated[str, Meta(pattern=r"^https?://[^/\s]+")]
Title = Annotated[str, Meta(min_length=1, max_length=20)]
Line = Annotated[str, Meta(min_length=1, max_length=60)]
RowTitle = Annotated[str, Meta(min_length=1, max_length=24)]


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    """Meta refuses keys that it does not know inside a message: 100, "Unexpected key"."""


class Text(_Part):
    """A text."""

    body: Annotated[str, Meta(min_length=1, max_length=4096)]
    preview_url: bool = False


class File(_Part):
    """A file that Meta has (`id`) or fetches (`link`)."""

    id: Words | None = None
    link: Link | None = None
    caption: Annotated[str, Meta(max_length=1024)] | None = None
    filename: Annotated[str, Meta(max_length=240)] | None = None
    voice: bool | None = None


class Location(_Part):
    """A place; Meta's own examples give the numbers as text."""

    latitude: float | str
    longitude: float | str
    name: Annotated[str, Meta(max_length=1000)] | None = None
    address: Annotated[str, Meta(max_length=1000)] | None = None


class Reaction(_Part):
    """An emoji at a message; an empty one takes it back."""

    message_id: Words
    emoji: Annotated[str, Meta(max_length=32)]


class _Name(_Part):
    formatted_name: Words
    first_name: str | None = None
    last_name: str | None = None
    middle_name: str | None = None
    prefix: str | None = None
    suffix: str | None = None


class _Phone(_Part):
    phone: str | None = None
    type: str | None = None
    wa_id: str | None = None


class ContactCard(_Part):
    """A contact that is passed on."""

    name: _Name
    phones: list[_Phone] = []
    emails: list[dict[str, str]] = []
    addresses: list[dict[str, str]] = []
    urls: list[dict[str, str]] = []
    org: dict[str, str] | None = None
    birthday: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None


class _Words(_Part):
    text: Annotated[str, Meta(min_length=1, max_length=1024)]


class _Footer(_Part):
    text: Line


class _Header(_Part):
    type: Literal["text", "image", "video", "document"]
    text: Line | None = None
    image: File | None = None
    video: File | None = None
    document: File | None = None


class _ReplyButton(_Part):
    id: Annotated[str, Meta(min_length=1, max_length=256)]
    title: Title


class _Button(_Part):
    type: Literal["reply"]
    reply: _ReplyButton


class _Row(_Part):
    id: Annotated[str, Meta(min_length=1, max_length=200)]
    title: RowTitle
    description: Annotated[str, Meta(max_length=72)] | None = None


class _Section(_Part):
    rows: Annotated[list[_Row], Meta(min_length=1, max_length=10)]
    title: RowTitle | None = None


class _Address(_Part):
    display_text: Title
    url: Link


class _Action(_Part):
    buttons: Annotated[list[_Button], Meta(min_length=1, max_length=3)] | None = None
    button: Title | None = None
    sections: Annotated[list[_Section], Meta(min_length=1, max_length=10)] | None = None
    name: str | None = None
    parameters: _Address | None = None


class Interactive(_Part):
    """Buttons, a list, or a link."""

    type: Literal["button", "list", "cta_url"]
    body: _Words
    action: _Action
    header: _Header | None = None
    footer: _Footer | None = None


class _Language(_Part):
    code: Annotated[str, Meta(pattern=r"^[a-z]{2,3}(_[A-Z]{2,3})?$")]
    policy: Literal["deterministic"] = "deterministic"


class _Parameter(_Part):
    type: Literal["text", "currency", "date_time", "image", "video", "document", "location", "payload"]
    text: str | None = None
    currency: dict[str, object] | None = None
    date_time: dict[str, object] | None = None
    image: File | None = None
    video: File | None = None
    document: File | None = None
    location: Location | None = None
    payload: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    parameter_name: Words | None = None


class _Component(_Part):
    type: Literal["header", "body", "button"]
    parameters: list[_Parameter] = []
    sub_type: Literal["quick_reply", "url"] | None = None
    index: Annotated[str, Meta(pattern=r"^\d$")] | None = None


class Template(_Part):
    """An approved message."""

    name: Annotated[str, Meta(min_length=1, max_length=512)]
    language: _Language
    components: list[_Component] = []


_KEYS = {"button": ("buttons",), "list": ("button", "sections"), "cta_url": ("name", "parameters")}
"""What the action of each kind of interactive message has, all of it required."""


def wrong_file(name: str, file: File) -> Wrong | None:
    """What Meta would refuse of the file in the field `name`."""
    kind = name.rpartition(".")[2]
    if (file.id is None) == (file.link is None):
        return 131009, f"`{name}` needs either `id` or `link`"
    if file.caption is not None and kind not in _CAPTIONED:
        return 100, f"Unexpected key `caption` on `{name}`"
    if file.filename is not None and kind != "document":
        return 100, f"Unexpected key `filename` on `{name}`"
    if file.voice is not None and kind != "audio":
        return 100, f"Unexpected key `voice` on `{name}`"
    return None


def wrong_location(location: Location) -> Wrong | None:
    """Degrees that are none."""
    for name, most in _PLACES.items():
        try:
            degrees = float(getattr(location, name))
        except ValueError:
            return 131009, f"`location.{name}` is not a number"
        if not -most <= degrees <= most:
            return 131009, f"`location.{name}` is not between -{most:g} and {most:g}"
    return None


def wrong_interactive(interactive: Interactive) -> Wrong | None:
    """What the limits of single fields do not say."""
    action, wanted = interactive.action, _KEYS[interactive.type]
    for key in ("buttons", "button", "sections", "name", "parameters"):
        given = getattr(action, key) is not None
        if given != (key in wanted):
            what = (100, "Unexpected key") if given else (131008, "Required parameter")
            return what[0], f"{what[1]} `interactive.action.{key}`: the type is {interactive.type}"
    if interactive.header is not None and (wrong := _wrong_header(interactive.type, interactive.header)) is not None:
        return wrong
    match interactive.type:
        case "button":
            return _wrong_buttons(action.buttons or [])
        case "list":
            return _wrong_sections(action.sections or [])
        case "cta_url":
            return None if action.name == "cta_url" else (131009, "`interactive.action.name` must be cta_url")


def _wrong_header(kind: str, header: _Header) -> Wrong | None:
    if getattr(header, header.type) is None:
        return 131008, f"Required parameter `interactive.header.{header.type}`"
    if kind == "list" and header.type != "text":
        return 131009, "`interactive.header.type` of a list must be text"
    file = getattr(header, header.type)
    return wrong_file(f"interactive.header.{header.type}", file) if isinstance(file, File) else None


def _wrong_buttons(buttons: list[_Button]) -> Wrong | None:
    for name in ("id", "title"):
        if len({getattr(button.reply, name) for button in buttons}) != len(buttons):
            return 131009, f"`interactive.action.buttons.reply.{name}` must be unique"
    return None


def _wrong_sections(sections: list[_Section]) -> Wrong | None:
    rows = [row for section in sections for row in section.rows]
    if len(rows) > 10:
        return 131009, "`interactive.action.sections.rows`: a list has at most 10 in all"
    if len({row.id for row in rows}) != len(rows):
        return 131009, "`interactive.action.sections.rows.id` must be unique"
    if len(sections) > 1 and any(section.title is None for section in sections):
        return 131008, "Required parameter `interactive.action.sections.title`: there are several sections"
    return None


def wrong_template(template: Template) -> Wrong | None:
    """What Meta sees without looking at the template itself."""
    for number, component in enumerate(template.components):
        name = f"template.components[{number}]"
        if component.type == "button" and (component.sub_type is None or component.index is None):
            return 131008, f"Required parameter `{name}.sub_type` or `{name}.index`: it is a button"
        named = {parameter.parameter_name is not None for parameter in component.parameters}
        if len(named) > 1:
            return 132012, f"`{name}.parameters` are partly named and partly not"
        for place, parameter in enumerate(component.parameters):
            if (wrong := _wrong_parameter(f"{name}.parameters[{place}]", parameter)) is not None:
                return wrong
    return None


def _wrong_parameter(name: str, parameter: _Parameter) -> Wrong | None:
    value: object = getattr(parameter, parameter.type)
    field = f"{name}.{parameter.type}"
    if value is None or (isinstance(value, str) and not value.strip()):
        return 131008, f"Required parameter `{field}`"
    if parameter.text is not None and _GAPS.search(parameter.text):
        return 132018, f"`{field}` has a newline, a tab or four spaces"
    if isinstance(value, File):
        return wrong_file(field, value)
    return wrong_location(value) if isinstance(value, Location) else None

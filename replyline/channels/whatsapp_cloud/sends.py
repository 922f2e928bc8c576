"""What is posted to Meta: the body of each kind of message (WhatsApp Cloud API, "Messages"; contracts §1.2 and §1.3)."""

import re

from replyline.channels.contract import Outgoing
from replyline.contents import Buttons, Choices, Content, Media, Row, Template

MAX_TEXT_CHARS = 4096
"""WhatsApp Cloud API, text messages: `body` has at most 4096 characters."""

# Business-scoped user ids: a country code, a dot and an id (WhatsApp Cloud API, "Business-scoped user IDs").
_BSUID = re.compile(r"^[A-Z]{2}\.")
_CAPTIONED = frozenset({"image", "video", "document"})

Json = dict[str, object]


def message_body(message: Outgoing, to: str) -> Json:
    """The whole body; our message id goes along and comes back in every status (contracts §1.2)."""
    body: Json = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **_recipient(to),
        **_typed(message),
        "biz_opaque_callback_data": str(message.message_id),
    }
    if message.quotes is not None:
        body["context"] = {"message_id": message.quotes}
    return body


def sign_body(wamid: str, *, typing: bool) -> Json:
    """Mark as read, and show that an answer is being written: for 25 seconds or until our message comes (contracts §1.3)."""
    body: Json = {"messaging_product": "whatsapp", "status": "read", "message_id": wamid}
    if typing:
        body["typing_indicator"] = {"type": "text"}
    return body


def _recipient(to: str) -> Json:
    return {"recipient": to} if _BSUID.match(to) else {"to": f"+{to.lstrip('+')}"}


def is_user_id(address: str) -> bool:
    """Whether `address` is a business-scoped user id, not a phone number."""
    return _BSUID.match(address) is not None


def _typed(message: Outgoing) -> Json:
    if message.content is None:
        return {"type": "text", "text": {"body": message.text, "preview_url": False}}
    return _content(message.content)


def _content(content: Content) -> Json:
    match content:
        case Media():
            return {"type": content.kind, content.kind: _media(content)}
        case Buttons():
            return {"type": "interactive", "interactive": _buttons(content)}
        case Choices():
            return {"type": "interactive", "interactive": _list(content)}
        case Template():
            return {"type": "template", "template": _template(content)}


def _media(media: Media) -> Json:
    body: Json = {"link": media.link}
    if media.caption and media.kind in _CAPTIONED:
        body["caption"] = media.caption
    if media.filename and media.kind == "document":
        body["filename"] = media.filename
    return body


def _buttons(content: Buttons) -> Json:
    replies = [{"type": "reply", "reply": {"id": button.id, "title": button.title}} for button in content.buttons]
    return {"type": "button", **_around(content), "action": {"buttons": replies}}


def _list(content: Choices) -> Json:
    sections = [
        {**({"title": section.title} if section.title else {}), "rows": [_row(row) for row in section.rows]}
        for section in content.sections
    ]
    return {"type": "list", **_around(content), "action": {"button": content.button, "sections": sections}}


def _row(row: Row) -> Json:
    body: Json = {"id": row.id, "title": row.title}
    if row.description:
        body["description"] = row.description
    return body


def _around(content: Buttons | Choices) -> Json:
    parts: Json = {"body": {"text": content.text}}
    if content.header:
        parts["header"] = {"type": "text", "text": content.header}
    if content.footer:
        parts["footer"] = {"text": content.footer}
    return parts


def _template(content: Template) -> Json:
    components: list[Json] = []
    if content.header is not None:
        header = content.header
        components.append({"type": "header", "parameters": [{"type": header.kind, header.kind: _media(header)}]})
    if content.parameters:
        texts = [{"type": "text", "text": template_text(text)} for text in content.parameters]
        components.append({"type": "body", "parameters": texts})
    template: Json = {"name": content.name, "language": {"code": content.language}}
    if components:
        template["components"] = components
    return template


_GAPS = re.compile(r"[\n\r\t]+| {4,}")


def template_text(text: str) -> str:
    """A template's parameter may have no newline, tab or four spaces in a row, nor be empty (contracts §1.3)."""
    return _GAPS.sub(" ", text).strip() or "-"

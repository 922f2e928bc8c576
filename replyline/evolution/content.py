"""What a WhatsApp message says, in the words of our contract (docs/qr-gateway.md, "Events").

`gateway/src/content.ts` reads the same messages as Baileys hands them over; `gateway/test/messages.json` holds examples that
both must read alike. Evolution posts them as JSON of Baileys' objects: a 64-bit number may be a text or `{"low", "high"}`, and
bytes may be base64 or an object of their numbers. A field of another type than was agreed is left out; it never hides the
message.
"""

import base64
import binascii
import math
from dataclasses import dataclass, field

import msgspec

Json = dict[str, object]

# Envelopes around the message itself (Baileys, Utils/messages.js, `getFutureProofMessage`; WhatsApp's WAProto.proto).
WRAPPERS = (
    "ephemeralMessage",
    "viewOnceMessage",
    "viewOnceMessageV2",
    "viewOnceMessageV2Extension",
    "documentWithCaptionMessage",
    "editedMessage",
    "associatedChildMessage",
    "groupMentionedMessage",
    "botInvokeMessage",
    "lottieStickerMessage",
    "statusMentionMessage",
)
SILENT = frozenset(
    {
        "albumMessage",  # its pictures follow as messages of their own
        "base64",  # Evolution's own fields beside the message
        "callLogMesssage",  # so spelt by WhatsApp
        "encCommentMessage",
        "encEventResponseMessage",
        "encReactionMessage",
        "keepInChatMessage",
        "mediaUrl",
        "messageContextInfo",
        "messageHistoryBundle",
        "messageHistoryNotice",
        "pinInChatMessage",
        "pollUpdateMessage",
        "protocolMessage",
        "secretEncryptedMessage",
        "senderKeyDistributionMessage",
        "speechToText",
        "stickerSyncRmrMessage",
    }
)
"""Kinds that say nothing to a person, or that belong to another message: they are neither told nor apologised for."""

_MAX_DEPTH = 8
_MAX_TEXT_CHARS = 65_536
_MAX_CARDS = 20
_MAX_OPTIONS = 30
_FILES = {
    "imageMessage": "image",
    "videoMessage": "video",
    "ptvMessage": "video",
    "audioMessage": "audio",
    "documentMessage": "document",
    "stickerMessage": "sticker",
}
_POLLS = ("pollCreationMessage", "pollCreationMessageV2", "pollCreationMessageV3", "pollCreationMessageV5")
_REVOKE = (0, "REVOKE")
EDIT = (14, "MESSAGE_EDIT")
"""How a note of an edit says what it is (WAProto.proto, `ProtocolMessage.Type`)."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message; `parts` is the event's `content`, `media` what is told of its file (without an id)."""

    type: str
    text: str = ""
    target: str | None = None
    parts: Json = field(default_factory=dict)
    media: Json | None = None
    reply_to: str | None = None


def said_in(message: Json, context: Json | None = None, *, depth: int = 0) -> Said | None:
    """What a message says; None where it says nothing to a person. Evolution may put the `context` beside the message.

    `depth` is how many messages this one stands in, as a quoted or an edited one; very deep ones say nothing.
    """
    if depth > _MAX_DEPTH:
        return None
    inner, was_wrapped = _unwrapped(message)
    said = _said(inner, text_of(message, "speechToText") or text_of(inner, "speechToText"), depth)
    if said is None:
        # A view-once message that only the telephone may open comes as an empty envelope.
        unread = was_wrapped and not inner
        return (
            Said("unknown") if unread or any(inner[name] is not None for name in inner if name not in SILENT) else None
        )
    return _with_context(said, _context_in(inner) or context or {}, depth)


def part_of(parent: Json, name: str) -> Json:
    """The object in a field; an empty one if it is missing."""
    found = parent.get(name)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def text_of(parent: Json, *names: str) -> str:
    """The first of these fields that is a text which says something."""
    for name in names:
        found = parent.get(name)
        if isinstance(found, str) and found.strip():
            return found[:_MAX_TEXT_CHARS]
    return ""


def number_of(parent: Json, name: str) -> float | None:
    """A finite number, which may be a text or a Long of protobuf.js."""
    found = parent.get(name)
    if isinstance(found, dict):
        low, high = found.get("low"), found.get("high")
        if not isinstance(low, int) or not isinstance(high, int):
            return None
        found = (high << 32) + (low & 0xFFFFFFFF)
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None
    try:
        value = float(found)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _unwrapped(message: Json) -> tuple[Json, bool]:
    inner, was_wrapped = message, False
    for _ in range(_MAX_DEPTH):
        name = next((name for name in WRAPPERS if isinstance(inner.get(name), dict)), None)
        if name is None:
            break
        inner, was_wrapped = part_of(part_of(inner, name), "message"), True
    return inner, was_wrapped


def _said(inner: Json, speech: str, depth: int) -> Said | None:
    if words := text_of(inner, "conversation") or text_of(part_of(inner, "extendedTextMessage"), "text"):
        return Said("text", words)
    for name, kind in _FILES.items():
        if isinstance(inner.get(name), dict):
            return _file(kind, part_of(inner, name), speech)
    return (
        _place(inner)
        or _cards(inner)
        or _choice(inner)
        or _about_another(inner, depth)
        or _shop(inner)
        or _business(inner)
    )


def _file(kind: str, found: Json, speech: str) -> Said:
    filename = text_of(found, "fileName") or (text_of(found, "title") if kind == "document" else "")
    seconds, size = number_of(found, "seconds"), number_of(found, "fileLength")
    media: Json = {
        "mime": text_of(found, "mimetype") or None,
        "size": None if size is None else int(size),
        "sha256": _bytes(found.get("fileSha256")),
        "filename": filename or None,
        "seconds": seconds,
        "voice": found.get("ptt") is True,
    }
    heard = speech.removeprefix("[audio]").strip() if kind == "audio" else ""
    return Said(kind, text_of(found, "caption") or heard, media=media)


def _bytes(value: object) -> str | None:
    """Bytes in base64, whichever way JSON wrote them."""
    if isinstance(value, str):
        try:
            return value if base64.b64decode(value, validate=True) else None
        except (binascii.Error, ValueError):
            return None
    numbers: list[object] = []
    if isinstance(value, dict):
        data = value.get("data")
        numbers = data if isinstance(data, list) else list(value.values())
    if numbers and all(isinstance(one, int) and 0 <= one < 256 for one in numbers):
        return base64.b64encode(bytes(one for one in numbers if isinstance(one, int))).decode()
    return None


def _place(inner: Json) -> Said | None:
    live = isinstance(inner.get("liveLocationMessage"), dict)
    found = part_of(inner, "liveLocationMessage" if live else "locationMessage")
    if not found:
        return None
    place: Json = {
        "latitude": number_of(found, "degreesLatitude"),
        "longitude": number_of(found, "degreesLongitude"),
        "name": text_of(found, "name") or None,
        "address": text_of(found, "address") or None,
        "url": text_of(found, "url") or None,
        "live": live,
    }
    return Said("location", text_of(found, "caption", "comment", "name"), parts={"location": place})


def _cards(inner: Json) -> Said | None:
    several = part_of(inner, "contactsArrayMessage")
    listed = several.get("contacts")
    cards = listed if isinstance(listed, list) else [inner.get("contactMessage")]
    found = [
        {"name": text_of(card, "displayName") or None, "vcard": text_of(card, "vcard") or None}
        for card in cards[:_MAX_CARDS]
        if isinstance(card, dict)
    ]
    if not found:
        return None
    return Said("contacts", ", ".join(str(card["name"]) for card in found if card["name"]), parts={"contacts": found})


def _choice(inner: Json) -> Said | None:
    button, template = part_of(inner, "buttonsResponseMessage"), part_of(inner, "templateButtonReplyMessage")
    row, flow = part_of(inner, "listResponseMessage"), part_of(inner, "interactiveResponseMessage")
    if button:
        return _chosen("button", text_of(button, "selectedButtonId"), text_of(button, "selectedDisplayText"))
    if template:
        return _chosen(
            "template_button", text_of(template, "selectedId", "selectedID"), text_of(template, "selectedDisplayText")
        )
    if row:
        id_ = text_of(part_of(row, "singleSelectReply"), "selectedRowId")
        return _chosen("list", id_, text_of(row, "title"), text_of(row, "description"))
    return _native_flow(flow) if flow else None


def _chosen(kind: str, id_: str, title: str, description: str = "") -> Said | None:
    if not id_ and not title:
        return None
    choice: Json = {"kind": kind, "id": id_ or None, "title": title or None, "description": description or None}
    return Said("list" if kind == "list" else "button", title or id_, parts={"choice": choice})


def _native_flow(flow: Json) -> Said | None:
    """A tapped quick reply names its id; anything else is the answer to a form. `params` is JSON inside the JSON."""
    body, reply = text_of(part_of(flow, "body"), "text"), part_of(flow, "nativeFlowResponseMessage")
    name, params = text_of(reply, "name"), text_of(reply, "paramsJson")
    if name in {"quick_reply", "single_select", "menu_options", ""}:
        given = read_object(params)
        title = body or text_of(given, "display_text", "title")
        return _chosen("button", text_of(given, "id"), title, text_of(given, "description"))
    return Said("form", body, parts={"form": {"name": name or None, "json": params or None}})


def read_object(raw: str) -> Json:
    """A JSON object in a text; an empty one where it is none."""
    try:
        found: object = msgspec.json.decode(raw.encode(errors="replace"))
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return part_of({"found": found}, "found")


def _about_another(inner: Json, depth: int) -> Said | None:
    reaction, protocol = part_of(inner, "reactionMessage"), part_of(inner, "protocolMessage")
    if "reactionMessage" in inner:
        return Said("reaction", text_of(reaction, "text"), target=text_of(part_of(reaction, "key"), "id") or None)
    target = text_of(part_of(protocol, "key"), "id") or None
    if target is not None and protocol.get("type") in _REVOKE:
        return Said("revoke", target=target)
    if target is not None and protocol.get("type") in EDIT:
        edited = said_in(part_of(protocol, "editedMessage"), depth=depth + 1)
        return Said("edit", edited.text if edited is not None else "", target=target)
    return None


def _shop(inner: Json) -> Said | None:
    order, question = part_of(inner, "orderMessage"), part_of(inner, "productMessage")
    if order:
        total = number_of(order, "totalAmount1000")
        count = number_of(order, "itemCount")
        told: Json = {
            "id": text_of(order, "orderId") or None,
            "text": text_of(order, "message") or None,
            "items": None if count is None else int(count),
            "total": None if total is None else total / 1000,
            "currency": text_of(order, "totalCurrencyCode") or None,
        }
        return Said("order", text_of(order, "message"), parts={"order": told})
    if question:
        product = part_of(question, "product")
        about: Json = {"id": text_of(product, "productId") or None, "title": text_of(product, "title") or None}
        return Said("product", text_of(question, "body"), parts={"product": about})
    poll = next((part_of(inner, name) for name in _POLLS if isinstance(inner.get(name), dict)), None)
    if poll is None:
        return None
    options = poll.get("options")
    names = (
        [text_of(one, "optionName") for one in options if isinstance(one, dict)] if isinstance(options, list) else []
    )
    asked: Json = {
        "question": text_of(poll, "name") or None,
        "options": [name for name in names if name][:_MAX_OPTIONS],
    }
    return Said("poll", text_of(poll, "name"), parts={"poll": asked})


def _business(inner: Json) -> Said | None:
    """What another business, or a person, sends that is words in the end."""
    template, interactive = part_of(inner, "templateMessage"), part_of(inner, "interactiveMessage")
    hydrated = part_of(template, "hydratedTemplate") or part_of(template, "hydratedFourRowTemplate")
    buttons, rows = part_of(inner, "buttonsMessage"), part_of(inner, "listMessage")
    invite, event = part_of(inner, "groupInviteMessage"), part_of(inner, "eventMessage")
    words = (
        _lines(text_of(hydrated, "hydratedTitleText"), text_of(hydrated, "hydratedContentText"))
        or _lines(text_of(part_of(interactive, "header"), "title"), text_of(part_of(interactive, "body"), "text"))
        or text_of(buttons, "contentText")
        or _lines(text_of(rows, "title"), text_of(rows, "description"))
    )
    if words:
        return Said("text", words)
    if invite:
        return Said("invite", _lines(text_of(invite, "groupName"), text_of(invite, "caption")))
    if event:
        return Said("event", _lines(text_of(event, "name"), text_of(event, "description")))
    return None


def _lines(*words: str) -> str:
    return "\n".join(line for line in words if line)


def _context_in(inner: Json) -> Json:
    """Every kind of content has its own `contextInfo`, all alike."""
    return next((context for name in inner if (context := part_of(part_of(inner, name), "contextInfo"))), {})


def _with_context(said: Said, context: Json, depth: int) -> Said:
    """With the message that was replied to, and the advertisement that led here."""
    parts = dict(said.parts)
    reply_to = text_of(context, "stanzaId") or None
    if reply_to is not None:
        quoted = said_in(part_of(context, "quotedMessage"), depth=depth + 1)
        parts["quoted"] = {
            "id": reply_to,
            "from": text_of(context, "participant") or None,
            "text": (quoted.text if quoted is not None else "") or None,
        }
    ad = part_of(context, "externalAdReply")
    if ad and (text_of(ad, "sourceId") or text_of(context, "entryPointConversionSource") == "ctwa_ad"):
        parts["ad"] = {
            "source_type": text_of(ad, "sourceType") or None,
            "source_id": text_of(ad, "sourceId") or None,
            "source_url": text_of(ad, "sourceUrl") or None,
            "title": text_of(ad, "title") or None,
            "body": text_of(ad, "body") or None,
            "click_id": text_of(ad, "ctwaClid") or None,
        }
    if context.get("isForwarded") is True:
        parts["forwarded"] = True
    return Said(said.type, said.text, said.target, parts, said.media, reply_to)

"""What an inbound WhatsApp message says: in words, as structured content, and the file that came with it (contracts §2.5).

Every part of a message is read by itself: a name that is null or a quantity that is a text is left out, and the message is kept.
"""

from dataclasses import dataclass, replace

import msgspec

from replyline.channels.fields import Fields
from replyline.channels.whatsapp_cloud.parts import (
    card_in,
    choice_in,
    file_in,
    form_in,
    location_in,
    order_in,
    product_in,
    quoted_in,
    referral_in,
)
from replyline.inbound_content import MAX_CARDS, NOTHING_ELSE, InboundContent, Reaction, told
from replyline.jobs import IncomingKind, MediaRef

_MAX_CONTENT_CHARS = 65_536
_FILES = frozenset({"image", "audio", "video", "document", "sticker", "voice"})
# What a person did to an earlier message: WhatsApp shows the result to them by itself, so an apology would puzzle them.
_NEEDS_NO_APOLOGY = frozenset({"edit", "pin", "unpin", "reaction", "keep", "unkeep", "revoke"})
# `request_welcome` says only that a person opened the chat; Meta stopped sending it in March 2026 (contracts §2.7).
_SAYS_NOTHING = frozenset({"request_welcome"})
_CHANGES = frozenset({"reaction", "edit", "revoke"})


@dataclass(frozen=True, slots=True)
class Said:
    """What a message amounts to; `unread` says why a human should look at it as it came, None where it was understood."""

    content: str
    kind: IncomingKind = "message"
    media: MediaRef | None = None
    target_id: str | None = None
    body: InboundContent = NOTHING_ELSE
    unread: str | None = None


def said_in(message: Fields) -> Said | None:
    """What the person did; None for a change of an earlier message that cannot be read."""
    kind = message.text("type", 60) or ""
    if kind in _CHANGES:
        return _change(kind, message)
    found = _unsupported(message) if kind == "unsupported" else _message(kind, message)
    if found is None:
        found = _not_understood(kind, message)
    return _with_context(found, message)


def _with_context(said: Said, message: Fields) -> Said:
    """What stands beside the message: what it replies to, the advertisement that led here, the product that it is about."""
    context = message.fields("context")
    quoted = quoted_in(context)
    referral = referral_in(message.fields("referral"))
    product = product_in(context.fields("referred_product"))
    forwarded = context.flag("forwarded") or context.flag("frequently_forwarded")
    body = msgspec.structs.replace(said.body, quoted=quoted, referral=referral, product=product, forwarded=forwarded)
    return replace(said, body=body)


def _change(kind: str, message: Fields) -> Said | None:
    """What a person does to an earlier message."""
    change = message.fields(kind)
    match kind:
        case "reaction":
            target = change.id("message_id")
            body = (
                InboundContent(reaction=Reaction(external_id=target, emoji=change.text("emoji", 40)))
                if target
                else None
            )
            return None if body is None else Said(told(body), "reaction", target_id=target, body=body)
        case "revoke":
            target = change.id("original_message_id")
            return None if target is None else Said("[deleted]", "revoke", target_id=target)
        case _:
            target, inner = change.id("original_message_id"), change.fields("message")
            said = _message(inner.text("type", 60) or "", inner)
            if target is None or said is None or said.kind != "message":
                return None
            return Said(said.content, "edit", target_id=target, body=said.body)


def _unsupported(message: Fields) -> Said:
    """WhatsApp does not show us what it was; newer callbacks say at least its type."""
    kind = message.fields("unsupported").id("type")
    needs_none = (kind or "").lower() in _NEEDS_NO_APOLOGY
    return Said("[unsupported]", "note" if needs_none else "unsupported", body=InboundContent(unread_type=kind))


def _not_understood(kind: str, message: Fields) -> Said:
    """A type that is not known, or one of which nothing can be read: it has its place in the conversation all the same."""
    interactive = message.fields("interactive").text("type", 60) if kind == "interactive" else None
    name = f"{kind} {interactive}" if interactive else kind or "unknown"
    quiet = kind == "interactive" or kind in _SAYS_NOTHING
    body = InboundContent(unread_type=interactive or kind or None)
    # A tap that cannot be read, or an answer to a question of ours that is not for the bot, is nothing to apologise for.
    return Said(f"[{name}]", "note" if quiet else "unsupported", body=body, unread=f"a message of the type {name}")


def _message(kind: str, message: Fields) -> Said | None:
    """A message to be answered, where it is one."""
    if kind == "text":
        words = message.fields("text").text("body", _MAX_CONTENT_CHARS)
        return None if words is None else Said(words)
    if kind == "contacts":
        return _contacts(message)
    part = message.fields(kind)
    if not part:
        return None
    match kind:
        case "location":
            return _told(InboundContent(location=location_in(part)), "[location]")
        case "order":
            return _told(InboundContent(order=order_in(part)), "[order]")
        case "button":
            choice = choice_in("template_button", part, id_name="payload", title_name="text")
            return None if choice is None else _told(InboundContent(choice=choice), "[button]")
        case "interactive":
            return _interactive(part)
        case _ if kind in _FILES:
            return _file(kind, part)
        case _:
            return None


def _told(body: InboundContent, otherwise: str) -> Said:
    return Said(told(body)[:_MAX_CONTENT_CHARS] or otherwise, body=body)


def _contacts(message: Fields) -> Said | None:
    if not bytes(message.raw("contacts")).lstrip().startswith(b"["):
        return None
    cards = tuple(card for one in message.each("contacts", MAX_CARDS) if (card := card_in(one)) is not None)
    return _told(InboundContent(contacts=cards), "[contacts]")


def _interactive(part: Fields) -> Said | None:
    form = part.fields("nfm_reply")
    if form:
        found = form_in(form)
        body = form.text("body", _MAX_CONTENT_CHARS)
        words = told(InboundContent(form=found)) if found is not None else ""
        content = "\n".join(each for each in (body, words) if each)[:_MAX_CONTENT_CHARS]
        return Said(content or "[form]", body=InboundContent(form=found))
    for name in ("button_reply", "list_reply"):
        choice = choice_in("list" if name == "list_reply" else "button", part.fields(name), "id", "title")
        if choice is not None:
            return _told(InboundContent(choice=choice), "[button]")
    if part.text("type") == "call_permission_reply":
        # It answers a request to be called: whoever asked is told, and the bot has nothing to say to it.
        said = part.fields("call_permission_reply").text("response", 60)
        return Said(
            f"[call permission] {said or ''}".strip(), "note", body=InboundContent(unread_type="call_permission_reply")
        )
    return None


def _file(kind: str, part: Fields) -> Said:
    """`voice` is what the On-Premises API called a voice note; some programs still send it."""
    name = "audio" if kind == "voice" else kind
    file = file_in(name, part, voice=kind == "voice" or part.flag("voice"))
    provider_id = part.id("id")
    media = None
    if provider_id is not None:
        media = MediaRef(
            kind=name,
            provider_id=provider_id,
            mime_type=file.mime_type,
            sha256=part.text("sha256"),
            filename=part.text("filename"),
        )
    said = _told(InboundContent(file=file), f"[{name}]")
    return replace(said, media=media)

"""What a BullMQ producer of somebody else's adds to `incoming-messages`: chatbot and conversation may have names of its own."""

import unicodedata
import uuid
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from replyline.jobs import MAX_REFERENCE_CHARS, IncomingMessageJob
from replyline.plain_text import mend_json

# Ids that are ours to give. A producer's own may look like ours, and using them would let one message take another's place.
_OURS = ("customerId", "messageId", "conversationId", "conversationReference", "traceId")
NOT_FOUND_YET = uuid.UUID(int=0)
"""The chatbot's id in a message whose chatbot is still to be looked up."""


class _Names(msgspec.Struct, rename="camel"):
    chatbot_id: Annotated[str, Meta(min_length=1, max_length=MAX_REFERENCE_CHARS)]
    conversation_id: Annotated[str, Meta(max_length=MAX_REFERENCE_CHARS)] | None = None
    message_id: Annotated[str, Meta(max_length=512)] | None = None
    external_message_id: str | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class Produced:
    """One message as it was produced. `message.chatbot_id` means nothing until `chatbot` was looked up."""

    message: IncomingMessageJob
    chatbot: str
    """Our id of the chatbot, or its external reference."""
    conversation: str | None
    """Our id of the conversation, or what the producer calls it."""


_names_decoder = msgspec.json.Decoder(_Names)


def read_produced(data: bytes, *, repeats: bool = False) -> Produced:
    """Read what a producer added. `''` as conversationId is none; `messageId` is the producer's own id of the message.

    Half of a surrogate pair becomes U+FFFD. With `repeats` it is an iteration of a job scheduler, whose data is always the same:
    then an id in it would make all iterations one message, and is left out; the id of an iteration's job tells it apart.

    Raises:
        msgspec.ValidationError: a field is missing or does not fit; the message names it.
        msgspec.DecodeError: it is not JSON.
    """
    data = mend_json(data)
    names = _names_decoder.decode(data)
    _require_plain("chatbotId", names.chatbot_id)
    _require_plain("conversationId", names.conversation_id)
    fields = {name: value for name, value in _fields(data).items() if name not in _OURS}
    fields["chatbotId"] = NOT_FOUND_YET
    fields["traceId"] = as_id(names.trace_id)
    fields["externalMessageId"] = None if repeats else names.external_message_id or names.message_id or None
    return Produced(msgspec.convert(fields, IncomingMessageJob), names.chatbot_id, names.conversation_id or None)


def as_id(name: str | None) -> uuid.UUID | None:
    """`name` as an id of ours, or None if it does not look like one."""
    try:
        return uuid.UUID(name) if name is not None and len(name) == len(str(NOT_FOUND_YET)) else None
    except ValueError:
        return None


def _fields(data: bytes) -> dict[str, object]:
    return msgspec.json.decode(data, type=dict[str, object])


def _require_plain(field: str, name: str | None) -> None:
    if name is not None and any(unicodedata.category(character) == "Cc" for character in name):
        raise msgspec.ValidationError(f"{field} must not contain control characters")

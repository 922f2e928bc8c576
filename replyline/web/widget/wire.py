"""What the widget's routes read and write: snake_case, as the protocol has it (contracts §4.2)."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from replyline.inbound_content import InboundContent
from replyline.store.conversation_log import LogEntry
from replyline.web.widget.bodies import FromPage, ToPage
from replyline.web.widget.offers import ChoiceIn, ChoiceOut, ContentOut, content_shown
from replyline.web.wire import Text

MAX_TEXT_CHARS = 4000
MOST_ATTACHMENTS = 5
_ATTACHMENT = "att_"


def attachment_name(id_: uuid.UUID) -> str:
    """How a page names a file."""
    return f"{_ATTACHMENT}{id_.hex}"


def attachment_id(name: str) -> uuid.UUID:
    """The file that a page names. Raises ValueError where the name is none."""
    if not name.startswith(_ATTACHMENT):
        raise ValueError("an attachment is named att_…, as its upload was answered")
    return uuid.UUID(hex=name.removeprefix(_ATTACHMENT))


def _is_attachment(name: str) -> str:
    attachment_id(name)
    return name


AttachmentName = Annotated[str, StringConstraints(max_length=40), AfterValidator(_is_attachment)]


class UserIn(FromPage):
    """A user whom the site vouches for: `hash` is the hex HMAC-SHA256 of `id` under the widget's identity secret."""

    id: Annotated[Text, StringConstraints(min_length=1, max_length=512)]
    hash: Annotated[str, StringConstraints(max_length=200)] = ""


class SessionIn(FromPage):
    """A page that begins, or goes on. `user_token` is a token of the site, better than `user` with its hash."""

    site_key: Annotated[Text, StringConstraints(min_length=1, max_length=200)]
    visitor_token: Annotated[Text, StringConstraints(max_length=200)] | None = None
    user: UserIn | None = None
    user_token: Annotated[str, StringConstraints(max_length=4000)] | None = None
    page_url: Annotated[Text, StringConstraints(max_length=4000)] | None = None


class Look(ToPage):
    """How the site wants its widget."""

    title: str
    subtitle: str | None
    greeting: str | None
    placeholder: str | None
    color: str | None
    theme: str
    position: str
    uploads: bool
    upload_max_bytes: int
    upload_types: tuple[str, ...]
    max_chars: int = MAX_TEXT_CHARS


class SessionOut(ToPage):
    """A session of an hour, and the token with which the same visitor begins the next."""

    session_token: str
    expires_in: int
    visitor_token: str
    conversation_id: uuid.UUID
    verified: bool
    last_event_id: str
    config: Look


class TicketOut(ToPage):
    """Opens the event stream once, within `expires_in` seconds."""

    ticket: str
    expires_in: int


class MessageIn(FromPage):
    """What a visitor writes. The page makes `client_id`; the same one is one message, however often it is sent.

    With a `choice` the message says what the chosen option is called, whatever stands in `text`.
    """

    client_id: uuid.UUID
    text: Annotated[Text, StringConstraints(max_length=MAX_TEXT_CHARS)] = ""
    attachments: Annotated[list[AttachmentName], Field(default_factory=list, max_length=MOST_ATTACHMENTS)]
    choice: ChoiceIn | None = None


class AcceptedOut(ToPage):
    """The message is kept and will be answered. Its place comes with its `message.created`."""

    id: uuid.UUID
    client_id: uuid.UUID
    status: Literal["accepted"] = "accepted"


class AttachmentOut(ToPage):
    """A file; `size` in bytes."""

    id: str
    name: str
    mime_type: str
    size: int


class MessageOut(ToPage):
    """One message at its place `seq`; the same as `data` of its event."""

    id: uuid.UUID
    seq: int
    author: Literal["user", "assistant", "agent"]
    text: str
    client_id: str | None
    status: str
    attachments: tuple[AttachmentOut, ...]
    content: ContentOut | None = None
    """Of a message of ours that is more than text."""
    choice: ChoiceOut | None = None
    """Of a visitor's message that is a pressed option."""
    created_at: datetime


class HistoryOut(ToPage):
    """Some messages, oldest first; `more` of them are there in the direction that was asked for."""

    data: list[MessageOut]
    more: bool
    last_event_id: str


class SeenIn(FromPage):
    """The page has, or its visitor has read, everything of ours up to that place."""

    up_to: Annotated[int, Field(ge=0, le=2**62)]
    state: Literal["delivered", "read"] = "read"


class TypingIn(FromPage):
    """Whether the visitor is writing."""

    on: bool


def shown(entry: LogEntry, visitor_id: uuid.UUID) -> MessageOut:
    """A message as a page shows it to its own visitor."""
    own = entry.external_id if entry.role == "user" else None
    return MessageOut(
        id=entry.id,
        seq=entry.seq,
        author="user" if entry.role == "user" else "agent" if entry.role == "agent" else "assistant",
        text="" if entry.attachments and entry.content == FILES_ONLY else entry.content,
        client_id=own.removeprefix(f"{visitor_id}:") if own and own.startswith(f"{visitor_id}:") else None,
        status=entry.status.lower(),
        attachments=tuple(
            AttachmentOut(
                id=attachment_name(one.id),
                name=one.name or "file",
                mime_type=one.mime_type or "application/octet-stream",
                size=one.size or 0,
            )
            for one in entry.attachments
        ),
        content=None if isinstance(entry.body, InboundContent) else content_shown(entry.body),
        choice=_choice(entry),
        created_at=entry.created_at,
    )


def _choice(entry: LogEntry) -> ChoiceOut | None:
    if not isinstance(entry.body, InboundContent) or entry.body.choice is None or entry.quotes is None:
        return None
    return ChoiceOut(message_id=entry.quotes, option_id=entry.body.choice.id or "")


FILES_ONLY = "[files]"
"""What a message says, to a model and to the customer, that is nothing but files."""

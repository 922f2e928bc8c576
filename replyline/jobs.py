"""The payload of each queue: frozen structs, camelCase on the wire, each naming its queue.

What stands here is what a BullMQ producer in Node would write with `queue.add(name, data)`, and what bull-board shows.
"""

import uuid
from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import Meta

from replyline.contents import Content
from replyline.inbound_content import InboundContent
from replyline.plain_text import mend_json

INCOMING_MESSAGES = "incoming-messages"
AI_PROCESSING = "ai-processing"
OUTGOING_MESSAGES = "outgoing-messages"
WHATSAPP_CLOUD_SEND = "whatsapp-cloud-send"
WHATSAPP_QR_SEND = "whatsapp-qr-send"
WEBHOOK_DELIVERY = "webhook-delivery"
MEDIA_FETCH = "media-fetch"
DEAD_LETTER = "dead-letter"

QUEUE_NAMES: tuple[str, ...] = (
    INCOMING_MESSAGES,
    AI_PROCESSING,
    OUTGOING_MESSAGES,
    WHATSAPP_CLOUD_SEND,
    WHATSAPP_QR_SEND,
    WEBHOOK_DELIVERY,
    MEDIA_FETCH,
)

MAX_CONTENT_CHARS = 65_536
MAX_REFERENCE_CHARS = 255
"""Of what a producer calls a chatbot or a conversation."""
ShortText: TypeAlias = Annotated[str, Meta(max_length=512)]
ChannelKind: TypeAlias = Literal["WIDGET", "WHATSAPP_CLOUD", "WHATSAPP_QR"]


IdentityKind: TypeAlias = Literal["phone", "wa_id", "bsuid", "lid", "visitor", "external"]
IncomingKind: TypeAlias = Literal[
    "message", "reaction", "note", "unsupported", "edit", "revoke", "echo", "echo_edit", "echo_revoke", "identity"
]
"""What came in: a message to answer; a reaction, or a note of something that asks for no answer; something unreadable, which is
apologised for; a change of an earlier message; what a human of the business wrote on the telephone, or changed of it; a person's
new identity."""


class Identity(msgspec.Struct, frozen=True, rename="camel"):
    """One name that a channel has for a person."""

    kind: IdentityKind
    value: Annotated[str, Meta(min_length=1, max_length=512)]


class MediaRef(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A file that came with a message, as the channel names it; it is fetched by a job of its own."""

    kind: ShortText
    provider_id: Annotated[str, Meta(min_length=1, max_length=512)]
    mime_type: ShortText | None = None
    sha256: ShortText | None = None
    filename: ShortText | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What every payload has in common: the ids that its timeline and its tenant are found by."""

    queue: ClassVar[str]
    job_name: ClassVar[str]

    customer_id: uuid.UUID | None = None
    trace_id: uuid.UUID | None = None
    conversation_id: uuid.UUID | None = None
    message_id: uuid.UUID | None = None


class IncomingMessageJob(Job, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One message that a person wrote. A foreign producer fills in `chatbotId`, `externalUserId`, `content`, `channel`."""

    queue: ClassVar[str] = INCOMING_MESSAGES
    job_name: ClassVar[str] = "process-message"

    chatbot_id: uuid.UUID
    external_user_id: Annotated[str, Meta(min_length=1, max_length=512)]
    content: Annotated[str, Meta(min_length=1, max_length=MAX_CONTENT_CHARS)]
    channel: ChannelKind
    channel_id: uuid.UUID | None = None
    external_message_id: ShortText | None = None
    kind: IncomingKind = "message"
    identity_kind: IdentityKind | None = None
    also_known_as: tuple[Identity, ...] = ()
    """Other identities of the same person, which this payload links to the first."""
    target_id: ShortText | None = None
    """Of a reaction, edit or revoke: the channel's id of the message it is about."""
    media: MediaRef | None = None
    body: InboundContent | None = None
    """What it holds besides `content`: a tapped button, an order, a quoted message …"""
    uploads: Annotated[tuple[uuid.UUID, ...], Meta(max_length=10)] = ()
    """Files of the same person that are kept already (`media` rows without a message)."""
    contact_name: ShortText | None = None
    reply_to: ShortText | None = None
    """Address to answer to, where it is not `externalUserId` (a WhatsApp QR jid, say)."""
    content_type: ShortText = "text"
    provider_timestamp: float | None = None
    """When the channel says the message was written, Unix seconds."""
    conversation_reference: Annotated[str, Meta(min_length=1, max_length=MAX_REFERENCE_CHARS)] | None = None
    """What the producer calls the conversation, if it does not use our id. One that is new makes a new conversation."""


class AiProcessingJob(Job, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One turn of a conversation to be answered."""

    queue: ClassVar[str] = AI_PROCESSING
    job_name: ClassVar[str] = "answer-turn"

    after_seq: int | None = None
    through_seq: int | None = None
    """Both are set when the turn was given up, so that a replay answers that turn and no other."""


class OutgoingMessageJob(Job, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One message of ours to be routed to its channel."""

    queue: ClassVar[str] = OUTGOING_MESSAGES
    job_name: ClassVar[str] = "route-message"

    channel: ChannelKind


class SendJob(Job, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One message to be sent through a channel. What stands here is only in jobs of a queue that an external worker does."""

    channel: ChannelKind | None = None
    channel_id: uuid.UUID | None = None
    channel_external_id: str | None = None
    """What the other side calls our account: a phone number id, a session."""
    to: str | None = None
    """The recipient, as the channel names them."""
    content: str | None = None
    """The text; of a message that is more than text, the same in words."""
    body: Content | None = None
    """What it is, if it is not plain text."""
    quotes: str | None = None
    """The channel's id of the message that it replies to."""


class WhatsAppCloudSendJob(SendJob, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One message to be sent through the WhatsApp Cloud API."""

    queue: ClassVar[str] = WHATSAPP_CLOUD_SEND
    job_name: ClassVar[str] = "send-message"


class WhatsAppQrSendJob(SendJob, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One message to be sent through the WhatsApp QR gateway."""

    queue: ClassVar[str] = WHATSAPP_QR_SEND
    job_name: ClassVar[str] = "send-message"


class WebhookDeliveryJob(Job, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One webhook event to be posted to one endpoint of a customer."""

    queue: ClassVar[str] = WEBHOOK_DELIVERY
    job_name: ClassVar[str] = "deliver-event"

    event_id: uuid.UUID


class MediaFetchJob(Job, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One file of an incoming message to be fetched from its channel and stored."""

    queue: ClassVar[str] = MEDIA_FETCH
    job_name: ClassVar[str] = "fetch-media"

    media_id: uuid.UUID


ANY_JOB: TypeAlias = (
    IncomingMessageJob
    | AiProcessingJob
    | OutgoingMessageJob
    | WhatsAppCloudSendJob
    | WhatsAppQrSendJob
    | WebhookDeliveryJob
    | MediaFetchJob
)

JOB_TYPES: dict[str, type[ANY_JOB]] = {
    INCOMING_MESSAGES: IncomingMessageJob,
    AI_PROCESSING: AiProcessingJob,
    OUTGOING_MESSAGES: OutgoingMessageJob,
    WHATSAPP_CLOUD_SEND: WhatsAppCloudSendJob,
    WHATSAPP_QR_SEND: WhatsAppQrSendJob,
    WEBHOOK_DELIVERY: WebhookDeliveryJob,
    MEDIA_FETCH: MediaFetchJob,
}

_DECODERS: dict[str, msgspec.json.Decoder[ANY_JOB]] = {
    queue: msgspec.json.Decoder(kind) for queue, kind in JOB_TYPES.items()
}
_encoder = msgspec.json.Encoder()


def encode(job: Job) -> bytes:
    """The payload as UTF-8 JSON."""
    return _encoder.encode(job)


def decode(queue: str, data: bytes) -> ANY_JOB:
    """Read a payload of `queue`. Halves of surrogate pairs and bytes that are not UTF-8 become U+FFFD.

    Raises:
        msgspec.ValidationError: the payload does not fit the queue's type; the message names the field.
        msgspec.DecodeError: the payload is not JSON.
    """
    decoder = _DECODERS[queue]
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):  # rare, so it is looked at only now
        return decoder.decode(mend_json(data))

"""The whole pipeline on one screen: what is done with the jobs of each queue, and what giving one up means."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from replyline.app import App
from replyline.jobs import (
    AI_PROCESSING,
    INCOMING_MESSAGES,
    MEDIA_FETCH,
    OUTGOING_MESSAGES,
    WEBHOOK_DELIVERY,
    WHATSAPP_CLOUD_SEND,
    WHATSAPP_QR_SEND,
    AiProcessingJob,
    IncomingMessageJob,
    Job,
    MediaFetchJob,
    OutgoingMessageJob,
    WebhookDeliveryJob,
    WhatsAppCloudSendJob,
    WhatsAppQrSendJob,
)
from replyline.processors import (
    ai_processing,
    channel_send,
    incoming_messages,
    media_fetch,
    outgoing_messages,
    webhook_delivery,
)
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.work import Run

J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class Processor(Generic[J]):
    """Both fates of the jobs of one queue."""

    job_type: type[J]
    process: Callable[[J, Run, App], Awaitable[None]]
    give_up: Callable[[J, Run, App], Awaitable[Consequence]]


AnyProcessor = (
    Processor[IncomingMessageJob]
    | Processor[AiProcessingJob]
    | Processor[OutgoingMessageJob]
    | Processor[WhatsAppCloudSendJob]
    | Processor[WhatsAppQrSendJob]
    | Processor[WebhookDeliveryJob]
    | Processor[MediaFetchJob]
)

PROCESSORS: dict[str, AnyProcessor] = {
    INCOMING_MESSAGES: Processor(IncomingMessageJob, incoming_messages.process, incoming_messages.give_up),
    AI_PROCESSING: Processor(AiProcessingJob, ai_processing.process, ai_processing.give_up),
    OUTGOING_MESSAGES: Processor(OutgoingMessageJob, outgoing_messages.process, outgoing_messages.give_up),
    WHATSAPP_CLOUD_SEND: Processor(WhatsAppCloudSendJob, channel_send.process, channel_send.give_up),
    WHATSAPP_QR_SEND: Processor(WhatsAppQrSendJob, channel_send.process, channel_send.give_up),
    WEBHOOK_DELIVERY: Processor(WebhookDeliveryJob, webhook_delivery.process, webhook_delivery.give_up),
    MEDIA_FETCH: Processor(MediaFetchJob, media_fetch.process, media_fetch.give_up),
}

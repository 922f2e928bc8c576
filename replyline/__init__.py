"""Replyline: the message pipeline behind a multi-tenant AI chatbot."""

from replyline.jobs import (
    QUEUE_NAMES,
    AiProcessingJob,
    IncomingMessageJob,
    OutgoingMessageJob,
    WebhookDeliveryJob,
    WhatsAppCloudSendJob,
    WhatsAppQrSendJob,
)

__version__ = "0.1.0"

__all__ = [
    "QUEUE_NAMES",
    "AiProcessingJob",
    "IncomingMessageJob",
    "OutgoingMessageJob",
    "WebhookDeliveryJob",
    "WhatsAppCloudSendJob",
    "WhatsAppQrSendJob",
    "__version__",
]

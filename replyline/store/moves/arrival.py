"""What a message that came in is told and counted as."""

import uuid
from datetime import UTC, datetime

from replyline.jobs import IncomingMessageJob
from replyline.store.moves.announce import Announcement
from replyline.store.moves.metering import Fact
from replyline.store.moves.work import LockedConversation


def received_fact(job: IncomingMessageJob, conversation: LockedConversation) -> Fact:
    """The usage that it is: once a message."""
    return Fact(
        key=f"message_received:{job.message_id}",
        kind="message_received",
        customer_id=conversation.customer_id,
        channel=conversation.channel,
        chatbot_id=conversation.chatbot_id,
        conversation_id=conversation.id,
        message_id=job.message_id,
    )


def received_event(
    job: IncomingMessageJob, conversation: LockedConversation, seq: int, parent_id: uuid.UUID
) -> Announcement:
    """The event `message.received`; `parent_id` is the job that saved it.

    Raises:
        ValueError: the job names no message or trace.
    """
    if job.message_id is None or job.trace_id is None:
        raise ValueError("a received job must name its message and its trace")
    return Announcement(
        type="message.received",
        customer_id=conversation.customer_id,
        priority=conversation.priority,
        message_id=job.message_id,
        trace_id=job.trace_id,
        parent_id=parent_id,
        data={
            "message_id": str(job.message_id),
            "conversation_id": str(conversation.id),
            "contact_id": str(conversation.contact_id),
            "chatbot_id": str(conversation.chatbot_id),
            "channel_id": str(conversation.channel_id),
            "channel": conversation.channel,
            "direction": "INBOUND",
            "status": "RECEIVED",
            "seq": seq,
            "external_id": job.external_message_id,
            "content": job.content,
            "content_type": job.content_type,
            "body": job.body,
            "received_at": datetime.now(UTC).isoformat(),
        },
    )

"""Giving up a job whose payload cannot be read: the columns of its row say whom it is about."""

import uuid

import msgspec

from replyline import jobs
from replyline.app import App
from replyline.processors import ai_processing
from replyline.store.job_rows import JobRow
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.work import Run


class _Named(msgspec.Struct, rename="camel"):
    """What has no column of its own."""

    event_id: uuid.UUID | None = None
    media_id: uuid.UUID | None = None


async def give_up_unread(row: JobRow, run: Run, app: App) -> Consequence:
    """What giving it up means: the same as for a job that could be read, as far as its row tells."""
    match row.queue:
        case jobs.OUTGOING_MESSAGES | jobs.WHATSAPP_CLOUD_SEND | jobs.WHATSAPP_QR_SEND:
            return Consequence(conversation_id=row.conversation_id, failed_message_id=row.message_id)
        case jobs.AI_PROCESSING:
            turn = jobs.AiProcessingJob(
                customer_id=row.customer_id, trace_id=row.trace_id, conversation_id=row.conversation_id
            )
            return await ai_processing.give_up(turn, run, app)
        case jobs.WEBHOOK_DELIVERY:
            return Consequence(failed_event_id=_named(row).event_id)
        case jobs.MEDIA_FETCH:
            return Consequence(failed_media_id=_named(row).media_id)
        case _:
            return Consequence()


def _named(row: JobRow) -> _Named:
    try:
        return msgspec.json.decode(row.payload, type=_Named)
    except msgspec.DecodeError:
        return _Named()

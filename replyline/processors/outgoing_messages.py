"""outgoing-messages: hand a message of ours to its channel's queue, or put it into the widget's event log."""

from replyline.app import App
from replyline.errors import Permanent
from replyline.jobs import WHATSAPP_CLOUD_SEND, WHATSAPP_QR_SEND, ChannelKind, OutgoingMessageJob
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.route import Route
from replyline.store.moves.work import Run

_SEND_QUEUES: dict[ChannelKind, str] = {"WHATSAPP_CLOUD": WHATSAPP_CLOUD_SEND, "WHATSAPP_QR": WHATSAPP_QR_SEND}


async def process(job: OutgoingMessageJob, run: Run, app: App) -> None:
    """Route the message; it is the head of its conversation's lane."""
    if job.conversation_id is None or job.message_id is None:
        raise Permanent("the job names no message to route", reason="unreadable_payload")
    external = _SEND_QUEUES.get(job.channel) in app.settings.external
    await app.moves.route(Route(run, job, job.conversation_id, job.message_id, external=external))


async def give_up(job: OutgoingMessageJob, _run: Run, _app: App) -> Consequence:
    """The message FAILED, and the lane goes on."""
    return Consequence(conversation_id=job.conversation_id, failed_message_id=job.message_id)

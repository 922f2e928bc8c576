"""outgoing-messages: hand a message of ours to its channel's queue, or put it into the widget's event log."""

from replyline.app import App
from replyline.errors import Permanent
from replyline.jobs import OutgoingMessageJob
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.route import Route
from replyline.store.moves.work import Run


async def process(job: OutgoingMessageJob, run: Run, app: App) -> None:
    """Route the message; it is the head of its conversation's lane."""
    if job.conversation_id is None or job.message_id is None:
        raise Permanent("the job names no message to route", reason="unreadable_payload")
    await app.moves.route(Route(run, job, job.conversation_id, job.message_id))


async def give_up(job: OutgoingMessageJob, _run: Run, _app: App) -> Consequence:
    """The message FAILED, and the lane goes on."""
    return Consequence(conversation_id=job.conversation_id, failed_message_id=job.message_id)

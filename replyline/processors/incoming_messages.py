"""incoming-messages: save what a person wrote in its conversation, and make sure that a turn answers it."""

from replyline.app import App
from replyline.errors import Permanent, RateLimited
from replyline.jobs import IncomingMessageJob
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.inbound_lane import Receive
from replyline.store.moves.receive import Received
from replyline.store.moves.work import Run

_CONTACT_BUSY_S = 2.0


async def process(job: IncomingMessageJob, run: Run, app: App) -> None:
    """Save the message, and those that wait behind it; conversation, contact and turn are found or made in the same move."""
    match await app.moves.receive(Receive(run, job)):
        case Received.SAVED | Received.ALREADY_DONE | Received.BEHIND_EARLIER:
            return
        case Received.CONTACT_BUSY:
            raise RateLimited(
                "the conversation under the person's new name is not at rest",
                after=_CONTACT_BUSY_S,
                reason="contact_busy",
            )
        case Received.REFUSED:
            raise Permanent(
                "the customer has no such channel, or the named conversation is not the channel's",
                reason="unknown_channel",
            )


async def give_up(_job: IncomingMessageJob, _run: Run, _app: App) -> Consequence:
    """Nobody was promised anything yet: the dead letter is all there is."""
    return Consequence()

"""whatsapp-cloud-send and whatsapp-qr-send: send one message through its channel, honest about what is not known."""

import asyncio

from replyline import metrics
from replyline.app import App
from replyline.channels import CHANNELS, Accepted, Channel, ChannelAccount, OutgoingText
from replyline.errors import Permanent, RateLimited, Temporary
from replyline.jobs import WhatsAppCloudSendJob, WhatsAppQrSendJob
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.settle import Settle, mark_sending, mark_unknown
from replyline.store.moves.work import Run
from replyline.store.outbound import Outbound

_ACCEPTED = ("SENT", "DELIVERED", "READ")


async def process(job: WhatsAppCloudSendJob | WhatsAppQrSendJob, run: Run, app: App) -> None:
    """Send the message, unless it was sent already; settle what became of it."""
    message = await app.reads.outbound(run.job_id)
    if message is None:
        return
    if (
        message.status in _ACCEPTED or message.external_id is not None
    ):  # a status told us of a send whose answer was lost
        await _settle(app, run, message, message.external_id)
        return
    account = await app.account(message.channel_id)
    if account is None:
        raise Permanent("the channel of this message no longer exists", reason="unknown_channel")
    channel = CHANNELS[account.kind]
    if not channel.repeat_is_safe:
        await _reconcile(app, run, message)
    accepted = await _send(app, channel, account, message)
    await _settle(app, run, message, accepted.external_id)


async def give_up(job: WhatsAppCloudSendJob | WhatsAppQrSendJob, _run: Run, _app: App) -> Consequence:
    """The message FAILED, and the lane goes on."""
    return Consequence(conversation_id=job.conversation_id, failed_message_id=job.message_id)


async def _reconcile(app: App, run: Run, message: Outbound) -> None:
    """Before a send is repeated: wait for a status to say what became of the first.

    Raises:
        RateLimited: until `reconcile_after_s` have passed without one.
    """
    patience_s = app.settings.reconcile_after_s
    if message.status == "UNKNOWN":
        left_s = patience_s - message.unknown_for_s
        if left_s > 0:
            raise RateLimited("a status may still tell what became of it", after=left_s, reason="outcome_unknown")
        await _mark_sending(app, message)
    elif message.status == "QUEUED":  # a replay: were this run to die, the next one must see that it had begun
        await _mark_sending(app, message)
    elif message.status == "SENDING" and (run.repeated or run.starts - 1 > message.setbacks):
        # A run that ended in an outage of Postgres has left nothing behind, not even that it failed.
        await _mark_unknown(app, message)
        raise RateLimited("an earlier run may have sent it", after=patience_s, reason="outcome_unknown")


async def _send(app: App, channel: Channel, account: ChannelAccount, message: Outbound) -> Accepted:
    text = OutgoingText(message.message_id, message.reply_to, message.content)
    outcome = "unknown"
    try:
        accepted = await channel.send(account, text, app.http)
        outcome = "accepted"
        return accepted
    except Temporary as error:
        if error.outcome_unknown and not channel.repeat_is_safe:
            await _mark_unknown(app, message)
        else:
            outcome = "temporary"
        raise
    except RateLimited:
        outcome = "rate_limited"
        raise
    except Permanent:
        outcome = "refused"
        raise
    except asyncio.CancelledError:  # the timeout of the run, or a worker that stops: the request may have gone out
        if not channel.repeat_is_safe:
            await asyncio.shield(asyncio.ensure_future(_mark_unknown(app, message)))
        raise
    finally:
        metrics.channel_sends_total.labels(channel.kind, outcome).inc()


async def _mark_unknown(app: App, message: Outbound) -> None:
    async with app.database.connection() as connection:
        await mark_unknown(connection, message.message_id, customer_id=message.customer_id)


async def _mark_sending(app: App, message: Outbound) -> None:
    async with app.database.connection() as connection:
        await mark_sending(connection, message.message_id, customer_id=message.customer_id)


async def _settle(app: App, run: Run, message: Outbound, external_id: str | None) -> None:
    await app.moves.settle(Settle(run, message.conversation_id, message.message_id, external_id))

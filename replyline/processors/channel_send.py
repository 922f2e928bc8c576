"""whatsapp-cloud-send and whatsapp-qr-send: send one message through its channel, honest about what is not known."""

import asyncio

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable, Limits
from replyline.channels import CHANNELS, Accepted, Channel, ChannelAccount, Outgoing
from replyline.contents import Template, in_words
from replyline.errors import ChannelDown, Permanent, RateLimited, Temporary
from replyline.jobs import WhatsAppCloudSendJob, WhatsAppQrSendJob
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.health import DEGRADED, Held, Hold
from replyline.store.moves.settle import Outcome, Settle, mark_sending, mark_unknown
from replyline.store.moves.work import Run
from replyline.store.outbound import Outbound

_ACCEPTED = ("SENT", "DELIVERED", "READ")
_GONE = ("CANCELLED", "SUPERSEDED", "BLOCKED_WINDOW", "FAILED")
_LIMITS_AWAY_S = 1.0


async def process(job: WhatsAppCloudSendJob | WhatsAppQrSendJob, run: Run, app: App) -> None:
    """Send the message, unless it was sent already, may not be, or its channel is down; settle what became of it."""
    message = await app.reads.outbound(run.job_id)
    if message is None:
        return
    account = await app.account_for_send(message.channel_id)
    if account is None:
        raise Permanent("the channel of this message no longer exists", reason="unknown_channel")
    channel = CHANNELS[account.kind]
    if message.status in _ACCEPTED or message.external_id is not None or message.accepted:
        # A status, or the answer to an earlier run, told us of a send that was not settled.
        await _settle(app, run, message, message.external_id, outcome=_outcome(channel, message))
    elif message.status in _GONE:
        await _settle(app, run, message, None, outcome="withdrawn")
    elif not account.healthy and account.trial_job_id != run.job_id:
        await _hold(app, run, account, account.health_reason or "unhealthy")
    else:
        await _try(app, run, channel, account, message)


async def give_up(job: WhatsAppCloudSendJob | WhatsAppQrSendJob, _run: Run, _app: App) -> Consequence:
    """The message FAILED, and the lane goes on."""
    return Consequence(conversation_id=job.conversation_id, failed_message_id=job.message_id)


async def _try(app: App, run: Run, channel: Channel, account: ChannelAccount, message: Outbound) -> None:
    outgoing, instead = _outgoing(app, channel, account, message)
    if outgoing is None:
        await _settle(app, run, message, None, outcome="blocked_window")
        return
    await _wait_for_slot(app, channel, account, message)
    if not channel.repeat_is_safe:
        await _reconcile(app, run, account, message)
    try:
        accepted = await _send(app, channel, account, message, outgoing)
    except ChannelDown as error:
        await app.channel_down(account, error.reason, str(error), retry_after_s=error.retry_after)
        await _hold(app, run, account, error.reason)
        return
    await _settle(app, run, message, accepted.external_id, outcome=_outcome(channel, message), instead=instead)
    if not account.healthy and account.health_reason != DEGRADED:
        await app.channel_healed(account)


def _outgoing(
    app: App, channel: Channel, account: ChannelAccount, message: Outbound
) -> tuple[Outgoing | None, Template | None]:
    """What goes out, and the template that takes the text's place once the window is closed; None where nothing may go."""
    content, text, instead = message.body, message.content, None
    if not isinstance(content, Template) and _window_is_closed(app, channel, message):
        instead = channel.fallback(account, text)
        if instead is None:
            return None, None
        content, text = instead, in_words(instead)
    outgoing = Outgoing(
        message_id=message.message_id,
        to=message.reply_to,
        text=text,
        content=content,
        quotes=None if isinstance(content, Template) else message.quotes,
        also_to=message.phone,
    )
    return outgoing, instead


def _window_is_closed(app: App, channel: Channel, message: Outbound) -> bool:
    if channel.window_s is None:
        return False
    return message.silent_for_s is None or message.silent_for_s > channel.window_s - app.settings.window_margin_s


async def _wait_for_slot(app: App, channel: Channel, account: ChannelAccount, message: Outbound) -> None:
    """Our own limits, before the call.

    Raises:
        RateLimited: another time; meanwhile other recipients go on.
    """
    pace = channel.pace(account)
    limits = Limits(pace.every_s, pace.burst, pace.recipient_every_s, pace.recipient_burst, pace.per_day)
    try:
        slot = await app.broker.pacing.slot(str(account.id), message.reply_to, str(message.message_id), limits)
    except BrokerUnavailable as error:  # the job came from there a moment ago: it will be back
        raise RateLimited("the limits cannot be asked", after=_LIMITS_AWAY_S, reason="limits_away") from error
    if slot.waits_for is not None:
        metrics.paced_sends_total.labels(channel.kind, slot.waits_for).inc()
        raise RateLimited(f"the {slot.waits_for}'s limit", after=slot.after_s, reason=f"{slot.waits_for}_limit")


async def _reconcile(app: App, run: Run, account: ChannelAccount, message: Outbound) -> None:
    """Before a send is repeated: wait for a status to say what became of the first.

    Raises:
        RateLimited: until `reconcile_after_s` have passed without one.
        Permanent: they have, and the channel is set to give up then.
    """
    patience_s = app.settings.reconcile_after_s
    if message.status == "UNKNOWN":
        left_s = patience_s - message.unknown_for_s
        if left_s > 0:
            raise RateLimited("a status may still tell what became of it", after=left_s, reason="outcome_unknown")
        if account.config.get("on_unknown") == "fail":
            raise Permanent("no status has told what became of it", reason="outcome_unknown")
        await _mark_sending(app, message)
    elif message.status == "QUEUED":  # a replay: were this run to die, the next one must see that it had begun
        await _mark_sending(app, message)
    elif message.status == "SENDING" and (run.repeated or run.starts - 1 > message.setbacks):
        # A run that ended in an outage of Postgres has left nothing behind, not even that it failed.
        await _mark_unknown(app, message)
        raise RateLimited("an earlier run may have sent it", after=patience_s, reason="outcome_unknown")


async def _send(app: App, channel: Channel, account: ChannelAccount, message: Outbound, outgoing: Outgoing) -> Accepted:
    outcome = "unknown"
    try:
        accepted = await channel.send(account, outgoing, app.http)
        outcome = "accepted"
        return accepted
    except Temporary as error:
        if error.outcome_unknown and not channel.repeat_is_safe:
            await _mark_unknown(app, message)
        else:
            outcome = "temporary"
        raise
    except RateLimited as error:
        outcome = "rate_limited"
        raise await _limited(app, account, message, error) from error
    except ChannelDown:
        outcome = "channel_down"
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


async def _limited(app: App, account: ChannelAccount, message: Outbound, error: RateLimited) -> RateLimited:
    """The other side asks to wait: all workers do, for everything that it is about, each time in a row longer."""
    if error.scope == "job":
        return error
    recipient = message.reply_to if error.scope == "recipient" else None
    try:
        wait_s = await app.broker.pacing.block(str(account.id), recipient, first_s=error.after, growth=error.growth)
    except BrokerUnavailable:
        return error
    return RateLimited(str(error), after=wait_s, reason=error.reason, scope=error.scope)


async def _hold(app: App, run: Run, account: ChannelAccount, reason: str) -> None:
    held = await app.moves.hold(Hold(run.job_id, account.id, f"the channel is not healthy: {reason}"))
    if held is Held.CHANNEL_IS_WELL:
        app.forget_account(account.id)
        raise RateLimited("the channel was mended at this moment", after=0.0, reason="channel_mended")


async def _mark_unknown(app: App, message: Outbound) -> None:
    async with app.database.connection() as connection:
        await mark_unknown(connection, message.message_id, customer_id=message.customer_id)


async def _mark_sending(app: App, message: Outbound) -> None:
    async with app.database.connection() as connection:
        await mark_sending(connection, message.message_id, customer_id=message.customer_id)


def _outcome(channel: Channel, message: Outbound) -> Outcome:
    return "sent" if channel.accepted_is_sent or message.status in _ACCEPTED else "accepted"


async def _settle(
    app: App,
    run: Run,
    message: Outbound,
    external_id: str | None,
    *,
    outcome: Outcome,
    instead: Template | None = None,
) -> None:
    sent_as = None if instead is None else f"template {instead.name} ({instead.language})"
    await app.moves.settle(
        Settle(run, message.conversation_id, message.message_id, external_id, outcome=outcome, sent_as=sent_as)
    )

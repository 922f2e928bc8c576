"""whatsapp-cloud-send and whatsapp-qr-send: send one message through its channel, honest about what is not known."""

import asyncio

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable, Limits
from replyline.channels import CHANNELS, Accepted, Channel, ChannelAccount, Outgoing
from replyline.contents import Template, in_words
from replyline.errors import ChannelDown, Permanent, RateLimited, Temporary
from replyline.jobs import ChannelKind, WhatsAppCloudSendJob, WhatsAppQrSendJob
from replyline.store.moves.claim import Claim, Outbound, claim_repeat, mark_sending, mark_unknown, take_over
from replyline.store.moves.give_up import Consequence
from replyline.store.moves.health import DEGRADED, Held, Hold
from replyline.store.moves.settle import Outcome, Settle
from replyline.store.moves.work import Run
from replyline.store.persist import persist

_ACCEPTED = ("SENT", "DELIVERED", "READ")
_GONE = ("CANCELLED", "SUPERSEDED", "BLOCKED_WINDOW", "FAILED")
_LIMITS_AWAY_S = 1.0
_LOOK_AGAIN_S = 0.05
_SETTLE_FOR_S = 5.0
_CLAIM_FOR_S = 5.0
_KINDS: dict[type, ChannelKind] = {WhatsAppCloudSendJob: "WHATSAPP_CLOUD", WhatsAppQrSendJob: "WHATSAPP_QR"}


async def process(job: WhatsAppCloudSendJob | WhatsAppQrSendJob, run: Run, app: App) -> None:
    """Send the message, unless it was sent already, may not be, or its channel is down; settle what became of it."""
    if job.to is not None:
        async with app.database.connection() as connection:
            await take_over(connection, run)
    # By the same run until Postgres answers: a claim that was committed unheard would look like another run's send.
    message = await persist(app.moves.claim, Claim(run, CHANNELS[_KINDS[type(job)]].repeat_is_safe), for_s=_CLAIM_FOR_S)
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
    await _require_claim(app, run, channel, account, message)
    await _wait_for_slot(app, channel, account, message)
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


async def _require_claim(app: App, run: Run, channel: Channel, account: ChannelAccount, message: Outbound) -> None:
    """Nothing is sent without a claim, nor again before a status could say what became of an earlier send.

    Raises:
        RateLimited: an earlier run may have sent it, and `reconcile_after_s` have not passed without a status.
        Permanent: they have, and the channel is set to give up then.
    """
    patience_s = app.settings.reconcile_after_s
    repeat_is_safe = channel.repeat_is_safe and not message.handed_over
    if message.status == "UNKNOWN" and not repeat_is_safe:
        left_s = patience_s - message.unknown_for_s
        if left_s > 0:
            raise _unknown("a status may still tell what became of it", left_s)
        if account.config.get("on_unknown") == "fail":
            raise Permanent("no status has told what became of it", reason="outcome_unknown")
        async with app.database.connection() as connection:
            mine = await claim_repeat(connection, run, message)
        if not mine:
            raise _unknown("another run is repeating it", patience_s)
    elif not (message.claimed or message.handed_over) and (message.claimed_before is None or repeat_is_safe):
        raise _unknown("another run has just claimed it", _LOOK_AGAIN_S)
    elif not message.claimed:
        await _mark_unknown(app, message)
        raise _unknown("an earlier run may have sent it", patience_s)
    elif message.status == "QUEUED":  # replayed, or held by its channel: on its way it cannot be withdrawn any more
        async with app.database.connection() as connection:
            mine = await mark_sending(connection, message.message_id, customer_id=message.customer_id)
        if not mine:
            raise RateLimited("it was withdrawn at this moment", after=_LOOK_AGAIN_S, reason="withdrawn")


def _unknown(why: str, after_s: float) -> RateLimited:
    return RateLimited(why, after=after_s, reason="outcome_unknown", outcome_unknown=True)


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
    held = await app.moves.hold(Hold(run, account.id, f"the channel is not healthy: {reason}"))
    if held is Held.CHANNEL_IS_WELL:
        app.forget_account(account.id)
        raise RateLimited("the channel was mended at this moment", after=0.0, reason="channel_mended")


async def _mark_unknown(app: App, message: Outbound) -> None:
    async with app.database.connection() as connection:
        await mark_unknown(connection, message.message_id, customer_id=message.customer_id)


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
    settled = Settle(run, message.conversation_id, message.message_id, external_id, outcome=outcome, sent_as=sent_as)
    # It was sent: as long as this is not written, the next run would have to wait for a status before it could say so.
    await persist(app.moves.settle, settled, for_s=_SETTLE_FOR_S)

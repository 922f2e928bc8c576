"""Care for channels that cannot send: check whether they work again, let one job try, give up what they held too long."""

from datetime import UTC, datetime

import structlog

from replyline.app import App
from replyline.channels import CHANNELS, ChannelAccount
from replyline.errors import ChannelDown, JobError
from replyline.store.moves.give_up import Consequence, GivenUp
from replyline.store.moves.health import (
    DEGRADED,
    OverdueJob,
    Patient,
    degraded,
    due_patients,
    overdue,
    release_forgotten,
    send_on_trial,
)
from replyline.store.moves.setbacks import Failure
from replyline.store.moves.statuses import catch_up
from replyline.store.moves.work import Run
from replyline.store.outbox import Outbox

log = structlog.get_logger(__name__)

_SWEEPER = "sweeper"
# What asking the other side proves: for every other reason only a message that goes out does.
_PROVED_BY_ASKING = frozenset(
    {
        "token_invalid",
        "number_unknown",
        "number_not_registered",
        "gateway_unauthorized",
        "session_unknown",
        "session_not_paired",
        "session_closed",
        "session_logged_out",
        "session_banned",
    }
)


async def look_after(app: App) -> None:
    """One look at everything; any number of processes may look, each channel is looked at by one."""
    outbox = Outbox()
    async with app.database.transaction() as connection:
        await catch_up(connection, outbox)
        await release_forgotten(connection, outbox)
        patients = await due_patients(
            connection, first_s=app.settings.probe_first_s, longest_s=app.settings.probe_longest_s
        )
        late = await overdue(connection, longest_s=app.settings.hold_at_most_s)
    app.publisher.publish(outbox)
    for patient in patients:
        await _examine(app, patient)
    for job in late:
        await _give_up(app, job)
    await _find_degraded(app)


async def _examine(app: App, patient: Patient) -> None:
    account = await app.account(patient.id)
    if account is None:
        return
    try:
        await CHANNELS[account.kind].check(account, app.http)
    except ChannelDown as error:
        log.info("channel.still_unhealthy", channel_id=str(patient.id), reason=error.reason)
        await app.channel_down(account, error.reason, str(error), retry_after_s=error.retry_after)
    except JobError as error:
        log.info("channel.not_examined", channel_id=str(patient.id), reason=error.reason)
    else:
        await _let_try(app, account, patient)


async def _let_try(app: App, account: ChannelAccount, patient: Patient) -> None:
    outbox = Outbox()
    if patient.reason not in _PROVED_BY_ASKING:
        async with app.database.transaction() as connection:
            trying = await send_on_trial(connection, patient.id, outbox)
        app.publisher.publish(outbox)
        app.forget_account(patient.id)
        if trying:
            return
    await app.channel_healed(account)


async def _give_up(app: App, job: OverdueJob) -> None:
    now = datetime.now(UTC)
    failure = Failure(
        at=now.isoformat(),
        attempt=1,
        worker=_SWEEPER,
        reason="channel_unhealthy",
        message=f"the channel was not healthy for {app.settings.hold_at_most_s:g} seconds",
        stack="",
    )
    consequence = Consequence(conversation_id=job.conversation_id, failed_message_id=job.message_id)
    await app.moves.give_up(GivenUp(Run(job.id, now, _SWEEPER), "channel_unhealthy", failure, consequence))


async def _find_degraded(app: App) -> None:
    """A QR number may look connected and lose everything: WhatsApp's confirmations are what tells (field: Evolution #2647)."""
    settings = app.settings
    async with app.database.connection() as connection:
        found = await degraded(
            connection, after_s=settings.degraded_after_s, within_s=settings.degraded_after_s + settings.hold_at_most_s
        )
    for channel_id, _, messages in found:
        account = await app.account(channel_id)
        if account is not None:
            said = f"WhatsApp has not confirmed {messages} messages for {settings.degraded_after_s:g} seconds"
            await app.channel_down(account, DEGRADED, said)

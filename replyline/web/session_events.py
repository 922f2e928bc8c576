"""What a gateway says of its session: shown, and it decides whether anything can be sent; each event counts once."""

import structlog

from replyline.app import App
from replyline.channels import ChannelAccount, SessionReport
from replyline.redaction import redact
from replyline.store.moves.health import Unhealthy, heal, mark_unhealthy, note_session, take_session_event
from replyline.store.outbox import Outbox

log = structlog.get_logger(__name__)


async def note_session_event(app: App, account: ChannelAccount, report: SessionReport) -> bool:
    """Act on an event; False where it was taken before, and nothing is done.

    A signature is good for 25 hours: somebody who has seen an event could say again that the session is open, or is not.
    The event is remembered in the transaction that acts on it, so that one which failed is acted on when it comes again.
    """
    raw = report.raw if b"\\u0000" not in report.raw else b"{}"
    outbox = Outbox()
    newly = healed = False
    async with app.database.transaction() as connection:
        if not await take_session_event(connection, account.id, report.event_id):
            return False
        await note_session(connection, account.id, customer_id=account.customer_id, session=raw)
        if report.down is not None:
            detail = report.detail or f"the session is {report.state}"
            newly = await mark_unhealthy(connection, _unhealthy(app, account, report.down, detail), outbox)
        elif report.state == "open":
            healed = await heal(connection, account.id, customer_id=account.customer_id, outbox=outbox)
    app.publisher.publish(outbox)
    app.forget_account(account.id)
    if newly:
        log.error("channel.unhealthy", channel_id=str(account.id), channel=account.kind, reason=report.down)
    if healed:
        log.info("channel.healthy", channel_id=str(account.id))
    return True


def _unhealthy(app: App, account: ChannelAccount, reason: str, detail: str) -> Unhealthy:
    return Unhealthy(account.id, account.customer_id, reason, redact(detail)[:1000], app.settings.probe_first_s)

"""What callbacks say of accounts and of what people want, as the door keeps it."""

import structlog

from replyline.app import App
from replyline.channels import Callback, ChannelAccount
from replyline.store.moves.notices import NoticedAccount, take_notices, take_preference
from replyline.store.outbox import Outbox

log = structlog.get_logger(__name__)


async def keep_notices(app: App, account: ChannelAccount, callback: Callback) -> int:
    """Keep and announce them, with what they mean for the channel's health; how many there were, repeated ones too."""
    if not callback.notices and not callback.preferences:
        return 0
    outbox = Outbox()
    noticed = NoticedAccount(account.id, account.customer_id, app.settings.probe_first_s)
    async with app.database.transaction() as connection:
        new = await take_notices(connection, noticed, callback.notices, outbox)
        for wish in callback.preferences:
            await take_preference(connection, account.id, wish, customer_id=account.customer_id, outbox=outbox)
    app.publisher.publish(outbox)
    app.forget_account(account.id)
    for notice in new:
        log.info(
            "channel.noticed",
            channel_id=str(account.id),
            event_type=notice.event,
            down=notice.down,
            lifts=sorted(notice.lifts),
        )
    return len(callback.notices) + len(callback.preferences)

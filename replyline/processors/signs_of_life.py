"""Signs of life while a turn is answered: read, typing, renewed and ended. Nothing waits for them, and none fails a turn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from replyline import metrics
from replyline.app import App
from replyline.channels import CHANNELS, Channel, ChannelAccount, Sign
from replyline.errors import JobError
from replyline.store.turns import Turn

log = structlog.get_logger(__name__)

_LAST_SIGN_S = 2.0
_ENDING: "set[asyncio.Task[None]]" = set()


@asynccontextmanager
async def signs_of_life(turn: Turn, app: App) -> AsyncIterator[None]:
    """Show the person, until the end of the block, that an answer is on its way.

    A sign that is under way when the block ends is let end first (for two seconds at most): one that overtook the answer would
    show "typing" after it.
    """
    channel = CHANNELS[turn.channel]
    account = await app.account(turn.channel_id) if channel.sign_every_s is not None else None
    if account is None or not account.healthy:
        yield
        return
    signs = asyncio.create_task(_keep_giving(channel, account, turn, app))
    try:
        yield
    finally:
        signs.cancel()
        ending = asyncio.create_task(_end(signs, channel, account, turn, app))
        _ENDING.add(ending)
        ending.add_done_callback(_ENDING.discard)
        await asyncio.shield(ending)


async def _keep_giving(channel: Channel, account: ChannelAccount, turn: Turn, app: App) -> None:
    every_s = channel.sign_every_s or 0.0
    read_id = turn.last_external_id
    while True:
        # Shielded: cancelled in the middle, nobody would know whether it still arrives.
        given = asyncio.ensure_future(_give(channel, account, Sign(turn.reply_to, read_id, typing=True), app))
        try:
            await asyncio.shield(given)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(given, _LAST_SIGN_S)
            raise
        await asyncio.sleep(every_s)


async def _end(signs: "asyncio.Task[None]", channel: Channel, account: ChannelAccount, turn: Turn, app: App) -> None:
    await asyncio.gather(signs, return_exceptions=True)
    await _give(channel, account, Sign(turn.reply_to, None, typing=False), app)


async def _give(channel: Channel, account: ChannelAccount, sign: Sign, app: App) -> None:
    try:
        given = await channel.sign(account, sign, app.http)
    except JobError as error:
        metrics.signs_total.labels(channel.kind, "failed").inc()
        log.debug("signs_of_life.failed", channel_id=str(account.id), reason=error.reason)
    else:
        metrics.signs_total.labels(channel.kind, "given").inc(given)

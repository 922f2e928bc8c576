"""An answer on open pages while it is being written. Best effort: the stored message is the authority, nothing waits for this."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from replyline import metrics
from replyline.app import App
from replyline.broker import BrokerUnavailable, CommandRefused
from replyline.channels import CHANNELS
from replyline.ids import new_id
from replyline.live import processing, typing, withdrawn
from replyline.providers import Say
from replyline.store.turns import Turn

log = structlog.get_logger(__name__)

_GATHER_S = 0.05
"""Pieces are told together that come within so many seconds: 20 updates a second look like writing."""
_RENEW_TYPING_S = 20.0
_FLUSH_AT_MOST_S = 0.5
_ASK_AT_MOST_S = 0.2
_AWAY = (BrokerUnavailable, CommandRefused, TimeoutError)


class LiveAnswer:
    """One run's answer, as it comes. `say` and `message_id` are None where nobody looks: then no stream is asked for."""

    def __init__(self, turn: Turn, app: App, *, watched: bool) -> None:
        self.message_id: uuid.UUID | None = new_id() if watched else None
        self.say: Say | None = self._say if watched else None
        self._turn = turn
        self._app = app
        self._conversation = str(turn.conversation_id)
        self._unsaid: list[str] = []
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._silent = False
        self._stands = False

    async def flush(self) -> None:
        """Let what was said reach the pages before the message does; for half a second at most."""
        self._hurry.set()
        with contextlib.suppress(TimeoutError):  # then the message overtakes it, and it is ignored
            async with asyncio.timeout(_FLUSH_AT_MOST_S):
                await self._idle.wait()

    def stands(self) -> None:
        """The answer is committed under `message_id`: what the pages show will be replaced by it, not withdrawn."""
        self._stands = True

    def fall_silent(self) -> None:
        """Nobody is told any more: nothing is to be waited for."""
        self._silent = True
        self._idle.set()

    def _say(self, text: str) -> None:
        if self._silent:
            return
        self._unsaid.append(text)
        self._idle.clear()
        self._more.set()

    async def begin(self) -> None:
        """Tell the pages that an answer is under way."""
        if self._turn.last_message_id is not None:
            await self._app.tell(self._turn.conversation_id, processing(str(self._turn.last_message_id)))
        await self._app.tell(self._turn.conversation_id, typing("assistant", on=True))
        await self._app.broker.live.begin(self._conversation, str(self.message_id))

    async def tell_as_it_comes(self) -> None:
        """Until cancelled, or until another run has taken the answer over, or it is too long to be shown like this."""
        while True:
            try:
                async with asyncio.timeout(_RENEW_TYPING_S):
                    await self._more.wait()
            except TimeoutError:
                await self._app.tell(self._turn.conversation_id, typing("assistant", on=True))
                continue
            self._more.clear()
            text, self._unsaid = "".join(self._unsaid), []
            going_on = await self._app.broker.live.append(self._conversation, str(self.message_id), text)
            metrics.live_pieces_total.labels("told" if going_on else "refused").inc()
            if not self._unsaid:
                self._idle.set()
            if not going_on:
                return
            with contextlib.suppress(TimeoutError):  # the usual case: it is not the last piece
                await asyncio.wait_for(self._hurry.wait(), _GATHER_S)

    async def end(self) -> None:
        """Forget what was being written, and take it off the pages where it does not stand."""
        if not self._stands:
            await self._app.tell(self._turn.conversation_id, withdrawn(str(self.message_id), "not_committed"))
        await self._app.tell(self._turn.conversation_id, typing("assistant", on=False))
        await self._app.broker.live.end(self._conversation, str(self.message_id))


@asynccontextmanager
async def live_answer(turn: Turn, app: App) -> AsyncIterator[LiveAnswer]:
    """Show an answer while it is written, to whoever looks at its conversation now; who comes later sees the rest."""
    live = LiveAnswer(turn, app, watched=await _is_watched(turn, app))
    if live.message_id is None:
        yield live
        return
    telling = asyncio.create_task(_tell(live))
    try:
        yield live
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await asyncio.shield(asyncio.ensure_future(_end(live)))


async def _is_watched(turn: Turn, app: App) -> bool:
    if not CHANNELS[turn.channel].shows_writing:
        return False
    try:
        async with asyncio.timeout(_ASK_AT_MOST_S):
            return await app.broker.live.is_watched(str(turn.conversation_id))
    except _AWAY:
        return False


async def _tell(live: LiveAnswer) -> None:
    try:
        await live.begin()
        await live.tell_as_it_comes()
    except _AWAY as error:  # the pages get the message itself
        log.debug("live_answer.untold", message_id=str(live.message_id), error=str(error))
    finally:
        live.fall_silent()


async def _end(live: LiveAnswer) -> None:
    try:
        async with asyncio.timeout(_FLUSH_AT_MOST_S):
            await live.end()
    except _AWAY as error:  # Redis forgets it by itself
        log.debug("live_answer.not_ended", message_id=str(live.message_id), error=str(error))

"""Goes on with the deletion of customers, in batches: a process that ends in the middle loses nothing, another goes on."""

import asyncio
import time
import uuid
from collections.abc import Sequence

import structlog

from replyline.app import App
from replyline.store import customer_deletions
from replyline.store.database import StoreUnavailable

log = structlog.get_logger(__name__)

_AT_A_TIME_S = 2.0
_TELL_EVERY_S = 60.0


class CustomerDeletions:
    """Looks every few seconds. A task of its own: a large customer keeps it for minutes, and nothing else may wait for that."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._told_at = time.monotonic()

    async def run(self) -> None:
        """Delete what was asked for until cancelled; an absent store is waited for. Any other error is raised."""
        while True:
            finished = None
            try:
                finished = await customer_deletions.go_on(self._app.database, for_s=_AT_A_TIME_S)
                await self._tell(finished or ())
            except StoreUnavailable as error:
                log.warning("customer_deletions.store_away", error=str(error))
            if finished is None:
                await asyncio.sleep(self._app.settings.sweep_every_s)

    async def _tell(self, finished: Sequence[uuid.UUID]) -> None:
        due = time.monotonic() - self._told_at > _TELL_EVERY_S
        if not finished and not due:
            return
        for one in await customer_deletions.list_newest(self._app.database):
            if one.customer_id in finished:
                log.info("customer_deletions.finished", customer=str(one.customer_id), rows=one.deleted_rows)
            elif due and one.finished_at is None:
                log.info("customer_deletions.going_on", customer=str(one.customer_id), rows=one.deleted_rows)
        if due:
            self._told_at = time.monotonic()

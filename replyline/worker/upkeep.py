"""Upkeep of the tables that grow with traffic: partitions made and dropped, gone customers erased, what an upgrade left moved."""

import asyncio
import time

import structlog

from replyline.app import App
from replyline.store.database import StoreUnavailable
from replyline.store.erasure import erase_gone_customers
from replyline.store.leftovers import drop_old_indexes, move_ended
from replyline.store.partitions import DaysMissing, Partitioned, alone, keep

log = structlog.get_logger(__name__)

_EVERY_S = 60.0
_PAUSE_WHILE_MOVING_S = 0.2
_TROUBLE_AFTER_S = 6 * 3600.0
_ATTEMPTS_LONGER_S = 5 * 86_400.0  # an event may be tried for four days before it ends


class Upkeep:
    """Looks every minute. Any number may run; one works at a time."""

    def __init__(self, app: App) -> None:
        self._app = app
        settings = app.settings
        self._tables = (Partitioned("finished_jobs", "finished_at", settings.keep_jobs_s),)
        self._trouble: str | None = None
        self._well_at = time.monotonic()

    @property
    def trouble(self) -> str | None:
        """What is wrong: today's rows have no partition, or nothing could be done for six hours. None while all is well."""
        return self._trouble

    async def run(self) -> None:
        """Keep the tables until cancelled; a store that is away or busy is waited for. Any other error is raised."""
        while True:
            pause_s = _EVERY_S
            try:
                if await self.keep():
                    pause_s = _PAUSE_WHILE_MOVING_S
                self._trouble, self._well_at = None, time.monotonic()
            except DaysMissing as error:
                self._trouble = str(error)
                log.error("upkeep.days_missing", error=str(error))
            except StoreUnavailable as error:
                log.warning("upkeep.store_away", error=str(error))
                if time.monotonic() - self._well_at > _TROUBLE_AFTER_S:
                    self._trouble = f"no partition could be made or dropped for hours: {error}"
            await asyncio.sleep(pause_s)

    async def keep(self) -> bool:
        """Do once what there is to be done; whether there may be more to move at once.

        Raises:
            StoreUnavailable, DaysMissing: see `store/partitions.py`.
        """
        database = self._app.database
        async with alone(database) as guard:
            if guard is None:
                return False
            async with database.connection() as connection:
                moved = await move_ended(connection)
            if moved:
                log.info("upkeep.moved_ended_jobs", jobs=moved)
            else:
                dropped = await drop_old_indexes(database)
                if dropped:
                    log.info("upkeep.dropped_old_indexes", indexes=dropped)
            erased = await erase_gone_customers(database, [table.table for table in self._tables], guard)
            kept = await keep(database, self._tables)
        if erased or kept.made or kept.dropped or kept.deleted:
            log.info(
                "upkeep.kept", made=list(kept.made), dropped=list(kept.dropped), deleted=kept.deleted, erased=erased
            )
        return bool(moved)

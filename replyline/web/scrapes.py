"""The text of `/metrics`: made at most once in five seconds, however often somebody asks, as nobody needs a key for it."""

import asyncio
import time

import structlog

from replyline import external_results, metrics
from replyline.app import App
from replyline.gauges import refresh_gauges
from replyline.store.database import StoreUnavailable

log = structlog.get_logger(__name__)

FRESH_S = 5.0


class Scrapes:
    """The metrics of one process; who asks while they are made waits for the same."""

    def __init__(self, app: App, *, fresh_s: float = FRESH_S) -> None:
        self._app = app
        self._fresh_s = fresh_s
        self._made: asyncio.Task[bytes] | None = None
        self._made_at = 0.0

    async def text(self) -> bytes:
        """In Prometheus' format, at most 5 seconds old."""
        if self._made is None or self._failed(self._made) or time.monotonic() - self._made_at > self._fresh_s:
            self._made_at = time.monotonic()
            self._made = asyncio.create_task(self._make(), name="metrics")
        return await asyncio.shield(self._made)  # one who hangs up takes it from nobody else

    @staticmethod
    def _failed(made: asyncio.Task[bytes]) -> bool:
        return made.done() and (made.cancelled() or made.exception() is not None)

    async def _make(self) -> bytes:
        try:
            await refresh_gauges(self._app.broker, self._app.database)
            await external_results.refresh_gauges(self._app)
        except StoreUnavailable as error:
            # What this process counted itself is wanted most when a store is away.
            log.warning("metrics.without_postgres", error=str(error))
        return metrics.render()

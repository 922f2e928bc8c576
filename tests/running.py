"""A whole Replyline in this process: an app with its workers, on the stores of the test."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from replyline.app import App, open_app
from replyline.jobs import QUEUE_NAMES
from replyline.settings import Settings, load
from replyline.worker.run import work
from tests.make import SECRET_KEY


def settings_for(valkey_url: str, database_url: str, **overrides: object) -> Settings:
    """Settings for a test: its own stores, endpoints on loopback allowed, short waits."""
    defaults: dict[str, object] = {
        "redis_url": valkey_url,
        "database_url": database_url,
        "secret_key": SECRET_KEY,
        "data": Path("/nonexistent"),
        "webhook_allow_private": True,
        "database_pool": 8,
        "log_level": "error",
    }
    return load(**{**defaults, **overrides})


def quick_retries(waits_s: Sequence[float] = (0.05, 0.1, 0.2)) -> dict[str, object]:
    """The queues' settings with waits as short as a test can be patient, in seconds."""
    return {queue: {"waits_s": list(waits_s), "jitter": 0} for queue in QUEUE_NAMES}


@asynccontextmanager
async def working(settings: Settings, *, queues: Sequence[str] = QUEUE_NAMES) -> AsyncIterator[App]:
    """An app whose queues are worked until the end of the block, then drained."""
    async with open_app(settings) as app:
        stop = asyncio.Event()
        worker = asyncio.create_task(work(app, queues=queues, concurrency={}, stop=stop))
        try:
            yield app
        finally:
            stop.set()
            await worker

"""Retry, as the button of bull-board and `job.retry()` of BullMQ for Node do it: with BullMQ's own script."""

from importlib.resources import files

import redis.asyncio

_KEYS = ("events", "failed", "wait", "meta", "active", "marker", "prioritized", "pc")


async def retry(valkey_url: str, queue: str, job_id: str) -> None:
    """Let a failed job run once more."""
    text = (files("bullmq") / "commands" / "reprocessJob-9.lua").read_text()
    prefix = f"bull:{queue}:"
    keys = [f"{prefix}{job_id}", *(f"{prefix}{name}" for name in _KEYS)]
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        done = await client.eval(text, len(keys), *keys, job_id, "LPUSH", "failedReason", "failed", "0", "0")  # type: ignore[no-untyped-call]
    assert done == 1

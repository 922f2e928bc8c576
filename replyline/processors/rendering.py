"""Rendering a model's Markdown without keeping anybody else waiting."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog

from replyline.channels.contract import Channel

log = structlog.get_logger(__name__)

_HERE_CHARS = 2_000
"""Rendering these takes some milliseconds at most, whatever they are (tests/test_bounded_work.py)."""
_WITHIN_S = 5.0
# Threads of their own: a text that occupies one for long keeps only other long answers from being rendered.
_threads = ThreadPoolExecutor(2, thread_name_prefix="rendering")


async def rendered(channel: Channel, text: str, *, within_s: float = _WITHIN_S) -> tuple[str, ...]:
    """The answer as its channel shows it; as the model wrote it if rendering takes more than `within_s` seconds.

    A long one is rendered in a thread, and the event loop goes on meanwhile.
    """
    if len(text) <= _HERE_CHARS:
        return channel.render(text)
    try:
        async with asyncio.timeout(within_s):
            return await asyncio.get_running_loop().run_in_executor(_threads, channel.render, text)
    except TimeoutError:
        log.warning("answer.not_rendered", channel=channel.kind, chars=len(text), waited_s=within_s)
        return channel.unrendered(text)

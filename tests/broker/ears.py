"""Hearing what is told of conversations, and what the server knows of who listens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from replyline.broker import Broker, Listening, Told, Written
from tests.broker.scene import Client


class Ear:
    """Remembers what it heard, and how often something may have been missed."""

    def __init__(self) -> None:
        self.heard: list[Told | Written] = []
        self.missed = 0

    def miss(self) -> None:
        """Count it."""
        self.missed += 1


@asynccontextmanager
async def listen(broker: Broker, ear: Ear, *watched: str, ping_every_s: float = 10.0) -> AsyncIterator[Listening]:
    """Listening to some conversations, confirmed."""
    listening = broker.listening(ear.heard.append, ear.miss, ping_every_s=ping_every_s)
    await listening.open()
    for conversation in watched:
        listening.watch(conversation)
    for conversation in watched:
        await listening.watching(conversation)
    try:
        yield listening
    finally:
        await listening.close()


async def calls(redis: Client, command: str) -> int:
    """How often the server was called with a command."""
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def subscribed(redis: "Redis[str] | Redis[bytes]", count: int) -> bool:
    """Whether the server has as many channels that somebody listens to."""
    return len(await redis.pubsub_channels()) == count

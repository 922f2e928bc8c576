"""A broker on this process' Valkey, and a client that looks at what it leaves there."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from replyline.broker import Broker
from replyline.embedded import EmbeddedValkey
from tests.broker.scene import Client


@pytest.fixture
async def broker(valkey_url: str) -> AsyncIterator[Broker]:
    """An open broker."""
    opened = Broker(valkey_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Client]:
    """Another client of the same database, which decodes."""
    async with Redis.from_url(valkey_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def own_valkey(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """A Valkey of this test's own, to be killed, counted or emptied."""
    valkey = EmbeddedValkey(tmp_path)
    await valkey.start()
    yield valkey
    await valkey.stop()


@pytest.fixture
async def own_redis(own_valkey: EmbeddedValkey) -> AsyncIterator[Client]:
    """Another client of that."""
    async with Redis.from_url(own_valkey.url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def own_broker(own_valkey: EmbeddedValkey) -> AsyncIterator[Broker]:
    """An open broker on that."""
    opened = Broker(own_valkey.url)
    await opened.open()
    yield opened
    await opened.close()

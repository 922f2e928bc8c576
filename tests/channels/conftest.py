"""What the channels' tests call with, and whom they call."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.channels.far_end import FarEnd

pytest.register_assert_rewrite("tests.channels.contract_suite", "tests.channels.media_suite")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A session more patient than any answer here needs."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
async def impatient() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that waits 0.3 s for a whole call."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as session:
        yield session


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    """The channel's server."""
    async with FarEnd() as server:
        yield server

"""A customer's endpoint."""

from collections.abc import AsyncIterator

import pytest

from tests.channels.far_end import FarEnd


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    """A customer's endpoint."""
    async with FarEnd() as server:
        yield server

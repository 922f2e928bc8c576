"""Whom the providers' tests call."""

from collections.abc import AsyncIterator

import pytest

from tests.channels.far_end import FarEnd

pytest.register_assert_rewrite("tests.providers.contract_suite")


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    """The provider's server."""
    async with FarEnd() as server:
        yield server

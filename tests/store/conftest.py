"""Whatever these tests run on the hot path is also planned on tables in which much waits."""

from collections.abc import AsyncIterator

import pytest

from replyline.store.database import Database
from tests.store.plans import Noting, Plans


@pytest.fixture(scope="session")
def plans(kept_database_url: str) -> Plans:
    """A database of this process in which much waits."""
    return Plans(kept_database_url)


@pytest.fixture
async def database(database_url: str, plans: Plans) -> AsyncIterator[Database]:
    """A database like everywhere; what ran on its hot path must find its rows by their keys."""
    noting = Noting(database_url)
    await noting.open()
    yield noting
    await noting.close()
    unbounded = await plans.unbounded(noting.statements)
    assert not unbounded, "\n".join(map(str, unbounded))

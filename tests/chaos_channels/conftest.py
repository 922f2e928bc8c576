"""How much chaos: a short form with the other tests, a long one with `make chaos-channels`."""

import pytest


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long form."""
    return bool(request.config.getoption("--chaos-full"))


@pytest.fixture
def messages(full: bool) -> int:
    """How many messages people write."""
    return 1000 if full else 100

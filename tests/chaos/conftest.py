"""How much chaos: a short form with the other tests, a long one with `make chaos`."""

import pytest


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long form."""
    return bool(request.config.getoption("--chaos-full"))


@pytest.fixture
def in_flight(full: bool) -> int:
    """How many messages are in flight when the harm is done."""
    return 600 if full else 80

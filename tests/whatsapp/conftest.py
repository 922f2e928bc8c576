"""Streets for the tests of both WhatsApp channels."""

import pytest

from replyline.store.database import Database
from tests.web.conftest import Serve, serve
from tests.whatsapp.street import Open, opener

__all__ = ["serve"]


@pytest.fixture
def street(serve: Serve, database: Database) -> Open:
    """Opens a street with a business on it."""
    return opener(serve, database)

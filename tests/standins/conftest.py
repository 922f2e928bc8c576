"""The four stand-ins, running, and the door that takes their callbacks."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from replyline.standins import Standins
from tests.channels.far_end import FarEnd
from tests.standins import side
from tests.standins.side import Side


@pytest.fixture
async def standins() -> AsyncIterator[Standins]:
    """All of them, not configured."""
    async with Standins() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that waits 10 s for a whole call."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


@pytest.fixture
async def door() -> AsyncIterator[FarEnd]:
    """Where callbacks go."""
    async with FarEnd() as server:
        yield server


@pytest.fixture
async def cloud(standins: Standins, http: aiohttp.ClientSession, door: FarEnd) -> Side:
    """Meta, with one number."""
    told = Side(standins.urls["whatsapp_cloud"], http)
    number = {
        "access_token": side.TOKEN,
        "app_secret": side.APP_SECRET,
        "verify_token": side.VERIFY_TOKEN,
        "callback_url": f"{door.url}/cloud",
    }
    await told.tell("/_configure", {"numbers": {side.NUMBER: number}})
    return told


@pytest.fixture
async def qr(standins: Standins, http: aiohttp.ClientSession, door: FarEnd) -> Side:
    """The gateway, with one session, whose name needs quoting in a path."""
    told = Side(standins.urls["qr_gateway"], http)
    session = {"token": side.GATEWAY_TOKEN, "secret": side.GATEWAY_SECRET, "callback_url": f"{door.url}/qr"}
    await told.tell("/_configure", {"sessions": {side.SESSION: session}})
    return told


@pytest.fixture
def openai(standins: Standins, http: aiohttp.ClientSession) -> Side:
    """The AI vendor."""
    return Side(standins.urls["openai"], http)


@pytest.fixture
def customer(standins: Standins, http: aiohttp.ClientSession) -> Side:
    """The customer's endpoint."""
    return Side(standins.urls["customer"], http)

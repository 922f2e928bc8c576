"""The channels and the stand-ins read the same contracts: what one sends, the other takes, in both directions."""

import uuid
from collections.abc import AsyncIterator

import aiohttp
import pytest

from replyline.channels import CHANNELS, ChannelAccount
from replyline.errors import Permanent, RateLimited, Temporary
from replyline.standins import Standins
from tests.channels import graph, test_whatsapp_qr
from tests.channels.contract_suite import outgoing
from tests.channels.far_end import FarEnd
from tests.waiting import until


@pytest.fixture
async def standins() -> AsyncIterator[Standins]:
    """Meta and the QR gateway, as shipped."""
    async with Standins() as running:
        yield running


@pytest.fixture(params=["WHATSAPP_CLOUD", "WHATSAPP_QR"])
async def account(
    request: pytest.FixtureRequest, standins: Standins, http: aiohttp.ClientSession, far_end: FarEnd
) -> ChannelAccount:
    """An account of that kind whose callbacks go to `far_end`."""
    if request.param == "WHATSAPP_CLOUD":
        url = standins.urls["whatsapp_cloud"]
        made = graph.account_at(url)
        known = {**made.secrets, "callback_url": far_end.url}
        configuration: dict[str, object] = {"numbers": {made.external_id: known}}
    else:
        url = standins.urls["qr_gateway"]
        made = test_whatsapp_qr.account_at(url)
        token, secret = made.secrets["gateway_token"], made.secrets["secret"]
        session = {"token": token, "secret": secret, "callback_url": far_end.url}
        configuration = {"sessions": {made.external_id: session}}
    async with http.post(f"{url}/_configure", json=configuration) as response:
        assert response.status == 200, await response.text()
    return made


async def test_a_message_is_taken_and_its_statuses_come_back_signed(
    account: ChannelAccount, http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    channel, text = CHANNELS[account.kind], outgoing()
    accepted = await channel.send(account, text, http)
    found: list[tuple[uuid.UUID | None, str, str]] = []

    def delivered() -> bool:
        found.clear()
        for call in far_end.calls:
            channel.verify(account, call.headers, call.body)
            statuses = channel.parse(account, call.body).statuses
            found.extend((status.message_id, status.external_id, status.status) for status in statuses)
        return len(found) == 2

    await until(delivered)
    assert sorted(found) == sorted((text.message_id, accepted.external_id, said) for said in ("SENT", "DELIVERED"))


async def test_what_a_person_writes_is_verified_and_read(
    account: ChannelAccount, http: aiohttp.ClientSession, far_end: FarEnd
) -> None:
    channel = CHANNELS[account.kind]
    cloud = account.kind == "WHATSAPP_CLOUD"
    url = account.config["graph_base" if cloud else "gateway_url"]
    written = {
        "phone_number_id" if cloud else "session": account.external_id,
        "from": "16505551234",
        "text": "Grüße 👋",
    }
    async with http.post(f"{url}/_inbound", json=written) as response:
        assert response.status == 200, await response.text()
    (call,) = far_end.calls
    channel.verify(account, call.headers, call.body)
    (message,) = channel.parse(account, call.body).messages
    assert (message.sender, message.reply_to, message.content) == ("16505551234", "16505551234", "Grüße 👋")


@pytest.mark.parametrize(
    ("fault", "kind", "unknown"),
    [
        ({"kind": "error", "status": 503}, Temporary, True),
        ({"kind": "error", "status": 429}, RateLimited, None),
        ({"kind": "error", "status": 400}, Permanent, None),
        ({"kind": "cut_after_accept"}, Temporary, True),
    ],
    ids=str,
)
async def test_a_fault_of_the_other_side_has_its_fate(
    *,
    fault: dict[str, object],
    kind: type[Exception],
    unknown: bool | None,
    account: ChannelAccount,
    http: aiohttp.ClientSession,
) -> None:
    channel = CHANNELS[account.kind]
    url = account.config["graph_base" if account.kind == "WHATSAPP_CLOUD" else "gateway_url"]
    async with http.post(f"{url}/_faults", json=fault) as response:
        assert response.status in {200, 201}, await response.text()
    with pytest.raises(kind) as raised:
        await channel.send(account, outgoing(), http)
    if unknown is not None and not channel.repeat_is_safe:
        assert getattr(raised.value, "outcome_unknown", None) is unknown

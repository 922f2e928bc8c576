"""The widget as a channel: it has no callbacks and sends nothing outside, and says so."""

import aiohttp
import pytest

from replyline.channels import CHANNELS, ForgedCallback, UnreadableCallback
from replyline.errors import Permanent
from tests.channels.contract_suite import make_account, outgoing
from tests.channels.far_end import FarEnd

ACCOUNT = make_account("WIDGET", "site-key", config={}, secrets={})


def test_whatever_claims_to_be_a_callback_of_a_widget_is_forged() -> None:
    with pytest.raises(ForgedCallback):
        CHANNELS["WIDGET"].verify(ACCOUNT, {"x-hub-signature-256": "sha256=00"}, b"{}")
    with pytest.raises(UnreadableCallback):
        CHANNELS["WIDGET"].parse(ACCOUNT, b"{}")


async def test_a_widget_message_is_never_sent_outside(http: aiohttp.ClientSession, far_end: FarEnd) -> None:
    with pytest.raises(Permanent) as raised:
        await CHANNELS["WIDGET"].send(ACCOUNT, outgoing(), http)
    assert raised.value.reason == "not_sent_outside"
    assert far_end.calls == []

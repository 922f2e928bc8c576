"""What Meta's statuses say of a message: whose it is, what became of it, and what it costs."""

import uuid
from datetime import UTC, datetime

import msgspec
import pytest

from replyline.channels import CHANNELS
from replyline.statuses import Pricing
from tests.channels.graph import account_at, change, envelope


def test_a_status_finds_our_message_by_the_id_that_we_sent_along() -> None:
    ours = uuid.uuid4()
    status = {"id": "wamid.B", "status": "delivered", "timestamp": "1764000001", "biz_opaque_callback_data": str(ours)}
    raw = msgspec.json.encode(envelope(change(statuses=[status])))
    (update,) = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw).statuses
    assert (update.external_id, update.message_id, update.status) == ("wamid.B", ours, "DELIVERED")
    assert update.at == datetime.fromtimestamp(1764000001, UTC)


@pytest.mark.parametrize(
    ("said", "means"),
    [("sent", "SENT"), ("delivered", "DELIVERED"), ("read", "READ"), ("played", "READ"), ("failed", "FAILED")],
)
def test_every_status_word_is_known(said: str, means: str) -> None:
    raw = msgspec.json.encode(envelope(change(statuses=[{"id": "wamid.B", "status": said, "timestamp": "1764000001"}])))
    assert [status.status for status in CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw).statuses] == [means]


def test_a_failed_status_says_why_in_our_words() -> None:
    error = {"code": 131047, "title": "Re-engagement message", "message": "m", "error_data": {"details": "d"}}
    status = {"id": "wamid.B", "status": "failed", "timestamp": "1764000001", "errors": [error]}
    raw = msgspec.json.encode(envelope(change(statuses=[status])))
    (update,) = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw).statuses
    assert (update.error_reason, update.error_code, update.error_title, update.error_detail) == (
        "window_closed",
        131047,
        "Re-engagement message",
        "131047: Re-engagement message: d",
    )
    assert not update.channel_down


@pytest.mark.parametrize("errors", [None, [], [None], [{"code": "x"}], "none"])
def test_a_failed_status_with_an_unreadable_error_still_fails_the_message(errors: object) -> None:
    status = {"id": "wamid.B", "status": "failed", "timestamp": 1764000001, "errors": errors}
    raw = msgspec.json.encode(envelope(change(statuses=[status])))
    (update,) = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw).statuses
    assert (update.status, update.error_reason) == ("FAILED", None)


def test_a_status_brings_what_it_costs_and_whether_the_channel_is_down() -> None:
    pricing = {"billable": True, "pricing_model": "PMP", "type": "regular", "category": "service"}
    sent = {"id": "wamid.B", "status": "sent", "timestamp": "1764000001", "pricing": pricing}
    failed = {"id": "wamid.C", "status": "failed", "timestamp": "1764000001", "errors": [{"code": 131042}]}
    raw = msgspec.json.encode(envelope(change(statuses=[sent, failed])))
    first, second = CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw).statuses
    assert (first.pricing, first.channel_down) == (Pricing("service", "regular"), False)
    assert (second.error_reason, second.channel_down) == ("payment_problem", True)


def test_a_status_of_another_programs_message_is_ignored() -> None:
    status = {"id": "wamid.B", "status": "sent", "timestamp": "1", "biz_opaque_callback_data": "order-17"}
    raw = msgspec.json.encode(envelope(change(statuses=[status])))
    assert CHANNELS["WHATSAPP_CLOUD"].parse(account_at(), raw).ignored == 1

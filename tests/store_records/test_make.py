"""What tests make is whole: every kind of record, with what its kind needs."""

import pytest

from replyline.jobs import ChannelKind
from replyline.store import channels
from replyline.store.database import Database
from tests.make import (
    CLOUD_SECRETS,
    QR_SECRETS,
    VAULT,
    make_api_key,
    make_channel,
    make_chatbot,
    make_customer,
    make_document,
    make_webhook_endpoint,
)


@pytest.mark.parametrize(
    ("kind", "secrets"),
    [("WIDGET", {"visitor_secret"}), ("WHATSAPP_CLOUD", set(CLOUD_SECRETS)), ("WHATSAPP_QR", set(QR_SECRETS))],
)
async def test_a_made_channel_has_the_secrets_of_its_kind(
    database: Database, kind: ChannelKind, secrets: set[str]
) -> None:
    customer = await make_customer(database)
    made = await make_channel(database, await make_chatbot(database, customer.id), kind)
    found = await channels.find_by_key(database, made.channel_key)
    assert found is not None
    assert found.id == made.id
    assert set(found.open_secrets(VAULT)) == secrets


async def test_a_made_chatbot_does_not_wait(database: Database) -> None:
    customer = await make_customer(database, monthly_price=100)
    chatbot = await make_chatbot(database, customer.id)
    assert (customer.plan, customer.priority) == ("PREMIUM", 1)
    assert chatbot.quiet_window_whatsapp_s == chatbot.quiet_window_widget_s == 0
    await make_document(database, chatbot)
    assert (await make_api_key(database, customer.id)).startswith("rk_")
    assert (await make_webhook_endpoint(database, customer.id)).enabled

"""Channels: what each kind needs, and that its secrets stay sealed."""

import pytest

from replyline.store import channels
from replyline.store.channel_forms import ChannelRefused, ChannelTaken
from replyline.store.database import Database
from replyline.vault import UnreadableSecret, Vault
from tests.make import CLOUD_SECRETS, VAULT, make_channel, make_chatbot, make_customer


async def test_secrets_are_sealed_at_rest_and_not_shown(database: Database) -> None:
    customer = await make_customer(database)
    made = await make_channel(database, await make_chatbot(database, customer.id), "WHATSAPP_CLOUD")
    async with database.connection() as connection:
        row = await connection.fetchval("SELECT c::text FROM channels c")
    for secret in CLOUD_SECRETS.values():
        assert secret not in row
        assert secret not in repr(made)
    assert made.open_secrets(VAULT) == CLOUD_SECRETS


async def test_a_secret_is_replaced_without_touching_the_others(database: Database) -> None:
    customer = await make_customer(database)
    made = await make_channel(database, await make_chatbot(database, customer.id), "WHATSAPP_CLOUD")
    await channels.update(
        database, VAULT, made.id, customer_id=customer.id, changes={"secrets": {"access_token": "rotated"}}
    )
    found = await channels.find(database, made.id)
    assert found is not None
    assert found.open_secrets(VAULT) == {**CLOUD_SECRETS, "access_token": "rotated"}


async def test_a_name_is_changed_although_the_secrets_cannot_be_opened(database: Database) -> None:
    customer = await make_customer(database)
    made = await make_channel(database, await make_chatbot(database, customer.id), "WHATSAPP_CLOUD")
    stranger = Vault.from_setting(f"other:{Vault.new_key()}")
    changed = await channels.update(database, stranger, made.id, customer_id=customer.id, changes={"name": "renamed"})
    assert changed is not None
    assert (changed.name, changed.open_secrets(VAULT)) == ("renamed", CLOUD_SECRETS)
    with pytest.raises(UnreadableSecret):
        await channels.update(
            database, stranger, made.id, customer_id=customer.id, changes={"secrets": {"access_token": "x"}}
        )


async def test_a_change_cannot_take_away_what_the_kind_needs(database: Database) -> None:
    customer = await make_customer(database)
    made = await make_channel(database, await make_chatbot(database, customer.id), "WHATSAPP_QR")
    with pytest.raises(ChannelRefused, match="WHATSAPP_QR needs gateway_url"):
        await channels.update(database, VAULT, made.id, customer_id=customer.id, changes={"config": {}})
    with pytest.raises(ChannelRefused, match="WHATSAPP_QR needs secret"):
        await channels.update(database, VAULT, made.id, customer_id=customer.id, changes={"secrets": {"secret": ""}})
    assert await channels.find(database, made.id) == made


async def test_one_account_is_one_channel(database: Database) -> None:
    chatbot = await make_chatbot(database, (await make_customer(database)).id)
    other = await make_chatbot(database, (await make_customer(database)).id)
    await make_channel(database, chatbot, "WHATSAPP_CLOUD", external_id="106540352242922")
    with pytest.raises(ChannelTaken):
        await make_channel(database, other, "WHATSAPP_CLOUD", external_id="106540352242922")
    await make_channel(database, other, "WHATSAPP_QR", external_id="106540352242922")


async def test_a_widget_is_found_by_its_site_key_and_nothing_else_is(database: Database) -> None:
    chatbot = await make_chatbot(database, (await make_customer(database)).id)
    widget = await make_channel(database, chatbot, "WIDGET")
    cloud = await make_channel(database, chatbot, "WHATSAPP_CLOUD")
    assert await channels.find_widget(database, widget.external_id) == widget
    assert await channels.find_widget(database, cloud.external_id) is None
    assert await channels.find_widget(database, widget.channel_key) is None

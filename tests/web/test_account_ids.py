"""Numbers, sessions and site keys: nobody can make a channel speak or listen as another customer's account."""

import pytest

from replyline.standins import Standins
from replyline.store import channels
from replyline.store.channel_forms import ChannelRefused
from replyline.store.channels import Channel
from replyline.store.chatbots import Chatbot
from replyline.store.database import Database
from tests.make import CLOUD_SECRETS, QR_SECRETS, VAULT, make_api_key, make_channel, make_chatbot, make_customer
from tests.web.conftest import Answer, Door

NUMBER = "106540352242922"
OTHER = "106540352242923"


@pytest.fixture
async def chatbot(database: Database) -> Chatbot:
    return await make_chatbot(database, (await make_customer(database)).id)


@pytest.fixture
async def key(database: Database, chatbot: Chatbot) -> str:
    return await make_api_key(database, chatbot.customer_id)


async def _configure(door: Door, standins: Standins, numbers: dict[str, dict[str, str]]) -> None:
    url = f"{standins.urls['whatsapp_cloud']}/_configure"
    async with door.http.post(url, json={"numbers": numbers}) as response:
        assert response.status == 200


async def _claim(door: Door, key: str, chatbot: Chatbot, standins: Standins, *, token: str, number: str) -> Answer:
    body = {
        "chatbotId": str(chatbot.id),
        "kind": "WHATSAPP_CLOUD",
        "name": "Number",
        "externalId": number,
        "config": {"graph_base": standins.urls["whatsapp_cloud"]},
        "secrets": {**CLOUD_SECRETS, "access_token": token},
    }
    return await door.call("POST", "/v1/channels", key=key, json=body)


async def test_a_customer_connects_a_number_that_its_token_may_read(
    door: Door, key: str, chatbot: Chatbot, standins: Standins
) -> None:
    await _configure(door, standins, {NUMBER: {"access_token": "mine"}})
    made = await _claim(door, key, chatbot, standins, token="mine", number=NUMBER)
    assert (made.status, made.json["externalId"]) == (201, NUMBER)


async def test_a_number_cannot_be_claimed_by_who_has_no_token_for_it(
    door: Door, database: Database, key: str, chatbot: Chatbot, standins: Standins
) -> None:
    await _configure(door, standins, {NUMBER: {"access_token": "theirs"}, OTHER: {"access_token": "mine"}})
    for token in ("mine", "invented"):
        refused = await _claim(door, key, chatbot, standins, token=token, number=NUMBER)
        assert refused.problem == (422, "number_not_confirmed")
    owner = await make_chatbot(database, (await make_customer(database)).id)
    owners_key = await make_api_key(database, owner.customer_id)
    assert (await _claim(door, owners_key, owner, standins, token="theirs", number=NUMBER)).status == 201


async def test_a_number_is_not_claimed_while_meta_does_not_answer(
    door: Door, key: str, chatbot: Chatbot, database: Database
) -> None:
    body = {
        "chatbotId": str(chatbot.id),
        "kind": "WHATSAPP_CLOUD",
        "name": "Number",
        "externalId": NUMBER,
        "config": {"graph_base": "http://127.0.0.1:9"},
        "secrets": CLOUD_SECRETS,
    }
    refused = await door.call("POST", "/v1/channels", key=key, json=body)
    assert refused.problem == (502, "number_not_confirmed")
    assert await channels.list_page(database, customer_id=chatbot.customer_id) == []


@pytest.mark.parametrize(
    "number", [f"./{NUMBER}", f"{NUMBER}/messages", f"{NUMBER}?x=", "1065 40352242922", "..", "٠١٢٣٤٥٦"]
)
async def test_a_number_that_is_more_than_a_number_is_refused_even_from_the_operator(
    door: Door, chatbot: Chatbot, number: str
) -> None:
    path = f"/v1/channels?customerId={chatbot.customer_id}"
    body = {"chatbotId": str(chatbot.id), "kind": "WHATSAPP_CLOUD", "name": "x", "externalId": number}
    assert (await door.operator("POST", path, json={**body, "secrets": CLOUD_SECRETS})).problem == (422, "refused")


async def test_the_operators_token_cannot_be_turned_to_another_number(
    door: Door, database: Database, key: str, chatbot: Chatbot, standins: Standins
) -> None:
    """Failed before: a customer could change the number that the operator's token spoke for."""
    await _configure(door, standins, {NUMBER: {"access_token": "cloud-token"}, OTHER: {"access_token": "cloud-token"}})
    config = {"graph_base": standins.urls["whatsapp_cloud"]}
    made = await make_channel(database, chatbot, "WHATSAPP_CLOUD", external_id=NUMBER, config=config)
    path = f"/v1/channels/{made.id}"
    for external_id, problem in (
        (OTHER, (403, "token_missing")),
        (f"./{OTHER}", (422, "refused")),
        (f"{OTHER}/../{NUMBER}", (422, "refused")),
    ):
        changes = {"externalId": external_id, "secrets": {"app_secret": "x" * 32}}
        assert (await door.call("PATCH", path, key=key, json=changes)).problem == problem
    assert await _external_id(database, made) == NUMBER
    own_token = {"externalId": OTHER, "secrets": {"access_token": "invented"}}
    assert (await door.call("PATCH", path, key=key, json=own_token)).problem == (422, "number_not_confirmed")
    assert (
        await door.operator("PATCH", f"{path}?customerId={chatbot.customer_id}", json={"externalId": OTHER})
    ).status == 200
    assert await _external_id(database, made) == OTHER


async def _external_id(database: Database, channel: Channel) -> str:
    found = await channels.find(database, channel.id)
    assert found is not None
    return found.external_id


async def test_a_session_is_named_here_and_never_changes(
    door: Door, database: Database, key: str, chatbot: Chatbot
) -> None:
    """Failed before: a customer could name the session of another one, and so have its paired telephone."""
    body = {
        "chatbotId": str(chatbot.id),
        "kind": "WHATSAPP_QR",
        "name": "Telephone",
        "config": {"gateway_url": "http://127.0.0.1:9"},
        "secrets": QR_SECRETS,
    }
    named = await door.call("POST", "/v1/channels", key=key, json={**body, "externalId": "session-of-another"})
    assert named.problem == (403, "operator_only")
    one, two = [await door.call("POST", "/v1/channels", key=key, json=body) for _ in range(2)]
    assert one.status == two.status == 201
    assert one.json["externalId"] != two.json["externalId"]
    assert len(str(one.json["externalId"])) >= 32
    changed = await door.call(
        "PATCH", f"/v1/channels/{one.json['id']}", key=key, json={"externalId": "session-of-another"}
    )
    assert changed.problem == (422, "refused")
    path = f"/v1/channels/{one.json['id']}?customerId={chatbot.customer_id}"
    assert (await door.operator("PATCH", path, json={"externalId": "another"})).problem == (422, "refused")


async def test_a_site_key_is_made_here_and_never_changes(
    door: Door, database: Database, key: str, chatbot: Chatbot
) -> None:
    """Failed before: the site key of a deleted widget could be claimed, and its pages got a stranger's bot."""
    gone = await make_channel(database, chatbot, "WIDGET")
    await channels.delete(database, gone.id, customer_id=chatbot.customer_id)
    body = {"chatbotId": str(chatbot.id), "kind": "WIDGET", "name": "x"}
    claimed = await door.call("POST", "/v1/channels", key=key, json={**body, "externalId": gone.external_id})
    assert claimed.problem == (422, "refused")
    own = await door.call("POST", "/v1/channels", key=key, json=body)
    changed = await door.call("PATCH", f"/v1/channels/{own.json['id']}", key=key, json={"externalId": gone.external_id})
    assert changed.problem == (422, "refused")
    with pytest.raises(ChannelRefused, match="made here"):
        await make_channel(database, chatbot, "WIDGET", external_id=gone.external_id)


async def test_a_short_signing_secret_is_refused(database: Database, chatbot: Chatbot) -> None:
    with pytest.raises(ChannelRefused, match="app_secret must have at least 32"):
        await make_channel(database, chatbot, "WHATSAPP_CLOUD", secrets={"app_secret": "x"})
    made = await make_channel(database, chatbot, "WHATSAPP_QR")
    with pytest.raises(ChannelRefused, match="secret must have at least 32"):
        await channels.update(
            database, VAULT, made.id, customer_id=chatbot.customer_id, changes={"secrets": {"secret": "x"}}
        )

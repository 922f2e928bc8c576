"""What a customer and the operator keep through the API: made, listed, shown, changed and deleted."""

import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from replyline.store.customers import Customer
from replyline.store.database import Database
from tests.make import CLOUD_SECRETS, QR_SECRETS, VAULT, make_api_key, make_chatbot, make_customer
from tests.store.scene import make_scene
from tests.web.conftest import Door, Serve


@pytest.fixture
async def customer(database: Database) -> Customer:
    return await make_customer(database)


@pytest.fixture
async def key(database: Database, customer: Customer) -> str:
    return await make_api_key(database, customer.id)


async def test_the_operator_keeps_customers(door: Door) -> None:
    made = await door.operator("POST", "/v1/customers", json={"name": "Bakery", "monthlyPrice": 49.99})
    assert (made.status, made.json["plan"], made.json["priority"]) == (201, "BASIC", 5)
    path = f"/v1/customers/{made.json['id']}"
    changed = await door.operator("PATCH", path, json={"monthlyPrice": "100"})
    assert (changed.status, changed.json["plan"], changed.json["name"]) == (200, "PREMIUM", "Bakery")
    assert (await door.operator("GET", path)).json == changed.json
    assert [entry["id"] for entry in (await door.operator("GET", "/v1/customers")).entries] == [made.json["id"]]
    assert (await door.operator("DELETE", path)).status == 204
    for method in ("GET", "DELETE"):
        assert (await door.operator(method, path)).problem == (404, "not_found")
    (deletion,) = (await door.operator("GET", "/v1/customer-deletions")).entries
    assert (deletion["customerId"], deletion["name"]) == (made.json["id"], "Bakery")
    assert deletion["finishedAt"] is not None


@pytest.mark.parametrize("price", [-1, "99.999", "NaN", "1e12", "Infinity", "ten"])
async def test_a_price_that_is_none_is_refused(door: Door, price: object) -> None:
    answer = await door.operator("POST", "/v1/customers", json={"name": "Bakery", "monthlyPrice": price})
    assert answer.problem == (422, "invalid")


async def test_a_customer_sees_itself_and_cannot_change_its_price(door: Door, customer: Customer, key: str) -> None:
    path = f"/v1/customers/{customer.id}"
    assert [entry["id"] for entry in (await door.call("GET", "/v1/customers", key=key)).entries] == [str(customer.id)]
    assert (await door.call("GET", path, key=key)).json["name"] == customer.name
    changed = await door.call("PATCH", path, key=key, json={"monthlyPrice": 1000})
    assert changed.problem == (403, "operator_only")
    assert (await door.call("DELETE", path, key=key)).problem == (403, "operator_only")
    assert (await door.call("POST", "/v1/customers", key=key, json={"name": "x"})).problem == (403, "operator_only")


async def test_without_an_admin_key_there_is_no_operator(serve: Serve) -> None:
    async with serve(admin_key=None) as door:
        for key in ("", "None", None):
            assert (await door.call("GET", "/v1/customers", key=key)).problem == (401, "unauthorized")


async def test_a_new_key_works_and_a_revoked_one_does_not(serve: Serve, customer: Customer, key: str) -> None:
    async with serve() as door:
        made = await door.call("POST", "/v1/api-keys", key=key, json={"name": "second"})
        second = str(made.json["key"])
        assert made.status == 201
        assert [entry["name"] for entry in (await door.call("GET", "/v1/api-keys", key=second)).entries] == [
            "server",
            "second",
        ]
        assert (await door.call("DELETE", f"/v1/api-keys/{made.json['id']}", key=key)).status == 204
    async with serve() as door:  # another process, which has not seen the key of late
        assert (await door.call("GET", "/v1/api-keys", key=second)).problem == (401, "unauthorized")


async def test_a_chatbot_is_made_changed_and_deleted(door: Door, key: str) -> None:
    made = await door.call("POST", "/v1/chatbots", key=key, json={"name": "Bot", "instructions": "Be kind."})
    assert (made.status, made.json["provider"], made.json["hasProviderKey"]) == (201, "knowledge_only", False)
    path = f"/v1/chatbots/{made.json['id']}"
    changes = {"providerKey": "sk-very-secret", "model": "m-1", "quietWindowWidgetS": 0, "contextMessages": 3}
    changed = await door.call("PATCH", path, key=key, json=changes)
    assert (changed.status, changed.json["hasProviderKey"], changed.json["model"]) == (200, True, "m-1")
    assert (changed.json["quietWindowWidgetS"], changed.json["instructions"]) == (0, "Be kind.")
    cleared = await door.call("PATCH", path, key=key, json={"providerKey": None, "model": None})
    assert (cleared.json["hasProviderKey"], cleared.json["model"], cleared.json["contextMessages"]) == (False, None, 3)
    assert (await door.call("GET", path, key=key)).json == cleared.json
    assert (await door.call("DELETE", path, key=key)).status == 204
    assert (await door.call("GET", "/v1/chatbots", key=key)).entries == []


@pytest.mark.parametrize(
    "change",
    [{"name": None}, {"name": ""}, {"provider": "none"}, {"quietWindowMaxS": 301}, {"contextChars": -1}, {"nmae": "x"}],
)
async def test_a_chatbot_that_cannot_be_is_refused(door: Door, key: str, change: dict[str, object]) -> None:
    made = await door.call("POST", "/v1/chatbots", key=key, json={"name": "Bot"})
    path = f"/v1/chatbots/{made.json['id']}"
    assert (await door.call("PATCH", path, key=key, json=change)).problem == (422, "invalid")
    assert (await door.call("GET", path, key=key)).json == made.json


@pytest.mark.parametrize(
    ("kind", "external_id", "config", "secrets", "path"),
    [
        ("WIDGET", None, {}, {}, None),
        ("WHATSAPP_CLOUD", "106540352242922", {}, CLOUD_SECRETS, "/callbacks/whatsapp-cloud/"),
        ("WHATSAPP_QR", "shop", {"gateway_url": "http://127.0.0.1:9"}, QR_SECRETS, "/callbacks/whatsapp-qr/"),
    ],
)
async def test_a_channel_of_each_kind_is_connected(
    *,
    door: Door,
    key: str,
    customer: Customer,
    kind: str,
    external_id: str | None,
    config: dict[str, str],
    secrets: dict[str, str],
    path: str | None,
) -> None:
    bot = await door.call("POST", "/v1/chatbots", key=key, json={"name": "Bot"})
    body: dict[str, object] = {
        "chatbotId": bot.json["id"],
        "kind": kind,
        "name": "c",
        "config": config,
        "secrets": secrets,
    }
    post = f"/v1/channels?customerId={customer.id}"
    if kind == "WHATSAPP_CLOUD":
        assert (await door.operator("POST", post, json=body)).problem == (422, "refused")
    if external_id is not None:
        body["externalId"] = external_id
    made = await door.operator("POST", post, json=body)
    assert (made.status, made.json["hasSecrets"], made.json["config"]) == (201, True, config)
    assert made.json["callbackPath"] == (path and f"{path}{made.json['channelKey']}")
    if external_id is not None:
        assert made.json["externalId"] == external_id
        assert (await door.operator("POST", post, json=body)).problem == (409, "taken")
    one = f"/v1/channels/{made.json['id']}"
    off = await door.call("PATCH", one, key=key, json={"enabled": False, "name": "renamed"})
    assert (off.json["enabled"], off.json["name"], off.json["config"]) == (False, "renamed", config)
    assert (await door.call("GET", f"/v1/channels?chatbotId={bot.json['id']}", key=key)).entries == [off.json]
    assert (await door.call("DELETE", one, key=key)).status == 204
    assert (await door.call("GET", one, key=key)).problem == (404, "not_found")


async def test_what_a_channel_lacks_is_named(door: Door, key: str) -> None:
    bot = await door.call("POST", "/v1/chatbots", key=key, json={"name": "Bot"})
    body = {"chatbotId": bot.json["id"], "kind": "WHATSAPP_CLOUD", "name": "c", "externalId": "106540352242922"}
    answer = await door.call("POST", "/v1/channels", key=key, json={**body, "secrets": {"app_secret": "a" * 32}})
    assert answer.problem == (422, "refused")
    assert answer.json["detail"] == "WHATSAPP_CLOUD needs access_token, verify_token"
    unknown = await door.call("POST", "/v1/channels", key=key, json={**body, "config": {"colour": "red"}})
    assert "no config colour" in str(unknown.json["detail"])


async def test_an_address_that_our_servers_call_is_for_the_operator_to_set(
    serve: Serve, customer: Customer, key: str
) -> None:
    async with serve(webhook_allow_private=False) as door:
        body = {"name": "Bot", "providerBaseUrl": "http://127.0.0.1:6379/v1"}
        assert (await door.call("POST", "/v1/chatbots", key=key, json=body)).problem == (403, "operator_only")
        made = await door.operator("POST", f"/v1/chatbots?customerId={customer.id}", json=body)
        assert (made.status, made.json["customerId"]) == (201, str(customer.id))
        change = {"providerBaseUrl": "https://models.example/v1"}
        path = f"/v1/chatbots/{made.json['id']}"
        assert (await door.call("PATCH", path, key=key, json=change)).problem == (403, "operator_only")
        channel = {
            "chatbotId": made.json["id"],
            "kind": "WHATSAPP_CLOUD",
            "name": "c",
            "externalId": "106540352242922",
            "secrets": CLOUD_SECRETS,
            "config": {"graph_base": "http://127.0.0.1:6379"},
        }
        assert (await door.call("POST", "/v1/channels", key=key, json=channel)).problem == (403, "operator_only")
        own = await door.operator("POST", f"/v1/channels?customerId={customer.id}", json={**channel, "config": {}})
        assert own.status == 201
        moved = await door.call("PATCH", f"/v1/channels/{own.json['id']}", key=key, json={"config": channel["config"]})
        assert moved.problem == (403, "operator_only")


@pytest.mark.parametrize("url", ["ftp://x", "no url", "http://user:pw@x/", "http://", "javascript:alert(1)"])
async def test_an_address_that_is_none_is_refused(door: Door, key: str, url: str) -> None:
    answer = await door.call("POST", "/v1/chatbots", key=key, json={"name": "Bot", "providerBaseUrl": url})
    assert answer.problem == (422, "invalid")
    hook = await door.call("POST", "/v1/webhook-endpoints", key=key, json={"url": url})
    assert hook.problem == (422, "invalid")


async def test_knowledge_is_added_shown_and_deleted(
    door: Door, database: Database, customer: Customer, key: str
) -> None:
    bot = await make_chatbot(database, customer.id)
    body = {"chatbotId": str(bot.id), "title": "Hours", "content": "We open at 7 am.\n\nWe close at 6 pm."}
    made = await door.call("POST", "/v1/knowledge", key=key, json=body)
    assert (made.status, made.json["chunks"], made.json["chars"]) == (201, 1, 35)
    assert (await door.call("POST", "/v1/knowledge", key=key, json=body)).problem == (409, "taken")
    one = f"/v1/knowledge/{made.json['id']}"
    assert (await door.call("GET", one, key=key)).json == {**made.json, "content": body["content"]}
    assert (await door.call("GET", f"/v1/knowledge?chatbotId={bot.id}", key=key)).entries == [made.json]
    assert (await door.call("DELETE", one, key=key)).status == 204
    assert (await door.call("DELETE", one, key=key)).problem == (404, "not_found")


async def test_a_webhook_endpoint_shows_its_secret_once(door: Door, database: Database, key: str) -> None:
    made = await door.call("POST", "/v1/webhook-endpoints", key=key, json={"url": "http://127.0.0.1:9/h"})
    secret = str(made.json.pop("secret"))
    assert made.status == 201
    assert secret.startswith("whsec_")
    async with database.connection() as connection:
        sealed = await connection.fetchval("SELECT secret_sealed FROM webhook_endpoints")
    assert VAULT.open(sealed) == secret
    one = f"/v1/webhook-endpoints/{made.json['id']}"
    changed = await door.call("PATCH", one, key=key, json={"enabled": False, "events": ["message.sent"]})
    assert (changed.json["enabled"], changed.json["events"]) == (False, ["message.sent"])
    assert (await door.call("GET", one, key=key)).json == changed.json
    assert (await door.call("PATCH", one, key=key, json={"events": ["no.event"]})).problem == (422, "invalid")
    assert (await door.call("PATCH", one, key=key, json={"events": []})).problem == (422, "invalid")
    assert (await door.call("DELETE", one, key=key)).status == 204


async def test_a_customer_has_at_most_twenty_endpoints(door: Door, key: str) -> None:
    """Failed before: a thousand could be made, and one message went to all of them."""
    body = {"url": "http://127.0.0.1:9/h"}
    made = await asyncio.gather(*(door.call("POST", "/v1/webhook-endpoints", key=key, json=body) for _ in range(24)))
    assert sorted(answer.status for answer in made) == [201] * 20 + [422] * 4
    listed = await door.call("GET", "/v1/webhook-endpoints", key=key)
    assert len(listed.entries) == 20


async def test_a_rotated_secret_replaces_the_old_one(door: Door, database: Database, key: str) -> None:
    made = await door.call("POST", "/v1/webhook-endpoints", key=key, json={"url": "http://127.0.0.1:9/h"})
    rotated = await door.call("POST", f"/v1/webhook-endpoints/{made.json['id']}/rotate-secret", key=key)
    assert (rotated.status, rotated.json["secret"] != made.json["secret"]) == (200, True)
    async with database.connection() as connection:
        sealed = await connection.fetchval("SELECT secret_sealed FROM webhook_endpoints")
    assert VAULT.open(sealed) == rotated.json["secret"]


async def test_usage_is_summed_by_day_and_kind(door: Door, database: Database) -> None:
    scene = await make_scene(database, "WIDGET")
    await scene.say("Are you open?", "Yes.")
    await scene.route()
    key = await make_api_key(database, scene.customer.id)
    answer = await door.call("GET", "/v1/usage", key=key)
    sums = {str(row["kind"]): row for row in answer.entries}
    assert {kind: row["count"] for kind, row in sums.items()} == {
        "message_received": 1,
        "ai_answer": 1,
        "message_sent": 1,
    }
    answered = sums["ai_answer"]
    assert (answered["provider"], answered["model"], answered["day"]) == (
        "test",
        "test-1",
        str(datetime.now(UTC).date()),
    )
    assert (answered["inputTokens"], answered["outputTokens"], answered["unmeasured"]) == (10, 20, 0)
    only = await door.call("GET", "/v1/usage?kind=message_sent", key=key)
    assert [row["kind"] for row in only.entries] == ["message_sent"]
    assert (await door.call("GET", "/v1/usage?since=2026-01-02&until=2026-01-01", key=key)).problem == (422, "invalid")
    past = await door.call("GET", "/v1/usage?since=2025-01-01&until=2025-01-31", key=key)
    assert past.json == {"since": "2025-01-01", "until": "2025-01-31", "data": []}


async def test_the_operator_must_name_a_customer_that_exists(door: Door, customer: Customer) -> None:
    body: dict[str, object] = {"name": "Bot"}
    assert (await door.operator("POST", "/v1/chatbots", json=body)).problem == (422, "customer_missing")
    nobody = {**body, "customerId": str(uuid.uuid4())}
    for path in ("/v1/chatbots", "/v1/api-keys"):
        assert (await door.operator("POST", path, json=nobody)).problem == (404, "not_found")
    made = await door.operator("POST", "/v1/chatbots", json={**body, "customerId": str(customer.id)})
    assert (made.status, made.json["customerId"]) == (201, str(customer.id))

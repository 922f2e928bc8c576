"""No customer sees, changes or deletes what is another's, and cannot even tell that it is there."""

import uuid

import pytest

from replyline.store.database import Database
from tests.make import CLOUD_SECRETS, make_api_key, make_customer
from tests.web.conftest import Door
from tests.web.everything import CHANGES, NOTHING_TO_SHOW, OPERATORS, Everything, make_everything, of_customer, routes

_TABLES = (
    "customers", "api_keys", "chatbots", "channels", "conversations", "messages", "knowledge_documents", "webhook_endpoints",
    "webhook_events", "jobs",
)  # fmt: skip


@pytest.fixture
async def owner(database: Database) -> Everything:
    return await make_everything(database)


@pytest.fixture
async def stranger(database: Database, owner: Everything) -> str:
    return await make_api_key(database, (await make_customer(database, name="A stranger")).id)


async def _contents(owner: Everything) -> list[object]:
    return [
        # When a key was last used is written whoever asks for what.
        await owner.scene.value(
            f"SELECT md5(string_agg((to_jsonb(t) - 'last_used_at')::text, ',' ORDER BY id)) FROM {table} t"  # noqa: S608
        )
        for table in _TABLES
    ]


async def test_by_id_everything_of_another_customer_looks_as_if_it_were_not_there(
    door: Door, owner: Everything, stranger: str
) -> None:
    before = await _contents(owner)
    tried = [(method, path) for method, path in await routes(door) if "{" in path]
    assert len(tried) > 20
    for method, path in tried:
        name = path.partition("{")[2].partition("}")[0]
        body = CHANGES.get(path) if method != "GET" else None
        assert body is not None or method != "PATCH", path
        real = path.replace(f"{{{name}}}", str(owner.ids[name]))
        missing = path.replace(f"{{{name}}}", str(uuid.uuid4()))
        for query in {"", await of_customer(door, method, path, owner.scene.customer.id)}:
            answer = await door.call(method, real + query, key=stranger, json=body)
            assert answer.problem[0] == 404, (method, path, answer.body)
            if not query:
                assert answer.body == (await door.call(method, missing, key=stranger, json=body)).body
    assert await _contents(owner) == before


async def test_the_owner_reads_by_id_what_the_stranger_could_not(door: Door, owner: Everything) -> None:
    for method, path in await routes(door):
        if method == "GET" and "{" in path:
            name = path.partition("{")[2].partition("}")[0]
            answer = await door.call("GET", path.replace(f"{{{name}}}", str(owner.ids[name])), key=owner.api_key)
            assert answer.status == (409 if path in NOTHING_TO_SHOW else 200), (path, answer.body)


async def test_lists_hold_nothing_of_another_customer(door: Door, owner: Everything, stranger: str) -> None:
    listed = [path for method, path in await routes(door) if method == "GET" and "{" not in path]
    assert len(listed) > 8
    for path in listed:
        query = await of_customer(door, "GET", path, owner.scene.customer.id)
        named = await door.call("GET", path + query, key=stranger)
        if path == "/v1/customers":
            assert [entry["name"] for entry in named.entries] == ["A stranger"]
            continue
        if path in OPERATORS:
            assert named.problem == (403, "operator_only")
            continue
        assert query, path
        assert named.problem == (404, "not_found"), path
        own = await door.call("GET", path, key=stranger)
        theirs = await door.call("GET", path, key=owner.api_key)
        assert (own.status, theirs.status) == (200, 200)
        assert len(theirs.entries) > 0, path
        assert len(own.entries) == (1 if path in {"/v1/api-keys", "/v1/audit-events"} else 0), path


async def test_filters_do_not_reach_into_another_customer(door: Door, owner: Everything, stranger: str) -> None:
    ids = owner.ids
    for path in (
        f"/v1/messages?conversationId={ids['conversation_id']}",
        f"/v1/conversations?chatbotId={ids['chatbot_id']}",
        f"/v1/channels?chatbotId={ids['chatbot_id']}",
        f"/v1/knowledge?chatbotId={ids['chatbot_id']}",
        f"/v1/webhook-events?endpointId={ids['endpoint_id']}",
    ):
        assert (await door.call("GET", path, key=owner.api_key)).entries, path
        assert (await door.call("GET", path, key=stranger)).entries == [], path


async def test_nothing_can_be_attached_to_what_is_another_customers(
    door: Door, owner: Everything, stranger: str
) -> None:
    before = await _contents(owner)
    chatbot, channel = str(owner.ids["chatbot_id"]), str(owner.ids["channel_id"])
    bodies: dict[str, dict[str, object]] = {
        "/v1/messages": {
            "chatbotId": chatbot,
            "channelId": channel,
            "externalUserId": "x",
            "content": "x",
            "channel": "WHATSAPP_CLOUD",
        },
        "/v1/channels": {
            "chatbotId": chatbot,
            "kind": "WHATSAPP_CLOUD",
            "name": "x",
            "externalId": "106540352242922",
            "secrets": CLOUD_SECRETS,
        },
        "/v1/knowledge": {"chatbotId": chatbot, "title": "x", "content": "x"},
        "/v1/chatbots": {"name": "x", "customerId": str(owner.scene.customer.id)},
        "/v1/api-keys": {"name": "x", "customerId": str(owner.scene.customer.id)},
        "/v1/webhook-endpoints": {"url": "http://127.0.0.1:9/x", "customerId": str(owner.scene.customer.id)},
    }
    for path, body in bodies.items():
        answer = await door.call("POST", path, key=stranger, json=body)
        assert answer.problem[0] == 404, (path, answer.body)
    assert await _contents(owner) == before


async def test_a_channel_cannot_be_moved_to_another_customers_chatbot(
    door: Door, owner: Everything, stranger: str
) -> None:
    bot = await door.call("POST", "/v1/chatbots", key=stranger, json={"name": "mine"})
    widget = await door.call(
        "POST", "/v1/channels", key=stranger, json={"chatbotId": bot.json["id"], "kind": "WIDGET", "name": "mine"}
    )
    moved = await door.call(
        "PATCH",
        f"/v1/channels/{widget.json['id']}",
        key=stranger,
        json={"chatbotId": str(owner.ids["chatbot_id"])},
    )
    assert moved.problem == (404, "not_found")


async def test_the_queues_are_for_the_operator(door: Door, stranger: str) -> None:
    for method, path in (
        ("GET", "/v1/queues"),
        ("GET", "/v1/queues/ai-processing"),
        ("POST", "/v1/queues/ai-processing/pause"),
        ("POST", "/v1/queues/ai-processing/resume"),
        ("GET", "/v1/jobs/external"),
        ("POST", f"/v1/jobs/{uuid.uuid4()}/again"),
    ):
        assert (await door.call(method, path, key=stranger)).problem == (403, "operator_only")
        assert (await door.call(method, path)).problem == (401, "unauthorized")
    assert (await door.operator("GET", "/v1/queues/ai-processing")).json["paused"] is False


async def test_nothing_of_the_api_is_there_without_a_key(door: Door, owner: Everything) -> None:
    for method, path in await routes(door):
        name = path.partition("{")[2].partition("}")[0]
        real = path.replace(f"{{{name}}}", str(owner.ids[name])) if name else path
        body: dict[str, object] = {
            "name": "x",
            "url": "http://x.example",
            "chatbotId": str(owner.ids["chatbot_id"]),
            "kind": "WIDGET",
            "title": "x",
            "content": "x",
        }
        answer = await door.call(method, real, json=body if method in {"POST", "PATCH", "PUT"} else None)
        assert answer.problem[0] in {401, 422}, (method, path, answer.body)
        assert answer.status == 401 or method in {"POST", "PATCH", "PUT"}, (method, path)

"""Secrets go in and never come out: not in records, not in lists, not in errors."""

import pytest

from replyline.store.database import Database
from tests.make import CLOUD_SECRETS, WEBHOOK_SECRET
from tests.web.conftest import ADMIN_KEY, Door
from tests.web.everything import (
    NOTHING_TO_SHOW,
    OPERATORS,
    PROVIDER_KEY,
    Everything,
    make_everything,
    of_customer,
    routes,
)


@pytest.fixture
async def owner(database: Database) -> Everything:
    return await make_everything(database)


async def test_no_answer_contains_a_secret_sealed_or_not(door: Door, owner: Everything) -> None:
    sealed = await owner.scene.fetch(
        "SELECT provider_key_sealed AS token FROM chatbots UNION SELECT secrets_sealed FROM channels "
        "UNION SELECT secret_sealed FROM webhook_endpoints"
    )
    hashes = await owner.scene.fetch("SELECT encode(key_hash, 'hex') AS token FROM api_keys")
    secrets = {PROVIDER_KEY, WEBHOOK_SECRET, ADMIN_KEY, owner.api_key, *CLOUD_SECRETS.values()}
    secrets |= {row["token"] for row in (*sealed, *hashes)}
    assert len(secrets) == 4 + len(CLOUD_SECRETS) + 4
    seen = 0
    for method, path in await routes(door):
        if method != "GET":
            continue
        name = path.partition("{")[2].partition("}")[0]
        real = path.replace(f"{{{name}}}", str(owner.ids[name])) if name else path
        named = await of_customer(door, "GET", path, owner.scene.customer.id)
        for key, query in ((owner.api_key, ""), (ADMIN_KEY, named)):
            answer = await door.call("GET", real + query, key=key)
            if path in OPERATORS and key != ADMIN_KEY:
                assert answer.problem == (403, "operator_only")
            else:
                assert answer.status == (409 if path in NOTHING_TO_SHOW else 200), (path, answer.body)
            text = answer.body.decode()
            assert not [secret for secret in secrets if secret in text], path
            seen += 1
    assert seen > 30


async def test_what_is_refused_is_not_repeated(door: Door, owner: Everything) -> None:
    path = f"/v1/chatbots/{owner.ids['chatbot_id']}"
    for body in ({"providerKey": "sk-" + "x" * 4000}, {"providerKey": {"deep": "sk-inside"}}, {"sk-as-a-name": 1}):
        answer = await door.call("PATCH", path, key=owner.api_key, json=body)
        assert answer.problem == (422, "invalid")
        assert b"sk-inside" not in answer.body
        assert b"x" * 100 not in answer.body
    channel = {"secrets": {"app_secret": ["sk-in-a-list"]}}
    answer = await door.call("PATCH", f"/v1/channels/{owner.ids['channel_id']}", key=owner.api_key, json=channel)
    assert answer.problem == (422, "invalid")
    assert b"sk-in-a-list" not in answer.body


async def test_personal_text_is_left_out_of_dead_letters(door: Door, owner: Everything) -> None:
    accepted = await owner.scene.accept("My card is 4111 1111 1111 1111", sender="4917012345678")
    await owner.scene.value("UPDATE jobs SET state = 'DEAD', reason = 'crashed' WHERE id = $1", accepted.job_id)
    answer = await door.call("GET", f"/v1/dead-letters/{accepted.job_id}", key=owner.api_key)
    assert (answer.status, answer.json["reason"]) == (200, "crashed")
    assert b"4111" not in answer.body
    assert b"4917012345678" not in answer.body
    payload = answer.json["payload"]
    assert isinstance(payload, dict)
    assert (payload["content"], payload["chatbotId"]) == ("[30 characters]", str(owner.ids["chatbot_id"]))


async def test_every_answer_forbids_being_kept_or_guessed(door: Door, owner: Everything) -> None:
    for answer in (await door.call("GET", "/v1/chatbots", key=owner.api_key), await door.call("GET", "/nowhere")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"

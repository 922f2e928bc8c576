"""API keys: all are listed, a bounded number works, when each was last used, and who made and revoked them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from replyline.store import api_keys, audit
from replyline.store.customers import Customer
from replyline.store.database import Database
from tests.make import make_api_key, make_customer
from tests.waiting import until
from tests.web.conftest import Door


@pytest.fixture
async def customer(database: Database) -> Customer:
    return await make_customer(database)


async def test_every_key_is_on_some_page(door: Door, database: Database, customer: Customer) -> None:
    key = await make_api_key(database, customer.id)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO api_keys (id, customer_id, name, key_prefix, key_hash, revoked_at) "
            "SELECT gen_random_uuid(), $1, 'n' || n, 'rk_', sha256(n::text::bytea), now() FROM generate_series(1, 204) n",
            customer.id,
        )
    seen: list[object] = []
    path = "/v1/api-keys?limit=100"
    sizes = []
    while path:
        answer = await door.call("GET", path, key=key)
        sizes.append(len(answer.entries))
        seen += [entry["id"] for entry in answer.entries]
        path = f"/v1/api-keys?limit=100&cursor={answer.json['next']}" if answer.json["next"] else ""
    assert (sizes, len(set(seen))) == ([100, 100, 5], 205)


async def test_a_customer_has_at_most_a_hundred_live_keys(door: Door, database: Database, customer: Customer) -> None:
    key = await make_api_key(database, customer.id)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO api_keys (id, customer_id, name, key_prefix, key_hash) "
            "SELECT gen_random_uuid(), $1, 'n', 'rk_', sha256(n::text::bytea) FROM generate_series(1, 97) n",
            customer.id,
        )
    answers = await asyncio.gather(
        *(door.call("POST", "/v1/api-keys", key=key, json={"name": "one more"}) for _ in range(4))
    )
    assert sorted(answer.status for answer in answers) == [201, 201, 409, 409]
    refused = next(answer for answer in answers if answer.status == 409)
    assert refused.problem == (409, "too_many_keys")
    assert "100 live keys" in str(refused.json["detail"])
    made = next(answer for answer in answers if answer.status == 201)
    assert (await door.call("DELETE", f"/v1/api-keys/{made.json['id']}", key=key)).status == 204
    assert (await door.call("POST", "/v1/api-keys", key=key, json={"name": "instead"})).status == 201


async def test_when_a_key_was_last_used_is_shown_and_written_once_a_minute(
    door: Door, database: Database, customer: Customer
) -> None:
    key = await make_api_key(database, customer.id)
    await make_api_key(database, customer.id, name="never used")

    async def last_used() -> list[object]:
        answer = await door.call("GET", "/v1/api-keys", key=key)
        return [entry["lastUsedAt"] for entry in answer.entries]

    assert await last_used() == [None, None], "a request does not wait for the note of itself"

    async def noted() -> bool:
        return (await last_used())[0] is not None

    await until(noted, what="the use to be noted")
    first, never = await last_used()
    assert abs(datetime.fromisoformat(str(first)) - datetime.now(UTC)) < timedelta(minutes=1)
    assert never is None
    used = await api_keys.list_page(database, customer_id=customer.id)
    await api_keys.note_use(database, [used[0].id])
    assert (await api_keys.list_page(database, customer_id=customer.id))[0] == used[0]


async def test_who_made_and_revoked_a_key_is_known_also_when_the_customer_is_gone(
    door: Door, customer: Customer
) -> None:
    made = await door.operator("POST", "/v1/api-keys", json={"name": "first", "customerId": str(customer.id)})
    key = str(made.json["key"])
    second = await door.call("POST", "/v1/api-keys", key=key, json={"name": "second"})
    assert (await door.call("DELETE", f"/v1/api-keys/{second.json['id']}", key=key)).status == 204
    assert (await door.call("DELETE", f"/v1/api-keys/{second.json['id']}", key=key)).status == 404
    by_key = f"api-key {made.json['id']}"
    expected = [
        (by_key, "api_key.revoked", "second", second.json["id"]),
        (by_key, "api_key.created", "second", second.json["id"]),
        ("operator", "api_key.created", "first", made.json["id"]),
    ]
    shown = (await door.call("GET", "/v1/audit-events", key=key)).entries
    assert [(one["actor"], one["action"], one["subjectName"], one["subjectId"]) for one in shown] == expected
    page = await door.call("GET", "/v1/audit-events?limit=2", key=key)
    rest = await door.call("GET", f"/v1/audit-events?limit=2&cursor={page.json['next']}", key=key)
    assert page.entries + rest.entries == shown
    assert (await door.operator("DELETE", f"/v1/customers/{customer.id}")).status == 204
    assert (await door.operator("GET", f"/v1/audit-events?customerId={customer.id}")).entries == shown


async def test_what_is_refused_leaves_no_trace_in_the_trail(database: Database, customer: Customer) -> None:
    made = await api_keys.create(database, customer_id=customer.id, name="one")
    assert made is not None
    stranger = await make_customer(database)
    assert not await api_keys.revoke(database, made[0].id, customer_id=stranger.id)
    assert [event.action for event in await audit.list_page(database, customer_id=None)] == ["api_key.created"]


async def test_old_events_and_keys_revoked_long_ago_are_cleared_away(database: Database, customer: Customer) -> None:
    for name in ("live", "revoked lately", "revoked long ago"):
        made = await api_keys.create(database, customer_id=customer.id, name=name)
        assert made is not None
        if name != "live":
            await api_keys.revoke(database, made[0].id, customer_id=customer.id)
    async with database.transaction() as connection:
        await connection.execute(
            "UPDATE api_keys SET created_at = '2020-01-01', revoked_at = '2020-02-01' WHERE name = 'revoked long ago'"
        )
        await connection.execute(
            "UPDATE audit_events SET created_at = '2020-01-01' WHERE subject_name = 'revoked long ago'"
        )
        assert await api_keys.purge(connection, keep_s=86_400) == 1
        assert await audit.purge(connection, keep_s=86_400) == 2
    left = await api_keys.list_page(database, customer_id=customer.id)
    assert [key.name for key in left] == ["live", "revoked lately"]
    assert len(await audit.list_page(database, customer_id=customer.id)) == 3

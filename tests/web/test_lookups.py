"""What the door remembers: how old it may be, and what a change of this or another process does to it."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from replyline.store import api_keys, channels, customer_deletions, customers
from replyline.store.channels import Channel
from replyline.store.database import Database
from replyline.store.recently import TTL_S, Changes, Recently
from tests.make import VAULT, make_api_key, make_channel
from tests.store.scene import Scene
from tests.waiting import until
from tests.web.conftest import Answer, Door
from tests.web.page import make_site, open_page
from tests.web.signed import cloud_body, cloud_text, post_cloud

Call = Callable[[], Awaitable[Answer]]


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database)


@pytest.fixture
async def cloud(scene: Scene, database: Database) -> Channel:
    return await make_channel(database, scene.chatbot, "WHATSAPP_CLOUD")


def _by_api(door: Door, scene: Scene, key: str) -> Call:
    """Hands in a message more each time."""
    body = {
        "chatbotId": str(scene.chatbot.id),
        "channel": "WHATSAPP_CLOUD",
        "externalUserId": "a person",
        "content": "Hello",
    }
    return lambda: door.call("POST", "/v1/messages", key=key, json=body)


def _by_callback(door: Door, channel: Channel) -> Call:
    return lambda: post_cloud(door, channel, cloud_body(channel, [cloud_text(f"wamid.{time.monotonic_ns()}")]))


async def _refused(call: Call, *, since: float) -> Answer:
    """The first answer that is a refusal; nothing that was sent later than the bound was accepted."""
    answers: list[Answer] = []

    async def is_refused() -> bool:
        sent = time.monotonic()
        answers.append(await call())
        if answers[-1].status < 300:
            assert sent - since <= TTL_S, "accepted later than the bound allows"
            return False
        return True

    await until(is_refused, what="a refusal")
    return answers[-1]


async def test_a_key_that_another_process_revokes_is_refused_within_the_bound(
    door: Door, scene: Scene, cloud: Channel, database: Database
) -> None:
    made = await api_keys.create(database, customer_id=scene.customer.id, name="server")
    assert made is not None
    call = _by_api(door, scene, made[1])
    assert (await call()).status == 202
    await api_keys.revoke(database, made[0].id, customer_id=scene.customer.id)
    assert (await _refused(call, since=time.monotonic())).problem == (401, "unauthorized")


async def test_a_channel_that_another_process_disables_takes_no_message_by_api_beyond_the_bound(
    door: Door, scene: Scene, cloud: Channel, database: Database
) -> None:
    call = _by_api(door, scene, await make_api_key(database, scene.customer.id))
    assert (await call()).status == 202
    await channels.update(database, VAULT, cloud.id, customer_id=scene.customer.id, changes={"enabled": False})
    assert (await _refused(call, since=time.monotonic())).problem == (404, "unknown_channel")


async def test_a_channel_that_another_process_disables_takes_no_callback_beyond_the_bound(
    door: Door, scene: Scene, cloud: Channel, database: Database
) -> None:
    call = _by_callback(door, cloud)
    assert (await call()).status == 200
    await channels.update(database, VAULT, cloud.id, customer_id=scene.customer.id, changes={"enabled": False})
    assert (await _refused(call, since=time.monotonic())).problem == (404, "not_found")


async def test_nothing_is_kept_for_a_customer_whom_another_process_has_deleted(
    door: Door, scene: Scene, cloud: Channel, database: Database
) -> None:
    page = await open_page(door, scene.channel)
    calls: dict[str, Call] = {
        "api": _by_api(door, scene, await make_api_key(database, scene.customer.id)),
        "callback": _by_callback(door, cloud),
        "widget": lambda: page.write("Hello"),
    }
    for call in calls.values():
        assert (await call()).status in {200, 202}
    assert await customers.delete(database, customer_id=scene.customer.id)

    async def is_gone() -> bool:
        await customer_deletions.go_on(database, customer_id=scene.customer.id, for_s=5)
        return (await customer_deletions.list_newest(database))[0].finished_at is not None

    await until(is_gone, what="the end of the deletion")
    for name, call in calls.items():
        answer = await call()  # at once: what is remembered is still believed, and Postgres refuses it
        assert answer.status in {401, 404}, (name, answer.json)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM all_jobs") == 0


async def test_what_this_process_changes_counts_at_once(
    door: Door, scene: Scene, cloud: Channel, database: Database
) -> None:
    made = await api_keys.create(database, customer_id=scene.customer.id, name="server")
    assert made is not None
    by_api, by_callback = _by_api(door, scene, made[1]), _by_callback(door, cloud)
    assert ((await by_api()).status, (await by_callback()).status) == (202, 200)
    path = f"?customerId={scene.customer.id}"
    assert (await door.operator("PATCH", f"/v1/channels/{cloud.id}{path}", json={"enabled": False})).status == 200
    assert ((await by_api()).status, (await by_callback()).status) == (404, 404)
    assert (await door.operator("PATCH", f"/v1/channels/{cloud.id}{path}", json={"enabled": True})).status == 200
    assert ((await by_api()).status, (await by_callback()).status) == (202, 200)
    assert (await door.operator("DELETE", f"/v1/api-keys/{made[0].id}{path}")).status == 204
    assert (await by_api()).problem == (401, "unauthorized")


async def test_a_message_asks_postgres_nothing_that_was_asked_a_moment_ago(
    door: Door, scene: Scene, cloud: Channel, database: Database
) -> None:
    """Its lookups' tables are locked; only the move that keeps it is let through."""
    key = await make_api_key(database, scene.customer.id)
    by_api, by_callback = _by_api(door, scene, key), _by_callback(door, cloud)

    async def both() -> list[int]:
        return [(await by_api()).status, (await by_callback()).status]

    async def are_kept_without_a_lookup() -> bool:
        assert await both() == [202, 200]  # remembered from now on
        async with database.transaction() as connection:
            await connection.execute("LOCK TABLE api_keys, channels, chatbots IN ACCESS EXCLUSIVE MODE")
            return await both() == [202, 200]

    await until(are_kept_without_a_lookup, what="messages that need no lookup")


async def test_an_unknown_key_is_looked_for_once_until_it_is_old(door: Door) -> None:
    body = {"content": "Hello"}

    async def is_refused_without_a_lookup() -> bool:
        first = await door.call("POST", "/v1/messages", key="rk_unknown", json=body)
        assert first.problem == (401, "unauthorized")
        async with door.app.database.transaction() as connection:
            await connection.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
            return (await door.call("POST", "/v1/messages", key="rk_unknown", json=body)).status == 401

    await until(is_refused_without_a_lookup, what="a refusal that needs no lookup")


async def test_a_flood_of_unknown_names_takes_no_memory_and_displaces_nothing(database: Database) -> None:
    recently: Recently[int, int] = Recently(most=100, ttl_s=60)
    found = 0

    async def find(number: int) -> int | None:
        nonlocal found
        found += number == -1
        return 1 if number == -1 else None

    for number in range(5000):
        assert await recently.get(number, lambda number=number: find(number)) is None  # type: ignore[misc]
        assert await recently.get(-1, lambda: find(-1)) == 1
    assert (len(recently), found) == (101, 1)


async def test_what_was_read_before_a_change_is_not_believed_after_it() -> None:
    changes = Changes()
    recently: Recently[str, str] = Recently(changes=changes)
    reading, may_end = asyncio.Event(), asyncio.Event()

    async def read_slowly() -> str:
        reading.set()
        await may_end.wait()
        return "old"

    async def read() -> str:
        return "new"

    first = asyncio.create_task(recently.get("name", read_slowly))
    await reading.wait()
    changes.note()
    may_end.set()
    assert await first == "old"  # it asked before
    assert await recently.get("name", read) == "new"

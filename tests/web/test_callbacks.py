"""The door for channels: what is kept, what is refused, and that nothing is kept of what is refused."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from replyline.store import unread
from replyline.store.channels import Channel, update
from replyline.store.database import Database
from tests.make import CLOUD_SECRETS, VAULT, make_channel, make_chatbot, make_customer
from tests.proxy import FaultProxy
from tests.store.scene import make_scene
from tests.web.conftest import Door, Serve, free_port
from tests.web.signed import cloud_body, cloud_text, post_cloud, post_qr, qr_body


@pytest.fixture
async def cloud(database: Database) -> Channel:
    customer = await make_customer(database, monthly_price=100)
    return await make_channel(database, await make_chatbot(database, customer.id), "WHATSAPP_CLOUD")


@pytest.fixture
async def qr(database: Database) -> Channel:
    customer = await make_customer(database)
    return await make_channel(database, await make_chatbot(database, customer.id), "WHATSAPP_QR")


def counted(**counts: int) -> dict[str, int]:
    """What the door answers: these, and nothing else."""
    names = ("accepted", "duplicates", "statuses", "sessions", "notices", "unread", "ignored", "foreign")
    return {name: counts.get(name, 0) for name in names}


async def _payloads(database: Database) -> list[dict[str, object]]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT payload::text AS payload FROM all_jobs ORDER BY id")
    return [msgspec.json.decode(row["payload"], type=dict[str, object]) for row in rows]


async def test_every_message_of_a_batch_is_a_job_of_its_own_in_their_order(
    door: Door, cloud: Channel, database: Database
) -> None:
    body = cloud_body(cloud, [cloud_text(f"wamid.{n}", f"message {n}") for n in range(5)])
    answer = await post_cloud(door, cloud, body)
    assert (answer.status, answer.json) == (200, counted(accepted=5))
    payloads = await _payloads(database)
    assert [payload["content"] for payload in payloads] == [f"message {n}" for n in range(5)]
    assert {payload["customerId"] for payload in payloads} == {str(cloud.customer_id)}
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT priority, dedupe_key FROM all_jobs ORDER BY id LIMIT 1")
    assert row is not None
    assert (row["priority"], row["dedupe_key"]) == (1, f"{cloud.id}:wamid.0")


async def test_half_an_emoji_costs_neither_its_message_nor_its_neighbours(
    door: Door, cloud: Channel, qr: Channel, database: Database
) -> None:
    body = cloud_body(
        cloud, [cloud_text("wamid.A", "one"), cloud_text("wamid.B", "HERE"), cloud_text("wamid.C", "three")]
    )
    answer = await post_cloud(door, cloud, body.replace(b"HERE", rb"two \ud83d"))
    assert (answer.status, answer.json) == (200, counted(accepted=3))
    answer = await post_qr(door, qr, qr_body(qr, "3EB0", "HERE", name="Ana").replace(b"HERE", rb"four \ude00"))
    assert (answer.status, answer.json["accepted"]) == (200, 1)
    assert [payload["content"] for payload in await _payloads(database)] == [
        "one",
        "two \ufffd",
        "three",
        "four \ufffd",
    ]


async def test_a_callback_repeated_five_times_at_once_is_stored_once(
    door: Door, cloud: Channel, database: Database
) -> None:
    body = cloud_body(cloud, [cloud_text("wamid.A")])
    answers = await asyncio.gather(*(post_cloud(door, cloud, body) for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert sorted(str(answer.json["accepted"]) for answer in answers) == ["0", "0", "0", "0", "1"]
    assert len(await _payloads(database)) == 1


async def test_a_qr_message_is_kept(door: Door, qr: Channel, database: Database) -> None:
    answer = await post_qr(door, qr, qr_body(qr, "3EB0", "Hallo", name="Ana"))
    assert (answer.status, answer.json["accepted"]) == (200, 1)
    (payload,) = await _payloads(database)
    assert (payload["content"], payload["contactName"], payload["channel"]) == ("Hallo", "Ana", "WHATSAPP_QR")
    assert (await post_qr(door, qr, qr_body(qr, "3EB0"))).json["duplicates"] == 1


@pytest.mark.parametrize("secret", ["another-secret", "qr-callback-secret-of-32-characters"])
async def test_a_callback_signed_with_another_secret_is_refused_and_not_kept(
    door: Door, cloud: Channel, database: Database, secret: str
) -> None:
    answer = await post_cloud(door, cloud, cloud_body(cloud, [cloud_text("wamid.A")]), secret=secret)
    assert answer.problem == (401, "forged")
    assert await _payloads(database) == []


async def test_an_unsigned_callback_is_refused(door: Door, cloud: Channel, database: Database) -> None:
    answer = await door.call(
        "POST", f"/callbacks/whatsapp-cloud/{cloud.channel_key}", data=cloud_body(cloud, [cloud_text("wamid.A")])
    )
    assert answer.problem == (401, "forged")
    assert await _payloads(database) == []


@pytest.mark.parametrize("body", [b"", b"[]", b'{"object":', b"\xff\xfe", b'{"object": 5}'])
async def test_a_signed_body_that_is_no_callback_is_kept_for_a_human_and_not_sent_again(
    door: Door, cloud: Channel, database: Database, body: bytes
) -> None:
    answer = await post_cloud(door, cloud, body)
    assert (answer.status, answer.json) == (200, counted(unread=1))
    (kept,) = await unread.list_page(database, customer_id=cloud.customer_id, channel_id=cloud.id)
    assert kept.body.encode(errors="replace")[:8] == body.decode(errors="replace").encode()[:8]


async def test_a_channel_nobody_has_is_not_found(door: Door, cloud: Channel, qr: Channel) -> None:
    for path in (
        "/callbacks/whatsapp-cloud/none",
        "/callbacks/whatsapp-cloud/%00",
        f"/callbacks/whatsapp-cloud/{qr.channel_key}",
        f"/callbacks/whatsapp-qr/{cloud.channel_key}",
    ):
        assert (await door.call("POST", path, data=b"{}")).problem == (404, "not_found")


async def test_a_disabled_channel_is_not_found(door: Door, cloud: Channel, database: Database) -> None:
    await update(database, VAULT, cloud.id, customer_id=cloud.customer_id, changes={"enabled": False})
    answer = await post_cloud(door, cloud, cloud_body(cloud, [cloud_text("wamid.A")]))
    assert answer.problem == (404, "not_found")
    assert await _payloads(database) == []


async def test_a_body_over_the_limit_is_refused_announced_or_not(
    serve: Serve, cloud: Channel, database: Database
) -> None:
    path = f"/callbacks/whatsapp-cloud/{cloud.channel_key}"

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 500

    async with serve(max_body_bytes=1000) as door:
        assert (await door.call("POST", path, data=b"x" * 1001)).problem == (413, "too_large")
        async with door.http.post(f"{door.url}{path}", data=unannounced()) as response:
            assert response.status == 413
            assert response.content_type == "application/problem+json"
        assert (await post_cloud(door, cloud, cloud_body(cloud))).status == 200
    assert await _payloads(database) == []


async def test_text_that_postgres_cannot_keep_does_not_hold_up_its_batch(
    door: Door, cloud: Channel, database: Database
) -> None:
    body = cloud_body(cloud, [cloud_text("wamid.A", "a\0b"), cloud_text("wamid.B", "c")])
    assert (await post_cloud(door, cloud, body)).json["accepted"] == 2
    assert [payload["content"] for payload in await _payloads(database)] == ["ab", "c"]


async def test_a_message_that_no_worker_could_read_is_left_out(door: Door, qr: Channel, database: Database) -> None:
    answer = await post_qr(door, qr, qr_body(qr, "x" * 600))
    assert (answer.status, answer.json) == (200, counted(unread=1))
    assert await _payloads(database) == []


async def test_a_time_beyond_every_calendar_is_not_kept(door: Door, qr: Channel, database: Database) -> None:
    assert (await post_qr(door, qr, qr_body(qr, "3EB0", timestamp=1e300))).json["accepted"] == 1
    (payload,) = await _payloads(database)
    assert "providerTimestamp" not in payload


async def test_a_status_of_a_message_that_is_not_ours_is_taken_and_changes_nothing(door: Door, cloud: Channel) -> None:
    status: dict[str, object] = {"id": "wamid.X", "status": "delivered", "timestamp": "1764000000"}
    answer = await post_cloud(door, cloud, cloud_body(cloud, statuses=[status]))
    assert (answer.status, answer.json) == (200, counted(statuses=1))


async def test_a_status_lifts_our_message_once_and_never_down(door: Door, database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_CLOUD")
    await scene.say("Are you open?", "From 7 am.")
    await scene.route()
    await scene.send("wamid.1")
    for status, reached in (("delivered", "DELIVERED"), ("sent", "DELIVERED"), ("read", "READ"), ("failed", "READ")):
        said: dict[str, object] = {"id": "wamid.1", "status": status, "timestamp": "1764000000"}
        answer = await post_cloud(door, scene.channel, cloud_body(scene.channel, statuses=[said, said]))
        assert (answer.status, answer.json["statuses"]) == (200, 2)
        assert await scene.outbound() == [("From 7 am.", reached)]


async def test_a_status_of_another_customers_message_changes_nothing(
    door: Door, cloud: Channel, database: Database
) -> None:
    scene = await make_scene(database, "WHATSAPP_CLOUD")
    await scene.say("Are you open?", "From 7 am.")
    await scene.route()
    await scene.send("wamid.1")
    ours = str(await scene.value("SELECT id FROM messages WHERE direction = 'OUTBOUND'"))
    forged: dict[str, object] = {"id": "wamid.1", "status": "failed", "timestamp": "1764000000"}
    for status in (forged, {**forged, "biz_opaque_callback_data": ours}):
        assert (await post_cloud(door, cloud, cloud_body(cloud, statuses=[status]))).status == 200
    assert await scene.outbound() == [("From 7 am.", "SENT")]


async def test_a_full_callback_of_a_thousand_messages_is_kept_in_order(
    door: Door, cloud: Channel, database: Database
) -> None:
    body = cloud_body(cloud, [cloud_text(f"wamid.{n}", str(n), sender=str(n % 7)) for n in range(1000)])
    assert (await post_cloud(door, cloud, body)).json["accepted"] == 1000
    senders: dict[object, list[int]] = {}
    for payload in await _payloads(database):
        senders.setdefault(payload["externalUserId"], []).append(int(str(payload["content"])))
    assert sum(map(len, senders.values())) == 1000
    assert all(numbers == sorted(numbers) for numbers in senders.values())


async def test_what_is_said_of_another_number_counts_only_if_its_own_secret_signed_it(
    door: Door, cloud: Channel, database: Database
) -> None:
    chatbot = await make_chatbot(database, cloud.customer_id)
    sister = await make_channel(database, chatbot, "WHATSAPP_CLOUD")
    stranger = await make_channel(
        database,
        await make_chatbot(database, (await make_customer(database)).id),
        "WHATSAPP_CLOUD",
        secrets={"app_secret": "its-own-secret-of-32-characters-"},
    )
    bodies = [cloud_body(each, [cloud_text(f"wamid.{n}", str(n))]) for n, each in enumerate((cloud, sister, stranger))]
    entries = [entry for body in bodies for entry in msgspec.json.decode(body)["entry"]]
    answer = await post_cloud(
        door, cloud, msgspec.json.encode({"object": "whatsapp_business_account", "entry": entries})
    )
    assert (answer.status, answer.json) == (200, counted(accepted=2, foreign=1))
    payloads = await _payloads(database)
    assert {(payload["channelId"], payload["content"]) for payload in payloads} == {
        (str(cloud.id), "0"),
        (str(sister.id), "1"),
    }


async def test_the_handshake_answers_the_challenge_of_the_right_token_only(door: Door, cloud: Channel) -> None:
    path = (
        f"/callbacks/whatsapp-cloud/{cloud.channel_key}?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
    )
    right = await door.call("GET", path + CLOUD_SECRETS["verify_token"])
    assert (right.status, right.body) == (200, b"1158201444")
    assert right.headers["content-type"].startswith("text/plain")
    assert (await door.call("GET", f"{path}wrong")).problem == (403, "forged")


async def test_redis_away_does_not_matter_at_the_door(serve: Serve, cloud: Channel, database: Database) -> None:
    async with serve(redis_url=f"redis://127.0.0.1:{free_port()}/0") as door:
        answer = await post_cloud(door, cloud, cloud_body(cloud, [cloud_text("wamid.A")]))
    assert (answer.status, answer.json["accepted"]) == (200, 1)
    async with database.connection() as connection:
        assert (
            await connection.fetchval("SELECT state FROM all_jobs WHERE dedupe_key = $1", f"{cloud.id}:wamid.A")
            == "WAITING"
        )


async def test_postgres_away_asks_the_sender_to_come_again(
    serve: Serve, cloud: Channel, database: Database, database_url: str
) -> None:
    async with FaultProxy(database_url) as proxy, serve(database_url=proxy.url()) as door:
        assert (await post_cloud(door, cloud, cloud_body(cloud, [cloud_text("wamid.A")]))).status == 200
        proxy.refuse()
        await proxy.cut()
        answer = await post_cloud(door, cloud, cloud_body(cloud, [cloud_text("wamid.B")]))
        assert answer.problem == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "1"
    assert len(await _payloads(database)) == 1


async def test_the_door_counts_what_became_of_callbacks(door: Door, cloud: Channel) -> None:
    await post_cloud(door, cloud, cloud_body(cloud, [cloud_text("wamid.A")]))
    await post_cloud(door, cloud, cloud_body(cloud, [cloud_text("wamid.A")]), secret="another")
    metrics = (await door.call("GET", "/metrics")).body.decode()
    assert 'replyline_callbacks_total{channel="WHATSAPP_CLOUD",outcome="accepted"}' in metrics
    assert 'replyline_callbacks_total{channel="WHATSAPP_CLOUD",outcome="forged"}' in metrics

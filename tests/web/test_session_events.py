"""What a gateway says of its session counts once, however often it is said."""

import hashlib
import hmac
import time

import msgspec
import pytest

from replyline.store.channels import Channel
from replyline.store.database import Database
from replyline.store.sweep import purge_callbacks
from tests.make import QR_SECRETS, make_channel, make_chatbot, make_customer
from tests.web.conftest import Door, Serve
from tests.web.signed import post_qr


@pytest.fixture
async def qr(database: Database) -> Channel:
    customer = await make_customer(database)
    return await make_channel(database, await make_chatbot(database, customer.id), "WHATSAPP_QR")


def _event(channel: Channel, event_id: str, state: str) -> bytes:
    event = {"id": event_id, "type": "session", "session": channel.external_id, "ts": 1, "data": {"state": state}}
    return msgspec.json.encode(event)


async def _health(database: Database) -> object:
    async with database.connection() as connection:
        return await connection.fetchval("SELECT health FROM channels")


async def test_a_recorded_event_of_a_session_cannot_be_said_again(door: Door, qr: Channel, database: Database) -> None:
    """Failed before: for 25 hours whoever had seen one could heal or halt the channel with it."""
    body = _event(qr, "evt_open", "open")
    stamp = str(int(time.time()) - 3600)
    digest = hmac.new(QR_SECRETS["secret"].encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    headers = {"X-Gateway-Timestamp": stamp, "X-Gateway-Signature": f"v1={digest}"}
    path = f"/callbacks/whatsapp-qr/{qr.channel_key}"
    first = await door.call("POST", path, data=body, headers=headers)
    assert (first.status, first.json["sessions"], first.json["duplicates"]) == (200, 1, 0)
    assert (await post_qr(door, qr, _event(qr, "evt_out", "logged_out"))).status == 200
    assert await _health(database) == "UNHEALTHY"
    again = await door.call("POST", path, data=body, headers=headers)
    assert (again.status, again.json["sessions"], again.json["duplicates"]) == (200, 0, 1)
    assert await _health(database) == "UNHEALTHY"
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT session ->> 'state' FROM channels") == "logged_out"
    assert (await post_qr(door, qr, _event(qr, "evt_open_again", "open"))).status == 200
    assert await _health(database) == "HEALTHY"


async def test_an_event_that_could_not_be_acted_on_counts_when_it_comes_again(
    serve: Serve, qr: Channel, database: Database
) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "CREATE FUNCTION refuse_health() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE lock_not_available; END $$"
        )
        await connection.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE OF health ON channels FOR EACH ROW EXECUTE FUNCTION refuse_health()"
        )
    body = _event(qr, "evt_out", "logged_out")
    async with serve() as door:
        assert (await post_qr(door, qr, body)).status >= 500
        async with database.connection() as connection:
            await connection.execute("DROP TRIGGER refuse ON channels; DROP FUNCTION refuse_health")
        assert (await post_qr(door, qr, body)).json["sessions"] == 1
    assert await _health(database) == "UNHEALTHY"


async def test_events_are_remembered_for_longer_than_their_signature_is_good(
    door: Door, qr: Channel, database: Database
) -> None:
    for event_id in ("evt_1", "evt_2"):
        await post_qr(door, qr, _event(qr, event_id, "open"))
    async with database.transaction() as connection:
        for event_id, hours in (("evt_1", 25), ("evt_2", 27)):
            await connection.execute(
                "UPDATE session_events SET taken_at = now() - make_interval(hours => $2) WHERE event_id = $1",
                event_id,
                hours,
            )
        assert await purge_callbacks(connection, parked_s=1, unread_s=1) == 1
        assert [row["event_id"] for row in await connection.fetch("SELECT event_id FROM session_events")] == ["evt_1"]

"""The catalogue of webhook events: what each means, and a sample like what the pipeline writes."""

from datetime import UTC, datetime
from typing import Literal

import msgspec
import pytest
from msgspec import Raw

from replyline.channels.fields import Fields
from replyline.channels.whatsapp_cloud.account import notice_in
from replyline.jobs import Identity
from replyline.notices import Preference
from replyline.statuses import StatusUpdate
from replyline.store.database import Database
from replyline.store.moves.notices import NoticedAccount, take_notices, take_preference
from replyline.store.moves.statuses import ReportedStatus
from replyline.store.outbox import Outbox
from replyline.webhooks import EVENTS, sample
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, make_scene


def test_every_event_has_a_meaning_and_a_sample_of_its_own_type() -> None:
    for name, meaning in EVENTS.items():
        assert meaning
        assert sample(name)["type"] == name
    with pytest.raises(KeyError):
        sample("message.forgotten")


async def test_the_samples_have_the_fields_that_the_pipeline_writes(database: Database) -> None:
    scene = await make_scene(database)
    await make_webhook_endpoint(database, scene.customer.id)
    await scene.say("q1", "a1")
    await scene.route()
    await scene.send("wamid.1")
    for status in ("DELIVERED", "READ"):
        await scene.moves.apply_status(_reported(scene, "wamid.1", status))
    await scene.say("q2", "a2")
    await scene.route()
    await scene.fail_send()
    await scene.fall_ill("token_invalid")
    await scene.get_well()
    await _noticed(scene)
    rows = await scene.fetch("SELECT type, payload::text AS payload FROM webhook_events ORDER BY id")
    written = {row["type"]: msgspec.json.decode(row["payload"]) for row in rows}
    assert set(written) == set(EVENTS)
    for name, event in written.items():
        assert _shape(event) == _shape(sample(name)), name


async def _noticed(scene: Scene) -> None:
    """Meta says everything of the account that it may say."""
    business, value = msgspec.json.encode({"id": "1", "time": 1}), Raw(b'{"event": "REJECTED"}')
    fields = ("phone_number_quality_update", "message_template_status_update", "account_update")
    notices = [notice_in(field, Fields(business), value, fallback_template=None) for field in fields]
    wish = Preference((Identity("wa_id", "1650"),), opted_out=True, at=1764000000.0)
    account = NoticedAccount(scene.channel.id, scene.customer.id, probe_first_s=60)
    outbox = Outbox()
    async with scene.database.transaction() as connection:
        assert len(await take_notices(connection, account, [one for one in notices if one], outbox)) == len(fields)
        await take_preference(connection, scene.channel.id, wish, customer_id=scene.customer.id, outbox=outbox)


def _reported(scene: Scene, external_id: str, status: Literal["DELIVERED", "READ"]) -> ReportedStatus:
    update = StatusUpdate(external_id, status, datetime.now(UTC))
    return ReportedStatus(scene.channel.id, scene.customer.id, update)


def _shape(event: dict[str, object]) -> dict[str, object]:
    """The names in an event and the status it tells of."""
    data = event["data"]
    assert isinstance(data, dict)
    return {
        "top": sorted(event),
        "data": sorted(data),
        "status": data.get("status"),
        "direction": data.get("direction"),
    }

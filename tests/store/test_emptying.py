"""Deleting what much hangs on: closed at once, emptied in batches by as many calls as that takes, and nothing else touched."""

import pytest

from replyline.store.database import Database, StoreBusy
from replyline.store.emptying import BATCH, Kind, delete_in_batches
from tests.make import make_document, make_webhook_endpoint
from tests.store.scene import Scene, make_scene

_MANY = """
INSERT INTO messages (id, customer_id, conversation_id, channel_id, seq, direction, role, status, content, trace_id)
SELECT gen_random_uuid(), customer_id, id, channel_id, 1000 + n, 'INBOUND', 'user', 'RECEIVED', 'x', gen_random_uuid()
FROM conversations, generate_series(1, $2) n WHERE customer_id = $1
"""
_EVENTS = """
INSERT INTO webhook_events (id, customer_id, endpoint_id, type, payload)
SELECT gen_random_uuid(), customer_id, id, 'message.received', '{}' FROM webhook_endpoints, generate_series(1, $2) n
WHERE customer_id = $1
"""
_HANGING = {
    "channel": ("channels", "conversations", "messages", "contacts", "contact_identities"),
    "chatbot": (
        *("chatbots", "channels", "conversations", "messages", "contacts", "contact_identities"),
        *("knowledge_documents", "knowledge_chunks"),
    ),
    "endpoint": ("webhook_endpoints", "webhook_events"),
}


async def _settled(database: Database) -> Scene:
    scene = await make_scene(database)
    await make_document(database, scene.chatbot)
    await make_webhook_endpoint(database, scene.customer.id)
    for sender in ("ana", "bob"):
        await scene.hear("question", sender=sender)
    await scene.fetch(_MANY, scene.customer.id, BATCH + 10)
    await scene.fetch(_EVENTS, scene.customer.id, BATCH + 10)
    return scene


async def _counts(scene: Scene, kind: Kind) -> dict[str, object]:
    counted = "SELECT count(*) FROM {table} WHERE customer_id = $1"
    return {table: await scene.value(counted.format(table=table), scene.customer.id) for table in _HANGING[kind]}


@pytest.mark.parametrize("kind", ["channel", "chatbot", "endpoint"])
async def test_what_much_hangs_on_is_closed_at_once_and_deleted_in_as_many_calls_as_it_takes(
    database: Database, kind: Kind
) -> None:
    """Failed before: one statement deleted it all, or nothing where that took over 30 seconds."""
    gone, stays = await _settled(database), await _settled(database)
    ids = {"channel": gone.channel.id, "chatbot": gone.chatbot.id}
    id_ = (
        ids.get(kind)
        or (await gone.fetch("SELECT id FROM webhook_endpoints WHERE customer_id = $1", gone.customer.id))[0]["id"]
    )
    before = await _counts(stays, kind)
    assert not await delete_in_batches(database, kind, id_, customer_id=stays.customer.id)

    with pytest.raises(StoreBusy, match="another call goes on"):
        await delete_in_batches(database, kind, id_, customer_id=gone.customer.id, for_s=0)
    closed = "webhook_endpoints" if kind == "endpoint" else "channels"
    assert await gone.value(f"SELECT enabled FROM {closed} WHERE customer_id = $1", gone.customer.id) is False  # noqa: S608
    assert await gone.value(f"SELECT enabled FROM {closed} WHERE customer_id = $1", stays.customer.id) is True  # noqa: S608

    assert await delete_in_batches(database, kind, id_, customer_id=gone.customer.id)
    assert set((await _counts(gone, kind)).values()) == {0}
    assert await _counts(stays, kind) == before

"""A customer that has one of everything, and the routes that lead to each."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from replyline.jobs import MediaRef
from replyline.store import api_keys, chatbots, unread
from replyline.store.database import Database
from replyline.store.moves.record import Attempt
from tests.make import VAULT, make_document, make_webhook_endpoint
from tests.store.scene import Scene, make_scene, run_of
from tests.web.conftest import Door

PROVIDER_KEY = "sk-provider-key-of-the-owner"

# What may be sent to each route that changes something: it would succeed for the owner.
CHANGES: dict[str, dict[str, object]] = {
    "/v1/customers/{customer_id}": {"name": "stolen"},
    "/v1/chatbots/{chatbot_id}": {"name": "stolen"},
    "/v1/channels/{channel_id}": {"name": "stolen", "enabled": False},
    "/v1/webhook-endpoints/{endpoint_id}": {"url": "http://127.0.0.1:9/stolen"},
    "/v1/channels/{channel_id}/session/pair": {"phone": "4915112345678"},
    "/v1/conversations/{conversation_id}/owner": {"owner": "HUMAN"},
    "/v1/conversations/{conversation_id}/messages": {"text": "stolen"},
}

OPERATORS = frozenset({"/v1/customer-deletions"})
"""What only the operator may read."""

# What is there, but has nothing to show: a Cloud number has no session, and the file is not fetched yet.
NOTHING_TO_SHOW = frozenset(
    {
        "/v1/channels/{channel_id}/session",
        "/v1/channels/{channel_id}/session/qr.svg",
        "/v1/media/{media_id}",
    }
)


@dataclass(frozen=True, slots=True)
class Everything:
    """One of everything of one customer; `ids` by the name that the routes have for them."""

    scene: Scene
    api_key: str
    ids: dict[str, uuid.UUID]


async def make_everything(database: Database) -> Everything:
    """A customer with a chatbot, a channel, a conversation, a dead letter, a webhook event and so on."""
    scene = await make_scene(database, "WHATSAPP_CLOUD")
    made = await api_keys.create(database, customer_id=scene.customer.id, name="server")
    assert made is not None
    await chatbots.update(
        database, VAULT, scene.chatbot.id, customer_id=scene.customer.id, changes={"provider_key": PROVIDER_KEY}
    )
    document = await make_document(database, scene.chatbot)
    endpoint = await make_webhook_endpoint(database, scene.customer.id)
    await scene.say("Are you open?", "From 7 am.")
    await scene.route()
    dead = await scene.fail_send()
    (message,) = await scene.fetch("SELECT id, conversation_id FROM messages WHERE direction = 'INBOUND'")
    await scene.hear("[image]", sender="bob", media=MediaRef(kind="image", provider_id="99"))
    await unread.keep(
        database, customer_id=scene.customer.id, channel_id=scene.channel.id, items=[("not understood", b"{}")]
    )
    media_id = await scene.value("SELECT id FROM media")
    assert isinstance(media_id, uuid.UUID)
    (event, *_) = await scene.fetch("SELECT id FROM webhook_events ORDER BY id")
    delivery = (await scene.waiting("webhook-delivery"))[0]
    now = datetime.now(UTC)
    await scene.moves.record(
        Attempt(run_of(delivery), event["id"], scene.customer.id, now, 12, 500, "answered 500", "no")
    )
    return Everything(
        scene,
        made[1],
        {
            "customer_id": scene.customer.id,
            "key_id": made[0].id,
            "chatbot_id": scene.chatbot.id,
            "channel_id": scene.channel.id,
            "document_id": document.id,
            "conversation_id": message["conversation_id"],
            "message_id": message["id"],
            "endpoint_id": endpoint.id,
            "event_id": event["id"],
            "job_id": dead,
            "media_id": media_id,
        },
    )


async def routes(door: Door) -> Iterator[tuple[str, str]]:
    """Every route of /v1 that belongs to customers, as (method, path with names in it)."""
    description = (await door.call("GET", "/openapi.json")).json
    paths = cast("dict[str, dict[str, object]]", description["paths"])
    return (
        (method.upper(), path)
        for path, operations in paths.items()
        if path.startswith("/v1/") and not path.startswith(("/v1/queues", "/v1/jobs"))
        for method in operations
    )


async def of_customer(door: Door, method: str, path: str, customer_id: uuid.UUID) -> str:
    """The query that names this customer; "" for a route that takes none, which refuses it as unknown."""
    description = (await door.call("GET", "/openapi.json")).json
    paths = cast("dict[str, dict[str, dict[str, list[dict[str, str]]]]]", description["paths"])
    named = {parameter["name"] for parameter in paths[path][method.lower()].get("parameters", [])}
    return f"?customerId={customer_id}" if "customerId" in named else ""

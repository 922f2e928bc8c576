"""What Meta says of an account or a person's wish, through the door: kept, told once, and only to whom it belongs."""

from typing import cast

import msgspec
import pytest

from replyline.store.channels import Channel
from replyline.store.chatbots import Chatbot
from replyline.store.database import Database
from tests.make import make_api_key, make_channel, make_chatbot, make_customer, make_webhook_endpoint
from tests.store.scene import make_scene
from tests.web.conftest import Answer, Door
from tests.web.signed import post_cloud

BUSINESS, OTHER = "102290129340398", "524126980791429"
DELETED = {"event": "ACCOUNT_DELETED"}
BANNED = {"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "DISABLE", "waba_ban_date": "April 17, 2025"}}
REINSTATED = {"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "REINSTATE"}}


@pytest.fixture
async def bot(database: Database) -> Chatbot:
    return await make_chatbot(database, (await make_customer(database)).id)


async def connected(database: Database, bot: Chatbot, business: str | None = BUSINESS, **secrets: str) -> Channel:
    """A number of that business account; its app secret is the one that all have, unless it is given another."""
    config = {} if business is None else {"waba_id": business}
    return await make_channel(database, bot, "WHATSAPP_CLOUD", config=config, secrets=secrets)


async def tell(
    door: Door, channel: Channel, value: object, *, business: str = BUSINESS, at: int = 1, **more: str
) -> Answer:
    """Meta says something of a business account to the channel's URL."""
    field = more.get("field", "account_update")
    body = {"entry": [{"id": business, "time": at, "changes": [{"field": field, "value": value}]}]}
    answer = await post_cloud(door, channel, msgspec.json.encode(body))
    assert answer.status == 200
    return answer


async def wish(door: Door, channel: Channel, value: str, at: int, wa_id: str = "16505551234") -> Answer:
    """A person stops marketing messages, or wants them again."""
    change = {
        "field": "user_preferences",
        "value": {
            "metadata": {"phone_number_id": channel.external_id},
            "contacts": [{"wa_id": wa_id}],
            "user_preferences": [{"wa_id": wa_id, "category": "marketing_messages", "value": value, "timestamp": at}],
        },
    }
    answer = await post_cloud(door, channel, msgspec.json.encode({"entry": [{"id": BUSINESS, "changes": [change]}]}))
    assert answer.status == 200
    return answer


async def health(database: Database) -> dict[object, object]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT id, health_reason FROM channels")
    return {row["id"]: row["health_reason"] for row in rows}


async def told(database: Database) -> list[tuple[str, dict[str, object]]]:
    """The webhook events that were written, oldest first."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT type, (payload -> 'data')::text AS data FROM webhook_events ORDER BY id")
    return [(row["type"], msgspec.json.decode(row["data"], type=dict[str, object])) for row in rows]


async def test_a_ban_stops_the_channel_and_its_end_lets_it_go_on(door: Door, database: Database, bot: Chatbot) -> None:
    channel = await connected(database, bot)
    await make_webhook_endpoint(database, bot.customer_id)
    assert (await tell(door, channel, BANNED)).json["notices"] == 1
    assert await health(database) == {channel.id: "account_disabled"}
    await tell(door, channel, REINSTATED, at=2)
    assert await health(database) == {channel.id: None}
    assert [name for name, _ in await told(database)] == [
        "channel.account_changed",
        "channel.unhealthy",
        "channel.account_changed",
        "channel.healthy",
    ]


async def test_the_end_of_a_ban_does_not_mend_a_token(door: Door, database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_CLOUD")
    await scene.fetch("UPDATE channels SET config = config || jsonb_build_object('waba_id', $1::text)", BUSINESS)
    await scene.fall_ill("token_invalid")
    await tell(door, scene.channel, REINSTATED)
    assert await health(database) == {scene.channel.id: "token_invalid"}


async def test_the_end_of_a_restriction_does_not_end_a_ban(door: Door, database: Database, bot: Chatbot) -> None:
    channel = await connected(database, bot)
    await tell(door, channel, BANNED)
    await tell(door, channel, {"event": "ACCOUNT_RESTRICTION", "restriction_info": []}, at=2)
    assert await health(database) == {channel.id: "account_disabled"}


async def test_a_repeated_callback_is_told_once(door: Door, database: Database, bot: Chatbot) -> None:
    channel = await connected(database, bot)
    await make_webhook_endpoint(database, bot.customer_id)
    value = {"display_phone_number": "15550783881", "event": "FLAGGED", "current_limit": "TIER_10K"}
    for at in (1, 1, 1, 2):
        await tell(door, channel, value, at=at, field="phone_number_quality_update")
    assert [name for name, _ in await told(database)] == ["channel.quality_changed"] * 2
    key = await make_api_key(database, bot.customer_id)
    shown = await door.call("GET", f"/v1/channels/{channel.id}", key=key)
    quality = cast("dict[str, object]", shown.json["quality"])
    assert (quality["event"], quality["limit"]) == ("FLAGGED", "TIER_10K")


async def test_on_a_shared_url_news_of_an_account_reaches_its_owner_and_nobody_else(
    door: Door, database: Database, bot: Chatbot
) -> None:
    """One application serves several customers: its callbacks all go to the first one's URL, signed by the same secret."""
    first = await connected(database, bot)
    other_bot = await make_chatbot(database, (await make_customer(database)).id)
    others = [await connected(database, other_bot, OTHER) for _ in range(2)]
    stranger = await connected(database, other_bot, OTHER, app_secret="a-secret-of-another-application-of-meta")
    for customer_id in (bot.customer_id, other_bot.customer_id):
        await make_webhook_endpoint(database, customer_id)
    answer = await tell(door, first, DELETED, business=OTHER)
    assert (answer.json["notices"], answer.json["foreign"], answer.json["unread"]) == (2, 0, 0)
    gone = {channel.id: "account_deleted" for channel in others}
    assert await health(database) == {first.id: None, stranger.id: None, **gone}
    async with database.connection() as connection:
        owners = await connection.fetch("SELECT DISTINCT customer_id FROM webhook_events")
        assert [row["customer_id"] for row in owners] == [other_bot.customer_id]
        assert await connection.fetchval("SELECT count(*) FROM unread_callbacks") == 0


async def test_news_of_an_account_that_nobody_here_has_is_kept_by_nobody(
    door: Door, database: Database, bot: Chatbot
) -> None:
    channel = await connected(database, bot)
    answer = await tell(door, channel, {"event": "X"}, business="999", field="flows")
    assert (answer.json["foreign"], answer.json["unread"], answer.json["notices"]) == (1, 0, 0)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM unread_callbacks") == 0


async def test_what_nothing_acts_on_is_kept_for_the_owner_of_the_account(
    door: Door, database: Database, bot: Chatbot
) -> None:
    first = await connected(database, bot)
    other = await connected(database, await make_chatbot(database, (await make_customer(database)).id), OTHER)
    await tell(door, first, {"event": "X"}, business=OTHER, field="flows")
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT channel_id FROM unread_callbacks") == other.id


async def test_a_channel_without_its_business_account_hears_nothing_of_any(
    door: Door, database: Database, bot: Chatbot
) -> None:
    channel = await connected(database, bot, None)
    answer = await tell(door, channel, DELETED)
    assert (answer.json["ignored"], answer.json["unread"], answer.json["notices"]) == (1, 0, 0)
    assert await health(database) == {channel.id: None}


async def test_who_stops_marketing_messages_is_kept_and_told(door: Door, database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_CLOUD")
    await make_webhook_endpoint(database, scene.customer.id, events=("contact.updated",))
    await scene.hear("hi", sender="16505551234", identity_kind="wa_id")
    for value, at in (("stop", 1764000100), ("stop", 1764000100), ("resume", 1764000000)):
        await wish(door, scene.channel, value, at)
    ((name, data),) = await told(database)
    contact_id = str(await scene.value("SELECT id FROM contacts"))
    assert (name, data["contact_id"], data["wa_id"], data["marketing_opted_out"]) == (
        "contact.updated",
        contact_id,
        "16505551234",
        True,
    )
    key = await make_api_key(database, scene.customer.id)
    listed = (await door.call("GET", "/v1/conversations", key=key)).json
    (conversation,) = cast("list[dict[str, object]]", listed["data"])
    assert conversation["marketingOptedOut"] is True
    await wish(door, scene.channel, "resume", 1764000200)
    assert await scene.value("SELECT marketing_opted_out FROM contacts") is False


async def test_a_wish_of_somebody_who_never_wrote_is_kept_for_when_they_do(door: Door, database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_CLOUD")
    await wish(door, scene.channel, "stop", 1764000100, wa_id="1777")
    await scene.hear("hi", sender="1777", identity_kind="wa_id")
    assert await scene.value("SELECT bool_and(marketing_opted_out) FROM contacts") is True
    assert await scene.value("SELECT count(*) FROM contacts") == 1

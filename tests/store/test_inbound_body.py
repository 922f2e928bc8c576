"""What a message holds besides its words is kept with it, and the model reads it."""

import uuid

import msgspec
import pytest

from replyline.inbound_content import Choice, File, InboundContent, Quoted, Reaction
from replyline.store import messages, timeline
from replyline.store.database import Database
from tests.make import make_webhook_endpoint
from tests.store.scene import Scene, make_scene


async def _ours(scene: Scene, message_id: uuid.UUID) -> messages.Message:
    found = await messages.get(scene.database, message_id, customer_id=scene.customer.id)
    assert found is not None
    return found


async def _answered(scene: Scene) -> uuid.UUID:
    """A message of the bot that WhatsApp knows as wamid.B; its id."""
    await scene.say("Open?", "Which day?")
    await scene.route()
    assert await scene.send("wamid.B")
    found = await scene.value("SELECT id FROM messages WHERE external_id = 'wamid.B'")
    assert isinstance(found, uuid.UUID)
    return found


async def test_it_is_kept_and_shown(database: Database) -> None:
    scene = await make_scene(database)
    body = InboundContent(choice=Choice(kind="button", id="y", title="Yes"))
    message_id = await scene.hear("Yes", external_id="wamid.1", body=body)
    shown: dict[str, object] = {"choice": {"kind": "button", "id": "y", "title": "Yes"}}
    assert (await _ours(scene, message_id)).body == shown
    found = await timeline.trace(database, message_id, customer_id=scene.customer.id)
    assert found is not None
    assert [message.body for message in found.messages] == [shown]


async def test_a_message_that_holds_only_words_has_no_body(database: Database) -> None:
    scene = await make_scene(database)
    message_id = await scene.hear("Yes", body=InboundContent())
    assert (await _ours(scene, message_id)).body is None
    assert await scene.value("SELECT body IS NULL FROM messages") is True


async def test_a_quoted_message_is_known_by_our_id_and_the_model_reads_it(database: Database) -> None:
    scene = await make_scene(database)
    ours = await _answered(scene)
    quoted = InboundContent(quoted=Quoted(external_id="wamid.B"))
    message_id = await scene.hear("Sunday", external_id="wamid.2", body=quoted)
    assert (await _ours(scene, message_id)).quotes == ours
    _, turn = await scene.open_turn()
    assert turn.asked == ('[in reply to: "Which day?"]\nSunday',)


async def test_a_quotation_of_the_message_before_it_is_known_too(database: Database) -> None:
    scene = await make_scene(database)
    first = await scene.hear("one", external_id="wamid.1")
    second = await scene.hear("two", external_id="wamid.2", body=InboundContent(quoted=Quoted(external_id="wamid.1")))
    assert (await _ours(scene, second)).quotes == first


async def test_nobody_reads_anothers_message_by_quoting_it(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("my card is 4111", sender="ana", external_id="wamid.1")
    await scene.fetch("UPDATE jobs SET state = 'DONE' WHERE queue = 'ai-processing'")
    quoted = InboundContent(quoted=Quoted(external_id="wamid.1"))
    message_id = await scene.hear("And?", sender="mallory", external_id="wamid.2", body=quoted)
    assert (await _ours(scene, message_id)).quotes is None
    _, turn = await scene.open_turn()
    assert turn.asked == ("And?",)


async def test_a_reaction_names_our_message(database: Database) -> None:
    scene = await make_scene(database)
    ours = await _answered(scene)
    body = InboundContent(reaction=Reaction(external_id="wamid.B", emoji="👍"))
    message_id = await scene.hear(
        "[reaction] 👍", external_id="wamid.3", kind="reaction", target_id="wamid.B", body=body
    )
    assert (await _ours(scene, message_id)).quotes == ours


async def test_a_note_asks_for_no_answer_and_no_apology(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("[call permission] accept", external_id="wamid.1", kind="note")
    assert await scene.waiting("ai-processing") == []
    assert await scene.outbound() == []
    (row,) = await scene.fetch("SELECT content, synthetic, direction FROM messages")
    assert tuple(row) == ("[call permission] accept", True, "INBOUND")


async def test_an_edit_brings_its_own_content_and_keeps_what_was_replied_to(database: Database) -> None:
    scene = await make_scene(database)
    body = InboundContent(quoted=Quoted(external_id="wamid.0"), file=File(kind="image", caption="old"))
    message_id = await scene.hear("[image] old", external_id="wamid.1", body=body)
    new = InboundContent(file=File(kind="image", caption="new"))
    await scene.hear("[image] new", external_id="wamid.2", kind="edit", target_id="wamid.1", body=new)
    assert (await _ours(scene, message_id)).body == {
        "quoted": {"externalId": "wamid.0"},
        "file": {"kind": "image", "caption": "new"},
    }


async def test_a_message_taken_back_keeps_nothing(database: Database) -> None:
    scene = await make_scene(database)
    message_id = await scene.hear("[image]", external_id="wamid.1", body=InboundContent(file=File(kind="image")))
    await scene.hear("[deleted]", external_id="wamid.2", kind="revoke", target_id="wamid.1")
    assert (await _ours(scene, message_id)).body is None


async def _echoed(scene: Scene) -> uuid.UUID:
    """A human's message in the Business app, wamid.E; its id. The bot answers again afterwards."""
    message_id = await scene.hear("We open at 8", external_id="wamid.E", kind="echo")
    await scene.fetch("UPDATE conversations SET owner = 'BOT', human_until = NULL")
    return message_id


@pytest.mark.parametrize(("kind", "content"), [("echo_edit", "We open at 9"), ("echo_revoke", "")])
async def test_a_humans_change_in_the_business_app_amends_their_message(
    database: Database, kind: str, content: str
) -> None:
    scene = await make_scene(database)
    message_id = await _echoed(scene)
    await scene.hear("We open at 9", external_id="wamid.F", kind=kind, target_id="wamid.E")
    assert (await _ours(scene, message_id)).content == content
    assert await scene.value("SELECT count(*) FROM messages") == 1
    assert await scene.value("SELECT owner FROM conversations") == "BOT"


async def test_a_person_cannot_change_what_was_sent_to_them(database: Database) -> None:
    scene = await make_scene(database)
    message_id = await _echoed(scene)
    await scene.hear("Free for you", external_id="wamid.F", kind="edit", target_id="wamid.E")
    assert (await _ours(scene, message_id)).content == "We open at 8"


async def test_the_webhook_tells_what_the_message_holds(database: Database) -> None:
    scene = await make_scene(database)
    await make_webhook_endpoint(database, scene.customer.id, events=("message.received",))
    await scene.hear("Yes", content_type="interactive", body=InboundContent(choice=Choice(kind="button", id="y")))
    raw = await scene.value("SELECT payload::text FROM webhook_events")
    data = msgspec.json.decode(str(raw), type=dict[str, object])["data"]
    assert isinstance(data, dict)
    assert (data["content_type"], data["body"]) == ("interactive", {"choice": {"kind": "button", "id": "y"}})

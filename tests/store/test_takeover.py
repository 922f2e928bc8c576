"""A human of the business in a conversation: the bot is silent, for as long as it should be, and comes back."""

import uuid

import pytest

from replyline.store.chatbots import update
from replyline.store.database import Database
from replyline.store.moves.answer import Answered
from replyline.store.moves.speak import Speak, UnknownQuote, set_owner, speak
from replyline.store.outbox import Outbox
from tests.make import VAULT
from tests.store.scene import Scene, make_scene


async def _owner(scene: Scene) -> object:
    return await scene.value("SELECT owner FROM conversations")


async def test_a_human_on_the_telephone_takes_the_conversation_over(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_QR")
    await scene.hear("Hello?")
    job_id, turn = await scene.open_turn()
    await scene.hear("I am on it", external_id="3EB0H", kind="echo")
    assert await scene.answer(job_id, turn, "How can I help?") is Answered.OWNER_CHANGED
    assert await scene.outbound() == [("I am on it", "SENT")]
    (row,) = await scene.fetch(
        "SELECT owner, owner_epoch, human_until > now() + interval '11 hours' AS held FROM conversations"
    )
    assert (row["owner"], row["owner_epoch"], row["held"]) == ("HUMAN", 1, True)
    await scene.hear("Thanks!")
    assert await scene.waiting("ai-processing") == []


async def test_what_the_bot_had_not_sent_yet_is_withdrawn_and_the_lane_goes_on(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_CLOUD")
    await scene.hear("Hello?")
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "part one", "part two", "part three")
    await scene.hear("I am on it", external_id="wamid.H", kind="echo")
    assert await scene.outbound() == [
        ("part one", "CANCELLED"),
        ("part two", "CANCELLED"),
        ("part three", "CANCELLED"),
        ("I am on it", "SENT"),
    ]
    assert await scene.route()  # the head's job finds nothing to send
    assert await scene.value("SELECT lane_length FROM conversations") == 0
    assert await scene.waiting("outgoing-messages") == []


async def test_a_chatbot_may_be_set_to_go_on_beside_a_human(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_QR")
    await update(database, VAULT, scene.chatbot.id, customer_id=scene.customer.id, changes={"human_takeover": False})
    await scene.hear("I am on it", external_id="3EB0H", kind="echo")
    assert await _owner(scene) == "BOT"


async def test_the_echo_of_a_message_of_ours_is_nobody_taking_over(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_QR")
    await scene.say("Hello?", "How can I help?")
    await scene.route()
    await scene.send("3EB0A", "whatsapp-qr-send", outcome="accepted")
    await scene.hear("How can I help?", external_id="3EB0A", kind="echo")
    assert await _owner(scene) == "BOT"
    assert len(await scene.outbound()) == 1


async def test_the_bot_comes_back_when_the_humans_hold_is_over(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_QR")
    await scene.hear("I am on it", external_id="3EB0H", kind="echo")
    await scene.hear("to the human")
    await scene.fetch("UPDATE conversations SET human_until = now() - interval '1 second'")
    await scene.hear("to the bot")
    assert await _owner(scene) == "BOT"
    _, turn = await scene.open_turn()
    assert turn.asked == ("to the bot",)


async def test_a_conversation_is_given_back_by_hand(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_QR")
    await scene.hear("I am on it", external_id="3EB0H", kind="echo")
    conversation = await scene.value("SELECT id FROM conversations")
    assert isinstance(conversation, uuid.UUID)
    async with database.transaction() as connection:
        assert await set_owner(connection, conversation, customer_id=scene.customer.id, owner="BOT")
        assert not await set_owner(connection, conversation, customer_id=uuid.uuid4(), owner="BOT")
    await scene.hear("hello again")
    assert len(await scene.waiting("ai-processing")) == 1


async def test_an_agent_speaks_once_however_often_it_is_posted(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("Hello?")
    conversation = await scene.value("SELECT id FROM conversations")
    assert isinstance(conversation, uuid.UUID)
    said = Speak(conversation, scene.customer.id, "A human here.", None, None, "click-1", take_over=True)
    spoken = []
    for _ in range(3):
        async with database.transaction() as connection:
            spoken.append(await speak(connection, said, Outbox()))
    assert [one is not None and one.repeated for one in spoken] == [False, True, True]
    assert await scene.outbound() == [("A human here.", "QUEUED")]
    assert await _owner(scene) == "HUMAN"
    assert await scene.route()


async def test_an_agent_quotes_only_what_was_said_there(database: Database) -> None:
    scene = await make_scene(database)
    mine = await scene.hear("Hello?")
    other = await scene.hear("Hi", sender="bob")
    conversation = await scene.value("SELECT conversation_id FROM messages WHERE id = $1", mine)
    assert isinstance(conversation, uuid.UUID)
    async with database.transaction() as connection:
        with pytest.raises(UnknownQuote):
            await speak(
                connection, Speak(conversation, scene.customer.id, "x", None, other, None, take_over=False), Outbox()
            )

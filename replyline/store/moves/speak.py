"""What a human of the business does in a conversation: say something, take it over, give it back to the bot."""

import uuid
from dataclasses import dataclass
from typing import Literal

from replyline.ids import new_id
from replyline.store.database import Connection
from replyline.store.moves.lane import Utterance, say
from replyline.store.moves.takeover import withdraw_replies
from replyline.store.moves.work import LockedConversation, lock_conversations, save_conversations
from replyline.store.outbox import Outbox, insert_jobs

Owner = Literal["BOT", "HUMAN", "NONE"]

_NAMESPACE = uuid.UUID("6f0f6a3e-6d6b-5a53-9a44-7f9d0c1f3b21")


@dataclass(frozen=True, slots=True)
class Speak:
    """One message of an agent. `client_id` makes a repeat recognisable; `body` is its JSON where it is not plain text."""

    conversation_id: uuid.UUID
    customer_id: uuid.UUID
    content: str
    body: bytes | None
    quotes: uuid.UUID | None
    client_id: str | None
    take_over: bool


@dataclass(frozen=True, slots=True)
class Spoken:
    """The message, which is on its way; `repeated` if it was before."""

    message_id: uuid.UUID
    trace_id: uuid.UUID
    repeated: bool


_KNOWN = "SELECT trace_id FROM messages WHERE id = $1 AND conversation_id = $2"
_QUOTED = "SELECT 1 FROM messages WHERE id = $1 AND conversation_id = $2"
_HOLD_S = "SELECT human_hold_s FROM chatbots WHERE id = $1"


class UnknownQuote(Exception):
    """The message to be quoted is not one of the conversation."""


async def speak(connection: Connection, row: Speak, outbox: Outbox) -> Spoken | None:
    """Put a message of an agent at the end of its conversation; None where the customer has no such one.

    Raises:
        UnknownQuote: see there.
    """
    conversation = await _mine(connection, row.conversation_id, row.customer_id)
    if conversation is None:
        return None
    message_id = uuid.uuid5(_NAMESPACE, f"{row.conversation_id}:{row.client_id}") if row.client_id else new_id()
    known: uuid.UUID | None = await connection.fetchval(_KNOWN, message_id, row.conversation_id)
    if known is not None:
        return Spoken(message_id, known, repeated=True)
    if row.quotes is not None and not await connection.fetchval(_QUOTED, row.quotes, row.conversation_id):
        raise UnknownQuote("replyTo is no message of this conversation")
    if row.take_over:
        await _take_over(connection, conversation)
    trace_id = new_id()
    said = Utterance(
        conversation,
        row.content,
        trace_id,
        message_id=message_id,
        parent_id=message_id,
        role="agent",
        body=row.body,
        quotes=row.quotes,
    )
    heads = await say(connection, [said], outbox)
    await save_conversations(connection, {conversation.id: conversation})
    await insert_jobs(connection, heads, outbox)
    return Spoken(message_id, trace_id, repeated=False)


async def set_owner(
    connection: Connection, conversation_id: uuid.UUID, *, customer_id: uuid.UUID, owner: Owner
) -> bool:
    """Give a conversation to a human, to the bot, or to nobody; False where the customer has no such one.

    The bot answers from the next message on: what came meanwhile was a human's to answer.
    """
    conversation = await _mine(connection, conversation_id, customer_id)
    if conversation is None:
        return False
    match owner:
        case "HUMAN":
            await _take_over(connection, conversation)
        case "BOT":
            if conversation.owner != "BOT":
                conversation.give_back()
        case "NONE":
            if conversation.owner != "NONE":
                conversation.owner, conversation.owner_epoch = "NONE", conversation.owner_epoch + 1
            await withdraw_replies(connection, [conversation])
    await save_conversations(connection, {conversation.id: conversation})
    return True


async def _mine(
    connection: Connection, conversation_id: uuid.UUID, customer_id: uuid.UUID
) -> LockedConversation | None:
    conversation = (await lock_conversations(connection, [conversation_id])).get(conversation_id)
    return conversation if conversation is not None and conversation.customer_id == customer_id else None


async def _take_over(connection: Connection, conversation: LockedConversation) -> None:
    conversation.take_over(await connection.fetchval(_HOLD_S, conversation.chatbot_id) or 0.0)
    await withdraw_replies(connection, [conversation])

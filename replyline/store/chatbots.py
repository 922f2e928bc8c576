"""Chatbots: what a customer's bot is told, which provider answers for it, and how long it listens before it does."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict

import asyncpg
import msgspec

from replyline.ids import new_id
from replyline.store.database import Database
from replyline.store.emptying import delete_in_batches
from replyline.vault import Vault


@dataclass(frozen=True, slots=True)
class Chatbot:
    """A bot that a customer configured. Quiet windows are in seconds; the provider's key is sealed and never leaves."""

    id: uuid.UUID
    customer_id: uuid.UUID
    name: str
    instructions: str
    provider: str
    model: str | None
    provider_base_url: str | None
    provider_key_sealed: str | None = field(repr=False)
    max_output_tokens: int
    fallback_text: str
    context_messages: int
    context_chars: int
    knowledge_passages: int
    quiet_window_widget_s: float
    quiet_window_whatsapp_s: float
    quiet_window_max_s: float
    vision: bool
    """Whether the model is shown pictures that people send."""
    unsupported_text: str
    human_takeover: bool
    """Whether a human who writes on the business's telephone silences the bot in that conversation."""
    human_hold_s: float
    """For how long, in seconds; 0 until somebody gives it back."""
    external_reference: str | None
    """What BullMQ producers call it; unique in the deployment, because a producer names no customer."""
    created_at: datetime
    updated_at: datetime

    @property
    def has_provider_key(self) -> bool:
        """Whether a key was set."""
        return self.provider_key_sealed is not None

    def provider_key(self, vault: Vault) -> str | None:
        """The provider's key in clear, None where none was set.

        Raises:
            UnreadableSecret: it was sealed with a key that this deployment does not have.
        """
        return None if self.provider_key_sealed is None else vault.open(self.provider_key_sealed)


class ChatbotChanges(TypedDict, total=False):
    """What may be set; what is left out keeps its value, or its default in a new chatbot. None clears."""

    name: str
    instructions: str
    provider: str
    model: str | None
    provider_base_url: str | None
    provider_key: str | None
    max_output_tokens: int
    fallback_text: str
    context_messages: int
    context_chars: int
    knowledge_passages: int
    quiet_window_widget_s: float
    quiet_window_whatsapp_s: float
    quiet_window_max_s: float
    vision: bool
    unsupported_text: str
    human_takeover: bool
    human_hold_s: float
    external_reference: str | None


class ChatbotRefused(Exception):
    """The customer does not exist, or a value is outside its range; the message names the constraint."""


class ReferenceTaken(ChatbotRefused):
    """Another chatbot of this deployment has the external reference."""


_INSERT = "INSERT INTO chatbots (id, customer_id, name) VALUES ($1, $2, $3)"

_UPDATE = """
UPDATE chatbots c
SET (name, instructions, provider, model, provider_base_url, provider_key_sealed, max_output_tokens, fallback_text,
     context_messages, context_chars, knowledge_passages, quiet_window_widget_s, quiet_window_whatsapp_s, quiet_window_max_s,
     vision, unsupported_text, human_takeover, human_hold_s, external_reference)
  = (SELECT n.name, n.instructions, n.provider, n.model, n.provider_base_url, n.provider_key_sealed, n.max_output_tokens,
            n.fallback_text, n.context_messages, n.context_chars, n.knowledge_passages, n.quiet_window_widget_s,
            n.quiet_window_whatsapp_s, n.quiet_window_max_s, n.vision, n.unsupported_text, n.human_takeover, n.human_hold_s,
            n.external_reference
     FROM jsonb_populate_record(c, $3::jsonb) n),
    updated_at = now()
WHERE c.id = $1 AND c.customer_id = $2 RETURNING c.*
"""
_LIST = """
SELECT * FROM chatbots WHERE customer_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3
"""
_GET = "SELECT * FROM chatbots WHERE id = $1 AND customer_id = $2"


async def create(
    db: Database, vault: Vault, *, customer_id: uuid.UUID, name: str, settings: ChatbotChanges | None = None
) -> Chatbot:
    """Add a chatbot; what `settings` does not name has the schema's default.

    Raises:
        ChatbotRefused, ReferenceTaken: see there.
    """
    chatbot_id = new_id()
    changes: ChatbotChanges = {**settings, "name": name} if settings else {"name": name}
    try:
        async with db.transaction() as connection:
            await connection.execute(_INSERT, chatbot_id, customer_id, name)
            record = await connection.fetchrow(_UPDATE, chatbot_id, customer_id, _columns(changes, vault))
    except asyncpg.UniqueViolationError as error:
        raise ReferenceTaken("another chatbot has this external reference") from error
    except (asyncpg.CheckViolationError, asyncpg.ForeignKeyViolationError) as error:
        raise ChatbotRefused(f"refused by {error.constraint_name}") from error
    if record is None:
        raise LookupError("an inserted chatbot was not returned")
    return Chatbot(**dict(record))


async def list_page(
    db: Database, *, customer_id: uuid.UUID, after: uuid.UUID | None = None, limit: int = 50
) -> Sequence[Chatbot]:
    """A page of the customer's chatbots, oldest first, after the one given."""
    async with db.connection() as connection:
        return [Chatbot(**dict(record)) for record in await connection.fetch(_LIST, customer_id, after, limit)]


async def get(db: Database, chatbot_id: uuid.UUID, *, customer_id: uuid.UUID) -> Chatbot | None:
    """The chatbot, or None where the customer has no such one."""
    async with db.connection() as connection:
        record = await connection.fetchrow(_GET, chatbot_id, customer_id)
    return None if record is None else Chatbot(**dict(record))


async def update(
    db: Database, vault: Vault, chatbot_id: uuid.UUID, *, customer_id: uuid.UUID, changes: ChatbotChanges
) -> Chatbot | None:
    """Change the chatbot; None where the customer has no such one.

    Raises:
        ChatbotRefused, ReferenceTaken: see there.
    """
    try:
        async with db.connection() as connection:
            record = await connection.fetchrow(_UPDATE, chatbot_id, customer_id, _columns(changes, vault))
    except asyncpg.UniqueViolationError as error:
        raise ReferenceTaken("another chatbot has this external reference") from error
    except asyncpg.CheckViolationError as error:
        raise ChatbotRefused(f"refused by {error.constraint_name}") from error
    return None if record is None else Chatbot(**dict(record))


async def delete(db: Database, chatbot_id: uuid.UUID, *, customer_id: uuid.UUID) -> bool:
    """Delete the chatbot with its channels, conversations and knowledge; False where the customer has no such one.

    Raises:
        StoreBusy: so much hangs on it that another call must go on.
    """
    return await delete_in_batches(db, "chatbot", chatbot_id, customer_id=customer_id)


def _columns(changes: ChatbotChanges, vault: Vault) -> str:
    """The changes as columns: the key goes in sealed."""
    columns: dict[str, object] = {name: value for name, value in changes.items() if name != "provider_key"}
    if "provider_key" in changes:
        key = changes["provider_key"]
        columns["provider_key_sealed"] = None if key is None else vault.seal(key)
    return msgspec.json.encode(columns).decode()

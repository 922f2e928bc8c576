"""Finding the contact and the conversation that a message belongs to, or making them; safe against racing first messages."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields

from replyline.ids import new_id
from replyline.jobs import IncomingMessageJob
from replyline.store.database import Connection


@dataclass(frozen=True, slots=True)
class Manners:
    """How a chatbot behaves in a conversation: its quiet window (seconds), what it says to what it cannot read, and whether a
    human who writes takes over, for how long (seconds, 0 until given back)."""

    window_s: float
    window_max_s: float
    unsupported_text: str
    human_takeover: bool
    human_hold_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message belongs, and how its chatbot behaves there."""

    conversation_id: uuid.UUID
    manners: Manners


@dataclass(frozen=True, slots=True)
class _Found:
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    contact_id: uuid.UUID | None
    conversation_id: uuid.UUID | None
    manners: Manners


# The channel's own customer decides, never the payload's: a forged id finds nothing. LATERAL … LIMIT, because a join may use the
# first column of an index only, and then reads everything of the channel.
_FIND = """
SELECT r.ord, c.customer_id, c.chatbot_id, i.contact_id,
       coalesce(CASE WHEN named.channel_id = c.id THEN named.id END, called.id, v.id) AS conversation_id,
       CASE WHEN c.kind = 'WIDGET' THEN b.quiet_window_widget_s ELSE b.quiet_window_whatsapp_s END AS window_s,
       b.quiet_window_max_s AS window_max_s, b.unsupported_text, b.human_takeover, b.human_hold_s
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::text[]) WITH ORDINALITY
  AS r (channel_id, kind, value, conversation_id, customer_id, reference, ord)
JOIN LATERAL (SELECT * FROM channels WHERE id = r.channel_id LIMIT 1) c ON c.customer_id = r.customer_id
JOIN chatbots b ON b.id = c.chatbot_id
LEFT JOIN LATERAL (
    SELECT n.contact_id FROM contact_identities n WHERE n.channel_id = c.id AND n.kind = r.kind AND n.value = r.value LIMIT 1
) i ON true
LEFT JOIN LATERAL (SELECT o.id, o.channel_id FROM conversations o WHERE o.id = r.conversation_id LIMIT 1) named ON true
LEFT JOIN LATERAL (
    SELECT o.id FROM conversations o
    WHERE o.channel_id = c.id AND o.chatbot_id = c.chatbot_id AND o.external_reference = r.reference LIMIT 1
) called ON true
LEFT JOIN LATERAL (
    SELECT o.id FROM conversations o
    WHERE o.channel_id = c.id AND o.contact_id = i.contact_id AND o.chatbot_id = c.chatbot_id
      AND coalesce(o.external_reference, '') = '' AND r.reference IS NULL LIMIT 1
) v ON true
"""

_NEW_CONTACTS = """
INSERT INTO contacts (id, customer_id, channel_id, name)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[])
"""

# A racing first message waits here for the other's commit, then does nothing: one identity, one contact.
_NEW_IDENTITIES = """
INSERT INTO contact_identities (channel_id, kind, value, customer_id, contact_id)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[])
ON CONFLICT (channel_id, kind, value) DO NOTHING
RETURNING contact_id
"""

_UNUSED_CONTACTS = "DELETE FROM contacts WHERE id = ANY($1::uuid[])"

_NEW_CONVERSATIONS = """
INSERT INTO conversations (id, customer_id, chatbot_id, channel_id, contact_id, reply_to, external_reference)
SELECT coalesce(
    r.named,
    (SELECT p.conversation_id FROM visitors p
     WHERE r.reference IS NULL AND p.channel_id = r.channel_id AND p.identity_kind = r.kind AND p.identity = r.identity
       AND NOT EXISTS (SELECT 1 FROM conversations o WHERE o.id = p.conversation_id)),
    r.new), r.customer_id, r.chatbot_id, r.channel_id, r.contact_id, r.reply_to, r.reference
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::uuid[], $8::text[], $9::text[],
            $10::text[])
  AS r (new, customer_id, chatbot_id, channel_id, contact_id, reply_to, named, kind, identity, reference)
ON CONFLICT DO NOTHING
"""


_MANNERS = tuple(field.name for field in fields(Manners))


async def find_places(connection: Connection, messages: Sequence[IncomingMessageJob]) -> list[Place | None]:
    """The place of each message, made where it does not exist.

    None where the customer has no such channel, or the named conversation is not the channel's.
    """
    found = await _find(connection, messages)
    strangers = [index for index, row in enumerate(found) if row is not None and row.contact_id is None]
    if strangers:
        await _make_contacts(connection, [messages[index] for index in strangers])
        found = await _find(connection, messages)
    unknown = [index for index, row in enumerate(found) if row is not None and row.conversation_id is None]
    if unknown:
        await _make_conversations(connection, [(messages[index], found[index]) for index in unknown])
        found = await _find(connection, messages)
    return [Place(row.conversation_id, row.manners) if row and row.conversation_id else None for row in found]


async def _find(connection: Connection, messages: Sequence[IncomingMessageJob]) -> list[_Found | None]:
    found: list[_Found | None] = [None] * len(messages)
    for record in await connection.fetch(
        _FIND,
        [message.channel_id for message in messages],
        [message.identity_kind or "external" for message in messages],
        [message.external_user_id for message in messages],
        [message.conversation_id for message in messages],
        [message.customer_id for message in messages],
        [message.conversation_reference for message in messages],
    ):
        found[record["ord"] - 1] = _Found(
            record["customer_id"],
            record["chatbot_id"],
            record["contact_id"],
            record["conversation_id"],
            Manners(**{name: record[name] for name in _MANNERS}),
        )
    return found


async def _make_contacts(connection: Connection, messages: Sequence[IncomingMessageJob]) -> None:
    new = {
        (str(message.channel_id), message.identity_kind or "external", message.external_user_id): message
        for message in messages
    }
    rows = [(new_id(), new[identity]) for identity in sorted(new)]
    ids = [contact_id for contact_id, _ in rows]
    customers = [message.customer_id for _, message in rows]
    channels = [message.channel_id for _, message in rows]
    await connection.execute(_NEW_CONTACTS, ids, customers, channels, [message.contact_name for _, message in rows])
    used = await connection.fetch(
        _NEW_IDENTITIES,
        channels,
        [message.identity_kind or "external" for _, message in rows],
        [message.external_user_id for _, message in rows],
        customers,
        ids,
    )
    unused = set(ids) - {record["contact_id"] for record in used}
    if unused:
        await connection.execute(_UNUSED_CONTACTS, list(unused))


async def _make_conversations(connection: Connection, rows: Sequence[tuple[IncomingMessageJob, _Found | None]]) -> None:
    new: dict[tuple[str, str, str], tuple[IncomingMessageJob, _Found]] = {}
    for message, found in rows:
        if found is not None:
            reference = message.conversation_reference or ""
            # Of several people who name a new conversation, the first begins it.
            whose = "" if reference else str(found.contact_id)
            new.setdefault((str(message.channel_id), reference, whose), (message, found))
    ordered = [new[key] for key in sorted(new)]
    await connection.execute(
        _NEW_CONVERSATIONS,
        [new_id() for _ in ordered],
        [found.customer_id for _, found in ordered],
        [found.chatbot_id for _, found in ordered],
        [message.channel_id for message, _ in ordered],
        [found.contact_id for _, found in ordered],
        [message.reply_to or message.external_user_id for message, _ in ordered],
        [message.conversation_id for message, _ in ordered],
        [message.identity_kind or "external" for message, _ in ordered],
        [message.external_user_id for message, _ in ordered],
        [message.conversation_reference for message, _ in ordered],
    )

"""Who is who: a payload that names a person twice makes two contacts one; a person who changes their number stays the same."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from replyline.jobs import Identity, IncomingMessageJob
from replyline.store.database import Connection

# LIMIT keeps each lookup one by the whole key, whatever the planner believes about how many people a channel has.
_FIND = """
SELECT i.kind, i.value, i.contact_id FROM unnest($2::text[], $3::text[]) AS r (kind, value)
CROSS JOIN LATERAL (
    SELECT * FROM contact_identities o WHERE o.channel_id = $1 AND o.kind = r.kind AND o.value = r.value LIMIT 1
) i
WHERE i.customer_id = $4
"""
_ADD = """
INSERT INTO contact_identities (channel_id, kind, value, customer_id, contact_id)
SELECT $1, kind, value, $4, $5 FROM unnest($2::text[], $3::text[]) AS new (kind, value)
ON CONFLICT (channel_id, kind, value) DO NOTHING
"""
_NAMES = "SELECT kind, value FROM contact_identities WHERE contact_id = $1 AND customer_id = $2"
_REMOVE = "DELETE FROM contact_identities WHERE channel_id = $1 AND kind = $2 AND value = $3 AND customer_id = $4"
_REPLY_TO = "UPDATE conversations SET reply_to = $3, updated_at = now() WHERE channel_id = $1 AND contact_id = $2"

# In id order, so that two merges cannot wait for each other. Busy: something of it is on its way, so it is merged another time.
_THREADS = """
SELECT v.id, v.contact_id, v.chatbot_id, v.external_reference, v.last_seq, v.last_inbound_seq, v.answered_seq,
       v.owner <> 'BOT' AS held,
       v.lane_length > 0 OR (
           SELECT j.id FROM jobs j WHERE j.conversation_id = v.id AND j.queue = 'ai-processing' AND j.state = 'WAITING' LIMIT 1
       ) IS NOT NULL AS busy
FROM conversations v WHERE v.channel_id = $1 AND v.contact_id = ANY($2::uuid[]) ORDER BY v.id FOR UPDATE OF v
"""
_MOVE_MESSAGES = "UPDATE messages SET conversation_id = $2, seq = seq + $3 WHERE conversation_id = $1"
# Only dead letters: no turn and no send of it waits. What else waits (a file that is fetched) names its message.
_MOVE_JOBS = """
UPDATE dead_jobs SET conversation_id = $2,
    payload = payload || jsonb_build_object('conversationId', $2::uuid)
      || CASE WHEN payload ? 'afterSeq'
              THEN jsonb_build_object('afterSeq', (payload ->> 'afterSeq')::bigint + $3,
                                      'throughSeq', (payload ->> 'throughSeq')::bigint + $3)
              ELSE '{}'::jsonb END
WHERE conversation_id = $1
"""
_MOVE_THREAD = "UPDATE conversations SET contact_id = $2 WHERE id = $1"
_GROW = """
UPDATE conversations SET last_seq = $2, last_inbound_seq = $3, answered_seq = $3, amendments = amendments + 1,
    window_from = greatest(window_from, (SELECT window_from FROM conversations WHERE id = $4))
WHERE id = $1
"""
_DROP_THREAD = "DELETE FROM conversations WHERE id = $1"
_MOVE_IDENTITIES = "UPDATE contact_identities SET contact_id = $2 WHERE contact_id = $1"
_DROP_CONTACT = """
DELETE FROM contacts c WHERE c.id = $1 AND NOT EXISTS (SELECT 1 FROM conversations v WHERE v.contact_id = c.id)
"""


@dataclass(frozen=True, slots=True)
class _Thread:
    id: uuid.UUID
    contact_id: uuid.UUID
    chatbot_id: uuid.UUID
    external_reference: str | None
    last_seq: int
    last_inbound_seq: int
    answered_seq: int
    held: bool
    busy: bool

    @property
    def is_unnamed(self) -> bool:
        return self.external_reference is None

    @property
    def at_rest(self) -> bool:
        return not self.busy and (self.held or self.answered_seq >= self.last_inbound_seq)


async def link_identities(connection: Connection, messages: Sequence[IncomingMessageJob]) -> None:
    """Make sure that all names a message gives of its sender lead to one contact.

    Two contacts become one when both their conversations are at rest; until then each goes on by itself, and the next message
    that names both tries again.
    """
    for message in messages:
        if message.also_known_as and message.kind != "identity":
            await _link(connection, message)


async def _link(connection: Connection, message: IncomingMessageJob) -> None:
    names = [Identity(message.identity_kind or "external", message.external_user_id), *message.also_known_as]
    known = await _known(connection, message, names)
    if not known:
        return  # a stranger: made under the first name, and the others find them by the next message
    first = known.get(names[0]) or next(iter(known.values()))
    await _add(connection, message, [name for name in names if name not in known], first)
    for other in sorted(set(known.values()) - {first}):
        await _merge(connection, message, other, into=first)


async def rename(connection: Connection, message: IncomingMessageJob) -> bool:
    """The person of a job of kind `identity` has new names; the old ones are given up, for they may become somebody else's.

    False where somebody who is already known by a new name has something on its way: the job must be tried again then, for no
    later message names both.
    """
    old = Identity(message.identity_kind or "external", message.external_user_id)
    new = message.also_known_as
    known = await _known(connection, message, [old, *new])
    if not known:
        return True
    contact = known.get(old) or next(iter(known.values()))
    for other in sorted(set(known.values()) - {contact}):
        if not await _merge(connection, message, other, into=contact):
            return False
    await _add(connection, message, [name for name in new if name not in known], contact)
    await _give_up_names(connection, message, old, contact)
    if message.reply_to:
        await connection.execute(_REPLY_TO, message.channel_id, contact, message.reply_to)
    return True


async def _give_up_names(
    connection: Connection, message: IncomingMessageJob, old: Identity, contact_id: uuid.UUID
) -> None:
    """A person has one number and one user id at a time: the new ones replace those before them, whichever name told them."""
    kinds = {name.kind for name in message.also_known_as}
    names = {
        Identity(record["kind"], record["value"])
        for record in await connection.fetch(_NAMES, contact_id, message.customer_id)
    }
    for name in sorted((names | {old}) - set(message.also_known_as), key=lambda name: (name.kind, name.value)):
        if name.kind in kinds:
            await connection.execute(_REMOVE, message.channel_id, name.kind, name.value, message.customer_id)


async def add_names(connection: Connection, messages: Sequence[IncomingMessageJob]) -> None:
    """After a stranger's contact was made: their other names lead to it too."""
    for message in messages:
        if message.also_known_as and message.kind != "identity":
            names = [Identity(message.identity_kind or "external", message.external_user_id), *message.also_known_as]
            known = await _known(connection, message, names)
            if names[0] in known:
                await _add(connection, message, [name for name in names if name not in known], known[names[0]])


async def _known(
    connection: Connection, message: IncomingMessageJob, names: Sequence[Identity]
) -> dict[Identity, uuid.UUID]:
    records = await connection.fetch(
        _FIND,
        message.channel_id,
        [name.kind for name in names],
        [name.value for name in names],
        message.customer_id,
    )
    found = {(record["kind"], record["value"]): record["contact_id"] for record in records}
    return {name: found[name.kind, name.value] for name in names if (name.kind, name.value) in found}


async def _add(
    connection: Connection, message: IncomingMessageJob, names: Sequence[Identity], contact_id: uuid.UUID
) -> None:
    if names:
        await connection.execute(
            _ADD,
            message.channel_id,
            [name.kind for name in names],
            [name.value for name in names],
            message.customer_id,
            contact_id,
        )


async def _merge(
    connection: Connection, message: IncomingMessageJob, contact_id: uuid.UUID, *, into: uuid.UUID
) -> bool:
    """Make them one contact; False where a conversation of theirs is not at rest."""
    records = await connection.fetch(_THREADS, message.channel_id, [contact_id, into])
    threads = [_Thread(**dict(record)) for record in records]
    mine = {thread.chatbot_id: thread for thread in threads if thread.contact_id == into and thread.is_unnamed}
    theirs = [thread for thread in threads if thread.contact_id == contact_id]
    # A conversation with a reference stays one of its own: it only changes its contact.
    pairs = [(thread, mine[thread.chatbot_id]) for thread in theirs if thread.is_unnamed and thread.chatbot_id in mine]
    if not all(thread.at_rest for pair in pairs for thread in pair):
        return False
    for thread, other in pairs:
        await _join(connection, *sorted((thread, other), key=lambda each: each.id), contact_id=into)
    for thread in theirs:
        if not thread.is_unnamed or thread.chatbot_id not in mine:
            await connection.execute(_MOVE_THREAD, thread.id, into)
    await connection.execute(_MOVE_IDENTITIES, contact_id, into)
    await connection.execute(_DROP_CONTACT, contact_id)
    return True


async def _join(connection: Connection, older: _Thread, younger: _Thread, *, contact_id: uuid.UUID) -> None:
    """The younger conversation's messages go behind the older's: that is how they were written.

    Usage stays recorded where it came about: nothing looks it up by conversation.
    """
    offset = older.last_seq
    for statement in (_MOVE_MESSAGES, _MOVE_JOBS):
        await connection.execute(statement, younger.id, older.id, offset)
    last_inbound = younger.last_inbound_seq + offset if younger.last_inbound_seq else older.last_inbound_seq
    await connection.execute(_GROW, older.id, offset + younger.last_seq, last_inbound, younger.id)
    await connection.execute(_DROP_THREAD, younger.id)
    await connection.execute(_MOVE_THREAD, older.id, contact_id)

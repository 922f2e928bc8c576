"""What somebody does to an earlier message of theirs: edit it or take it back; an answer not yet given takes note of it."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replyline.inbound_content import InboundContent, decode_inbound, encode_inbound
from replyline.jobs import IncomingKind, IncomingMessageJob
from replyline.store.database import Connection
from replyline.store.moves.work import LockedConversation

AMENDMENTS: frozenset[IncomingKind] = frozenset({"edit", "revoke", "echo_edit", "echo_revoke"})
"""People change what they wrote, and humans of the business (`echo_…`) what was sent to them."""

# What stood beside the old words stays (a quoted message, say), unless the edit brings it anew.
_EDIT = """
UPDATE messages SET content = $5, body = CASE WHEN $6::text IS NULL THEN body ELSE coalesce(body, '{}') || $6::jsonb END,
    edited_at = now()
WHERE channel_id = $1 AND external_id = $2 AND (conversation_id = $3) IS TRUE AND direction = $4 AND deleted_at IS NULL
RETURNING id, seq, content, body::text AS body
"""
# A tombstone: the place stays, so that nothing moves, and the words are gone.
_REVOKE = """
UPDATE messages SET content = '', body = NULL, deleted_at = now()
WHERE channel_id = $1 AND external_id = $2 AND (conversation_id = $3) IS TRUE AND direction = $4 AND deleted_at IS NULL
RETURNING id, seq, content, body::text AS body
"""

# Callbacks overtake each other: the change waits for its message. The last edit counts, and nothing undoes a deletion.
_PARK = """
INSERT INTO parked_amendments (channel_id, external_id, conversation_id, customer_id, kind, content, body)
SELECT $1, $2, $3, $4, $5, $6, $7::jsonb
WHERE NOT EXISTS (SELECT 1 FROM messages WHERE channel_id = $1 AND external_id = $2)
ON CONFLICT (channel_id, external_id, conversation_id) DO UPDATE
SET kind = excluded.kind, content = excluded.content, body = excluded.body
WHERE parked_amendments.kind IN ('edit', 'echo_edit')
"""
_UNPARK = """
DELETE FROM parked_amendments p USING unnest($1::uuid[], $2::text[], $3::uuid[]) AS r (channel_id, external_id, conversation_id)
WHERE p.channel_id = r.channel_id AND p.external_id = r.external_id AND p.conversation_id = r.conversation_id
RETURNING p.channel_id, p.external_id, p.conversation_id, p.kind, p.content, p.body::text AS body
"""


@dataclass(frozen=True, slots=True)
class Amended:
    """A message as it is after its change."""

    seq: int
    content: str
    body: InboundContent | None


@dataclass(frozen=True, slots=True)
class Original:
    """A message that was just saved, by which a change that came before it is found."""

    message_id: uuid.UUID
    channel_id: uuid.UUID
    external_id: str
    conversation_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class _Change:
    channel_id: uuid.UUID
    external_id: str
    conversation_id: uuid.UUID
    kind: str
    content: str
    body: str | None

    @property
    def of_ours(self) -> bool:
        return self.kind.startswith("echo_")


async def amend(
    connection: Connection, changes: Sequence[tuple[IncomingMessageJob, LockedConversation]]
) -> list[uuid.UUID]:
    """Carry out edits and revokes, and park those whose message is not known yet; returns the conversations whose unanswered
    part changed.
    """
    touched: list[uuid.UUID] = []
    for job, conversation in changes:
        change = _change(job, conversation)
        found = await _carry_out(connection, change)
        if not found:
            await connection.execute(
                _PARK,
                change.channel_id,
                change.external_id,
                change.conversation_id,
                conversation.customer_id,
                change.kind,
                change.content,
                change.body,
            )
        for amended in found.values():
            if amended.seq > conversation.answered_seq and not change.of_ours:
                conversation.amendments += 1
                touched.append(conversation.id)
    return touched


async def apply_parked(connection: Connection, originals: Sequence[Original]) -> Mapping[uuid.UUID, Amended]:
    """Carry out the changes that came before these messages; the messages that changed, as they are now, by their ids."""
    records = await connection.fetch(
        _UNPARK,
        [original.channel_id for original in originals],
        [original.external_id for original in originals],
        [original.conversation_id for original in originals],
    )
    changed: dict[uuid.UUID, Amended] = {}
    for record in records:
        changed |= await _carry_out(connection, _Change(**dict(record)))
    return changed


async def _carry_out(connection: Connection, change: _Change) -> dict[uuid.UUID, Amended]:
    where = (change.channel_id, change.external_id, change.conversation_id, "OUTBOUND" if change.of_ours else "INBOUND")
    if change.kind.endswith("revoke"):
        records = await connection.fetch(_REVOKE, *where)
    else:
        records = await connection.fetch(_EDIT, *where, change.content, change.body)
    return {
        record["id"]: Amended(
            record["seq"],
            record["content"],
            None if record["body"] is None or change.of_ours else decode_inbound(record["body"].encode()),
        )
        for record in records
    }


def _change(job: IncomingMessageJob, conversation: LockedConversation) -> _Change:
    if job.target_id is None:
        raise ValueError("a change must name its message")
    body = encode_inbound(job.body)
    raw = None if body is None else body.decode()
    return _Change(conversation.channel_id, job.target_id, conversation.id, job.kind, job.content, raw)

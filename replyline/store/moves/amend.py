"""What somebody does to an earlier message of theirs: edit it or take it back; an answer not yet given takes note of it."""

import uuid
from collections.abc import Sequence

from replyline.inbound_content import encode_inbound
from replyline.jobs import IncomingKind, IncomingMessageJob
from replyline.store.database import Connection
from replyline.store.moves.work import LockedConversation

AMENDMENTS: frozenset[IncomingKind] = frozenset({"edit", "revoke", "echo_edit", "echo_revoke"})
"""People change what they wrote, and humans of the business (`echo_…`) what was sent to them."""

# What stood beside the old words stays (a quoted message, say), unless the edit brings it anew.
_EDIT = """
UPDATE messages SET content = $5, body = CASE WHEN $6::text IS NULL THEN body ELSE coalesce(body, '{}') || $6::jsonb END,
    edited_at = now()
WHERE channel_id = $1 AND external_id = $2 AND conversation_id = $3 AND direction = $4 AND deleted_at IS NULL
RETURNING seq
"""
# A tombstone: the place stays, so that nothing moves, and the words are gone.
_REVOKE = """
UPDATE messages SET content = '', body = NULL, deleted_at = now()
WHERE channel_id = $1 AND external_id = $2 AND conversation_id = $3 AND direction = $4 AND deleted_at IS NULL
RETURNING seq
"""


async def amend(
    connection: Connection, changes: Sequence[tuple[IncomingMessageJob, LockedConversation]]
) -> list[uuid.UUID]:
    """Carry out edits and revokes; returns the conversations whose unanswered part changed."""
    touched: list[uuid.UUID] = []
    for job, conversation in changes:
        seq = await _change(connection, job, conversation.id)
        if seq is not None and seq > conversation.answered_seq and not _is_ours(job):
            conversation.amendments += 1
            touched.append(conversation.id)
    return touched


async def _change(connection: Connection, job: IncomingMessageJob, conversation_id: uuid.UUID) -> int | None:
    where = (job.channel_id, job.target_id, conversation_id, "OUTBOUND" if _is_ours(job) else "INBOUND")
    if job.kind in {"revoke", "echo_revoke"}:
        seq: int | None = await connection.fetchval(_REVOKE, *where)
    else:
        body = encode_inbound(job.body)
        seq = await connection.fetchval(_EDIT, *where, job.content, None if body is None else body.decode())
    return seq


def _is_ours(job: IncomingMessageJob) -> bool:
    return job.kind.startswith("echo_")

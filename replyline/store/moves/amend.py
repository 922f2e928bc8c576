"""What a person does to an earlier message of theirs: edit it or take it back; an answer not yet given takes note of it."""

import uuid
from collections.abc import Sequence

from replyline.jobs import IncomingMessageJob
from replyline.store.database import Connection
from replyline.store.moves.work import LockedConversation

_EDIT = """
UPDATE messages SET content = $4, edited_at = now()
WHERE channel_id = $1 AND external_id = $2 AND conversation_id = $3 AND direction = 'INBOUND' AND deleted_at IS NULL
RETURNING seq
"""
# A tombstone: the place stays, so that nothing moves, and the words are gone.
_REVOKE = """
UPDATE messages SET content = '', deleted_at = now()
WHERE channel_id = $1 AND external_id = $2 AND conversation_id = $3 AND direction = 'INBOUND' AND deleted_at IS NULL
RETURNING seq
"""


async def amend(
    connection: Connection, changes: Sequence[tuple[IncomingMessageJob, LockedConversation]]
) -> list[uuid.UUID]:
    """Carry out edits and revokes; returns the conversations whose unanswered part changed."""
    touched: list[uuid.UUID] = []
    for job, conversation in changes:
        if job.kind == "edit":
            seq = await connection.fetchval(_EDIT, job.channel_id, job.target_id, conversation.id, job.content)
        else:
            seq = await connection.fetchval(_REVOKE, job.channel_id, job.target_id, conversation.id)
        if seq is not None and seq > conversation.answered_seq:
            conversation.amendments += 1
            touched.append(conversation.id)
    return touched

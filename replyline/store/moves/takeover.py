"""A human of the business answers: the conversation is theirs, and what the bot has not yet sent is withdrawn."""

import uuid
from collections.abc import Sequence

from replyline.store.database import Connection
from replyline.store.moves.work import LockedConversation

# The head of a lane has a job, which finds its message withdrawn and lets the lane go on. A replayed message that waits behind
# the head (its job has no time yet, and nobody holds it) is left: somebody asked for it.
_WITHDRAW = """
UPDATE messages m SET status = 'CANCELLED'
WHERE m.conversation_id = ANY($1::uuid[]) AND m.direction = 'OUTBOUND' AND m.role = 'assistant' AND m.status = 'QUEUED'
  AND (
      SELECT j.id FROM jobs j
      WHERE j.message_id = m.id AND j.finished_at IS NULL AND j.run_at = 'infinity' AND j.held_by IS NULL LIMIT 1
  ) IS NULL
RETURNING m.conversation_id, (
    SELECT j.id FROM jobs j
    WHERE j.message_id = m.id AND j.finished_at IS NULL
      AND j.queue IN ('outgoing-messages', 'whatsapp-cloud-send', 'whatsapp-qr-send') LIMIT 1
) IS NOT NULL AS is_head
"""


async def withdraw_replies(connection: Connection, conversations: Sequence[LockedConversation]) -> None:
    """Cancel the bot's messages that still wait in these conversations' lanes."""
    by_id: dict[uuid.UUID, LockedConversation] = {conversation.id: conversation for conversation in conversations}
    for record in await connection.fetch(_WITHDRAW, list(by_id)):
        if not record["is_head"]:
            by_id[record["conversation_id"]].leave_lane()

"""Reading the message that a send job is about, for many jobs at once."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from replyline.store.database import Connection
from replyline.store.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Outbound:
    """A message of ours on its way out, and where it goes."""

    message_id: uuid.UUID
    conversation_id: uuid.UUID
    customer_id: uuid.UUID
    channel_id: uuid.UUID
    status: str
    content: str
    external_id: str | None
    reply_to: str
    unknown_for_s: float
    """How long its outcome has been unknown, in seconds; 0 if it is not."""
    setbacks: int
    """How many runs of its job are known to have ended without sending it."""


_READ = """
SELECT r.ord, m.id AS message_id, m.conversation_id, m.customer_id, m.channel_id, m.status, m.content, m.external_id, v.reply_to,
       coalesce(extract(epoch FROM now() - m.unknown_since), 0)::float8 AS unknown_for_s, j.setbacks
FROM unnest($1::uuid[]) WITH ORDINALITY AS r (job_id, ord)
JOIN jobs j ON j.id = r.job_id AND j.state = 'WAITING'
JOIN messages m ON m.id = j.message_id AND m.direction = 'OUTBOUND'
JOIN conversations v ON v.id = m.conversation_id
"""


async def read_outbound(connection: Connection, job_ids: Sequence[uuid.UUID], _outbox: Outbox) -> list[Outbound | None]:
    """The message of each send job; None where the job was finished by another run."""
    found: list[Outbound | None] = [None] * len(job_ids)
    for record in await connection.fetch(_READ, job_ids):
        fields = dict(record)
        index = fields.pop("ord") - 1
        found[index] = Outbound(**fields)
    return found

"""Reading the message that a send job is about, for many jobs at once."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from replyline.contents import Content, decode_content
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
    body: Content | None
    """What it is, where it is not plain text."""
    external_id: str | None
    accepted: bool
    quotes: str | None
    """The channel's id of the message that it replies to."""
    reply_to: str
    phone: str | None
    """A phone number of the person, where one is known."""
    silent_for_s: float | None
    """How long ago the person last wrote, in seconds; None if never."""
    unknown_for_s: float
    """How long its outcome has been unknown, in seconds; 0 if it is not."""
    setbacks: int
    """How many runs of its job are known to have ended without sending it."""


_READ = """
SELECT r.ord, m.id AS message_id, m.conversation_id, m.customer_id, m.channel_id, m.status, m.content, m.body::text AS body,
       m.external_id, m.accepted_at IS NOT NULL AS accepted, q.external_id AS quotes, v.reply_to,
       CASE WHEN v.reply_to ~ '^[A-Z]{2}[.]' THEN (
           SELECT i.value FROM contact_identities i
           WHERE i.contact_id = v.contact_id AND i.channel_id = v.channel_id AND i.kind IN ('wa_id', 'phone')
           ORDER BY i.created_at DESC LIMIT 1
       ) END AS phone,
       extract(epoch FROM now() - v.window_from)::float8 AS silent_for_s,
       coalesce(extract(epoch FROM now() - m.unknown_since), 0)::float8 AS unknown_for_s, j.setbacks
FROM unnest($1::uuid[]) WITH ORDINALITY AS r (job_id, ord)
JOIN jobs j ON j.id = r.job_id AND j.state = 'WAITING'
JOIN messages m ON m.id = j.message_id AND m.direction = 'OUTBOUND'
JOIN conversations v ON v.id = m.conversation_id
LEFT JOIN messages q ON q.id = m.quotes AND q.channel_id = m.channel_id
"""


async def read_outbound(connection: Connection, job_ids: Sequence[uuid.UUID], _outbox: Outbox) -> list[Outbound | None]:
    """The message of each send job; None where the job was finished by another run."""
    found: list[Outbound | None] = [None] * len(job_ids)
    for record in await connection.fetch(_READ, job_ids):
        fields = dict(record)
        index = fields.pop("ord") - 1
        body = fields.pop("body")
        found[index] = Outbound(**fields, body=None if body is None else decode_content(body.encode()))
    return found

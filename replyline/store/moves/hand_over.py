"""Filling a send job with all that an external worker needs: it has neither our database nor our secrets."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from replyline.contents import decode_content
from replyline.jobs import SendJob
from replyline.store.database import Connection
from replyline.store.outbox import Enqueue

_READ = """
SELECT m.id, m.content, m.body::text AS body, c.kind AS channel, c.id AS channel_id, c.external_id AS channel_external_id,
       v.reply_to AS to, q.external_id AS quotes
FROM messages m JOIN conversations v ON v.id = m.conversation_id JOIN channels c ON c.id = m.channel_id
LEFT JOIN messages q ON q.id = m.quotes AND q.channel_id = m.channel_id
WHERE m.id = ANY($1::uuid[])
"""


async def fill(connection: Connection, sends: Sequence[Enqueue]) -> list[Enqueue]:
    """The same jobs, each with recipient, text and channel."""
    if not sends:
        return []
    found = {
        record["id"]: dict(record) for record in await connection.fetch(_READ, [send.job.message_id for send in sends])
    }
    filled: list[Enqueue] = []
    for send in sends:
        fields = found.get(send.job.message_id)
        if fields is None or not isinstance(send.job, SendJob):
            raise LookupError(f"the message of send job {send.id} is not there")
        del fields["id"]
        body = fields.pop("body")
        content = None if body is None else decode_content(body.encode())
        filled.append(replace(send, job=msgspec.structs.replace(send.job, **fields, body=content)))
    return filled

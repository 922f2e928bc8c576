"""Opening a turn: everything that is needed to ask a provider, read for many conversations at once."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from replyline.inbound_content import decode_inbound, in_words
from replyline.jobs import AiProcessingJob, ChannelKind
from replyline.store.database import Connection
from replyline.store.outbox import Outbox

MAX_TURN_MESSAGES = 50
"""A turn asks about at most this many messages; older unanswered ones count as history."""


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """What a turn's job asks for: which turn of which job."""

    job_id: uuid.UUID
    job: AiProcessingJob


@dataclass(frozen=True, slots=True)
class Said:
    """One message of the conversation."""

    seq: int
    inbound: bool
    text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as it stands: who asks what of which bot, and the fence that its answer must pass."""

    conversation_id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    channel_id: uuid.UUID
    channel: ChannelKind
    reply_to: str
    last_message_id: uuid.UUID | None
    last_external_id: str | None
    """The channel's id of the newest message to be answered."""
    owner: str
    owner_epoch: int
    amendments: int
    after_seq: int
    through_seq: int
    due_in_s: float
    instructions: str
    provider: str
    model: str | None
    provider_base_url: str | None
    provider_key_sealed: str | None = field(repr=False)
    max_output_tokens: int
    fallback_text: str
    vision: bool
    context_chars: int
    knowledge_passages: int
    has_knowledge: bool
    said: tuple[Said, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """The messages to be answered, oldest first."""
        return tuple(said.text for said in self.said if said.inbound and self.after_seq < said.seq <= self.through_seq)

    @property
    def history(self) -> tuple[Said, ...]:
        """What was said before, newest part of it that fits `context_chars`, oldest first."""
        kept: list[Said] = []
        room = self.context_chars
        for said in reversed(self.said):
            if said.inbound and said.seq > self.after_seq:
                continue
            room -= len(said.text)
            if room < 0:
                break
            kept.append(said)
        return tuple(reversed(kept))


# LATERAL and scalar subqueries, because a join may read all messages of a conversation, and an EXISTS all knowledge.
_OPEN = """
SELECT r.ord, v.id AS conversation_id, v.customer_id, v.chatbot_id, v.channel_id, c.kind AS channel, v.reply_to,
       last.id AS last_message_id, last.external_id AS last_external_id, v.owner, v.owner_epoch, v.amendments,
       coalesce(r.after_seq, v.answered_seq) AS after_seq, coalesce(r.through_seq, v.last_inbound_seq) AS through_seq,
       greatest(0, extract(epoch FROM j.run_at - now()))::float8 AS due_in_s,
       b.instructions, b.provider, b.model, b.provider_base_url, b.provider_key_sealed, b.max_output_tokens, b.fallback_text,
       b.vision, b.context_chars, b.context_messages, b.knowledge_passages,
       -- EXISTS could be planned as one look at all chunks of all chatbots.
       (SELECT true FROM knowledge_chunks k WHERE k.chatbot_id = b.id LIMIT 1) IS NOT NULL AS has_knowledge
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS r (job_id, after_seq, through_seq, ord)
JOIN jobs j ON j.id = r.job_id AND j.finished_at IS NULL
JOIN conversations v ON v.id = j.conversation_id
JOIN channels c ON c.id = v.channel_id
JOIN chatbots b ON b.id = v.chatbot_id
LEFT JOIN LATERAL (
    SELECT m.id, m.external_id FROM messages m
    WHERE m.conversation_id = v.id AND m.seq = coalesce(r.through_seq, v.last_inbound_seq) LIMIT 1
) last ON true
"""

# Our fallback texts are never fed back to the model, nor what never reached the person.
_SAID = """
SELECT r.ord, m.seq, m.direction = 'INBOUND' AS inbound, m.content AS text,
       CASE WHEN m.direction = 'INBOUND' THEN m.body END::text AS body,
       (SELECT left(q.content, 1000) FROM messages q
        WHERE q.id = m.quotes AND m.direction = 'INBOUND' AND q.conversation_id = m.conversation_id) AS quoted
FROM unnest($1::uuid[], $2::bigint[], $3::int[]) WITH ORDINALITY AS r (conversation_id, through_seq, wanted, ord)
CROSS JOIN LATERAL (
    SELECT conversation_id, seq, direction, content, body, quotes FROM messages
    WHERE conversation_id = r.conversation_id AND NOT synthetic AND deleted_at IS NULL
      AND status NOT IN ('FAILED', 'SUPERSEDED', 'CANCELLED', 'BLOCKED_WINDOW')
      AND (direction = 'OUTBOUND' OR seq <= r.through_seq)
    ORDER BY seq DESC LIMIT r.wanted
) m
ORDER BY r.ord, m.seq
"""


async def open_turns(connection: Connection, rows: Sequence[OpenTurn], _outbox: Outbox) -> list[Turn | None]:
    """The turn of each job; None where the job was finished by another run."""
    records = await connection.fetch(
        _OPEN,
        [row.job_id for row in rows],
        [row.job.after_seq for row in rows],
        [row.job.through_seq for row in rows],
    )
    if not records:
        return [None] * len(rows)
    said: list[list[Said]] = [[] for _ in records]
    for line in await connection.fetch(
        _SAID,
        [record["conversation_id"] for record in records],
        [record["through_seq"] for record in records],
        [record["context_messages"] + MAX_TURN_MESSAGES for record in records],
    ):
        body = None if line["body"] is None else decode_inbound(line["body"].encode())
        words = in_words(line["text"], body, line["quoted"]) if line["inbound"] else line["text"]
        said[line["ord"] - 1].append(Said(line["seq"], line["inbound"], words))
    turns: list[Turn | None] = [None] * len(rows)
    for record, lines in zip(records, said, strict=True):
        turns[record["ord"] - 1] = _turn(record, lines)
    return turns


def _turn(record: asyncpg.Record, lines: Sequence[Said]) -> Turn:
    fields = dict(record)
    del fields["ord"]
    before = fields.pop("context_messages")
    after = fields["after_seq"]
    asked = [line for line in lines if line.inbound and line.seq > after][-MAX_TURN_MESSAGES:]
    earlier = [line for line in lines if not (line.inbound and line.seq > after)]
    kept = earlier[-before:] if before else []
    return Turn(**fields, said=tuple(sorted([*kept, *asked], key=lambda line: line.seq)))

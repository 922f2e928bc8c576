"""The move `route`: a message of ours goes to its channel's queue, or into the widget's event log."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from replyline.jobs import ChannelKind, OutgoingMessageJob, WhatsAppCloudSendJob, WhatsAppQrSendJob
from replyline.store.database import Connection
from replyline.store.moves.announce import announce
from replyline.store.moves.delivery import OurMessage, announcement, lock_messages, sent_fact
from replyline.store.moves.hand_over import fill
from replyline.store.moves.lane import leave
from replyline.store.moves.metering import meter
from replyline.store.moves.work import LockedConversation, Run, finish, lock_conversations, save_conversations
from replyline.store.outbox import Enqueue, Outbox, insert_jobs


@dataclass(frozen=True, slots=True)
class Route:
    """One message of ours at the head of its lane."""

    run: Run
    job: OutgoingMessageJob
    conversation_id: uuid.UUID
    message_id: uuid.UUID
    external: bool = False
    """Whether an external worker sends it."""


_HAND_ON = "UPDATE messages SET status = 'SENDING' WHERE id = ANY($1::uuid[])"
_LOG = """
UPDATE messages m SET status = 'SENT', sent_at = now(), log_seq = r.log_seq
FROM unnest($1::uuid[], $2::bigint[]) AS r (id, log_seq) WHERE m.id = r.id
"""


async def route(connection: Connection, rows: Sequence[Route], outbox: Outbox) -> list[bool]:
    """Route the messages; False for those whose job another run had finished."""
    locked = await lock_conversations(connection, [row.conversation_id for row in rows])
    done = await finish(connection, [row.run for row in rows])
    mine = [row for row in rows if row.run.job_id in done]
    messages = await lock_messages(connection, [row.message_id for row in mine])
    sends: list[Enqueue] = []
    handed_over: list[Enqueue] = []
    logged: list[tuple[Route, OurMessage]] = []
    gone: list[Route] = []
    for row in mine:
        message = messages.get(row.message_id)
        if message is None or message.status != "QUEUED":  # cancelled meanwhile: nothing to send, the lane goes on
            gone.append(row)
        elif (send := _send(row, message.priority)) is not None:
            (handed_over if row.external else sends).append(send)
        else:
            logged.append((row, message))
    sends += await fill(connection, handed_over)
    if sends:
        await connection.execute(_HAND_ON, [send.job.message_id for send in sends])
    left = [*gone, *(row for row, _ in logged)]
    following, events = await _deliver_to_log(connection, logged, left, locked, outbox)
    await insert_jobs(connection, [*sends, *following, *events], outbox)
    return [row.run.job_id in done for row in rows]


async def _deliver_to_log(
    connection: Connection,
    logged: Sequence[tuple[Route, OurMessage]],
    left: Sequence[Route],
    locked: Mapping[uuid.UUID, LockedConversation],
    outbox: Outbox,
) -> tuple[list[Enqueue], list[Enqueue]]:
    """An open page reads the conversation's messages in order: being SENT is being in that log."""
    if not left:
        return [], []
    if logged:
        places = [locked[message.conversation_id].next_log_seq() for _, message in logged]
        await connection.execute(_LOG, [message.id for _, message in logged], places)
        outbox.grown.update(message.conversation_id for _, message in logged)
    leaving = [(locked[row.conversation_id], row.run.job_id) for row in left if row.conversation_id in locked]
    following = await leave(connection, leaving, outbox)
    await save_conversations(connection, {conversation.id: conversation for conversation, _ in leaving})
    await meter(connection, [sent_fact(message) for _, message in logged])
    events = await announce(
        connection, [announcement(message, "SENT", parent_id=row.run.job_id) for row, message in logged]
    )
    return following, events


def _send(row: Route, priority: int) -> Enqueue | None:
    job = row.job
    channel: ChannelKind = job.channel
    trace_id = job.trace_id or row.run.job_id
    match channel:
        case "WIDGET":
            return None
        case "WHATSAPP_CLOUD":
            kind: type[WhatsAppCloudSendJob | WhatsAppQrSendJob] = WhatsAppCloudSendJob
        case "WHATSAPP_QR":
            kind = WhatsAppQrSendJob
        case _:
            assert_never(channel)
    send = kind(
        customer_id=job.customer_id, trace_id=trace_id, conversation_id=row.conversation_id, message_id=row.message_id
    )
    return Enqueue(send, priority, trace_id, parent_id=row.run.job_id)

"""What Evolution's webhook tells, in the words of our contract: messages, statuses, and the state of the session."""

import time

import msgspec

from replyline.evolution.memory import Memory, Session

BACKLOG_S = 2400.0
"""A message older than this, in seconds, is history: it is not forwarded.

15 minutes of a telephone that was offline (contracts §3.6), and 20 for which Evolution repeats a webhook (contracts §3.2).
"""
_CODES_LIVE_S = 45.0
_STATES = {"open": "open", "connecting": "connecting", "close": "closed", "refused": "logged_out"}
# Baileys' DisconnectReason, which Evolution hands on as `statusReason`.
_ENDINGS = {401: "logged_out", 403: "banned", 402: "banned", 411: "logged_out", 406: "banned"}
_STATUSES = {"SERVER_ACK": "sent", "DELIVERY_ACK": "delivered", "READ": "read", "PLAYED": "read", "ERROR": "failed"}
_NOT_PEOPLE = ("@g.us", "@broadcast", "@newsletter", "@bot")
_KINDS = {
    "conversation": "text",
    "extendedTextMessage": "text",
    "imageMessage": "image",
    "audioMessage": "audio",
    "videoMessage": "video",
    "documentMessage": "document",
    "stickerMessage": "sticker",
    "locationMessage": "location",
    "contactMessage": "contacts",
    "buttonsResponseMessage": "button",
    "listResponseMessage": "list",
}


class Envelope(msgspec.Struct):
    """One call of Evolution's."""

    event: str
    data: msgspec.Raw
    instance: str = ""
    date_time: str = ""


class _Key(msgspec.Struct):
    id: str
    remoteJid: str
    fromMe: bool = False
    remoteJidAlt: str | None = None


class _Reaction(msgspec.Struct):
    text: str | None = None
    key: _Key | None = None


class _Text(msgspec.Struct):
    text: str | None = None
    caption: str | None = None
    title: str | None = None
    selectedDisplayText: str | None = None


class _Wrapped(msgspec.Struct):
    message: "_Content | None" = None


class _Content(msgspec.Struct):
    ephemeralMessage: _Wrapped | None = None
    viewOnceMessage: _Wrapped | None = None
    viewOnceMessageV2: _Wrapped | None = None
    documentWithCaptionMessage: _Wrapped | None = None
    protocolMessage: object = None
    senderKeyDistributionMessage: object = None
    conversation: str | None = None
    extendedTextMessage: _Text | None = None
    imageMessage: _Text | None = None
    videoMessage: _Text | None = None
    audioMessage: _Text | None = None
    documentMessage: _Text | None = None
    stickerMessage: _Text | None = None
    locationMessage: _Text | None = None
    contactMessage: _Text | None = None
    buttonsResponseMessage: _Text | None = None
    listResponseMessage: _Text | None = None
    reactionMessage: _Reaction | None = None


class _Message(msgspec.Struct):
    key: _Key
    message: _Content | None = None
    pushName: str | None = None
    messageTimestamp: float | str | None = None


class _Edited(msgspec.Struct):
    """As a message with its new words, or as WhatsApp's own note of an edit."""

    key: _Key
    message: _Content | None = None
    editedMessage: _Content | None = None


class _Update(msgspec.Struct):
    keyId: str | None = None
    status: str | None = None
    fromMe: bool = True


class _Connection(msgspec.Struct):
    state: str
    statusReason: int | None = None
    wuid: str | None = None


class _Qr(msgspec.Struct):
    code: str | None = None
    pairingCode: str | None = None


class _QrUpdated(msgspec.Struct):
    qrcode: _Qr | None = None


async def take(memory: Memory, session: Session, envelope: Envelope) -> None:
    """Keep what one call tells, as events to be told on. Raises msgspec.MsgspecError where it cannot be read."""
    match envelope.event:
        case "messages.upsert":
            await _message(memory, session, msgspec.json.decode(envelope.data, type=_Message))
        case "send.message":
            sent = msgspec.json.decode(envelope.data, type=_Message)
            await memory.claim_sent(session.id, _chat(sent.key.remoteJid), _words(sent.message)[1], sent.key.id)
        case "messages.update":
            await _status(memory, session, msgspec.json.decode(envelope.data, type=_Update))
        case "messages.edited" | "messages.delete" as event:
            await _amended(memory, session, event, envelope.data)
        case "connection.update":
            if envelope.date_time and envelope.date_time < session.told_at:
                return  # told late: what came after it is known already
            session.told_at = envelope.date_time or session.told_at
            await _connection(memory, session, msgspec.json.decode(envelope.data, type=_Connection))
        case "qrcode.updated":
            found = msgspec.json.decode(envelope.data, type=_QrUpdated).qrcode
            if found is not None:
                await show_code(memory, session, found.code, found.pairingCode)
        case "logout.instance":
            await change_state(memory, session, "logged_out")


async def change_state(memory: Memory, session: Session, state: str, *, phone: str | None = None) -> None:
    """The session is in another state from now on, and who listens is told."""
    session.state = state
    session.phone = phone or session.phone
    if state != "qr":
        session.qr = session.pairing_code = None
    await memory.keep_session(session)
    await memory.tell(session.id, [event_body(session, "session", shown(session))])


async def show_code(memory: Memory, session: Session, code: str | None, pairing_code: str | None) -> None:
    """There is a code to scan, or to type."""
    if code is None and pairing_code is None:
        return
    session.qr, session.pairing_code = code, pairing_code
    session.code_expires_at = time.time() + _CODES_LIVE_S
    await change_state(memory, session, "qr")


def shown(session: Session, *, waiting_events: int = 0) -> dict[str, object]:
    """As the contract shows a session."""

    def code(value: str | None) -> dict[str, object] | None:
        return None if value is None else {"code": value, "expires_at": session.code_expires_at}

    return {
        "id": session.id,
        "label": session.label,
        "state": session.state,
        "phone": session.phone,
        "qr": code(session.qr),
        "pairing_code": code(session.pairing_code),
        "restricted_until": None,
        "last_error": session.last_error,
        "waiting_events": waiting_events,
    }


def event_body(session: Session, kind: str, data: dict[str, object]) -> bytes:
    """One event as it is posted."""
    event_id = f"evt_{time.time_ns():x}_{id(data):x}"
    return msgspec.json.encode({"id": event_id, "type": kind, "session": session.id, "ts": time.time(), "data": data})


async def _message(memory: Memory, session: Session, message: _Message) -> None:
    """What somebody wrote; not what went out through us, nor groups, nor history."""
    key = message.key
    at = _seconds(message.messageTimestamp)
    if key.remoteJid.endswith(_NOT_PEOPLE) or message.message is None or (at and time.time() - at > BACKLOG_S):
        return
    kind, text = _words(message.message)
    if kind == "unknown" and (message.message.protocolMessage or message.message.senderKeyDistributionMessage):
        return
    if key.fromMe and await memory.claim_sent(session.id, _chat(key.remoteJid), text, key.id) is not None:
        return
    reaction = message.message.reactionMessage
    data: dict[str, object] = {
        "id": key.id,
        "from": key.remoteJid,
        "alt": key.remoteJidAlt,
        "from_me": key.fromMe,
        "type": kind,
        "text": text,
        "name": None if key.fromMe else message.pushName,
        "timestamp": at,
        "backlog": False,
        "reply_to": None,
        "target": reaction.key.id if reaction is not None and reaction.key is not None else None,
    }
    await memory.tell(session.id, [event_body(session, "message", data)], once=f"message:{key.id}")


async def _status(memory: Memory, session: Session, update: _Update) -> None:
    status = _STATUSES.get(update.status or "")
    if status is None or update.keyId is None or not update.fromMe:
        return
    data: dict[str, object] = {
        "wa_id": update.keyId,
        "message_id": await memory.key_of(session.id, update.keyId),
        "status": status,
        "timestamp": time.time(),
        "error": {"code": "ERROR", "message": "WhatsApp did not take it"} if status == "failed" else None,
    }
    await memory.tell(session.id, [event_body(session, "status", data)], once=f"status:{update.keyId}:{status}")


async def _amended(memory: Memory, session: Session, event: str, raw: msgspec.Raw) -> None:
    """Edited: the message with its new words. Deleted: its key alone."""
    if event == "messages.edited":
        edited = msgspec.json.decode(raw, type=_Edited)
        kind, key, text = "edit", edited.key, _words(edited.editedMessage or edited.message)[1]
    else:
        kind, key, text = "revoke", msgspec.json.decode(raw, type=_Key), ""
    if key.fromMe or key.remoteJid.endswith(_NOT_PEOPLE):
        return
    data: dict[str, object] = {
        "id": f"{key.id}:{kind}",
        "from": key.remoteJid,
        "alt": key.remoteJidAlt,
        "from_me": False,
        "type": kind,
        "text": text,
        "name": None,
        "timestamp": time.time(),
        "backlog": False,
        "reply_to": None,
        "target": key.id,
    }
    await memory.tell(session.id, [event_body(session, "message", data)])


async def _connection(memory: Memory, session: Session, connection: _Connection) -> None:
    state = _STATES.get(connection.state, "closed")
    if state == "closed" and connection.statusReason in _ENDINGS:
        state = _ENDINGS[connection.statusReason]
    if state == "connecting" and session.state == "qr":
        return  # it says so again and again while a code is shown
    if state in {"closed", "logged_out", "banned"}:
        reason = connection.statusReason
        session.last_error = {"code": str(reason), "message": f"disconnected: {reason}", "at": time.time()}
    phone = connection.wuid.partition("@")[0].partition(":")[0] if connection.wuid else None
    await change_state(memory, session, state, phone=phone)


def _words(content: _Content | None) -> tuple[str, str]:
    if content is None:
        return "unknown", ""
    for wrapped in (
        content.ephemeralMessage,
        content.viewOnceMessage,
        content.viewOnceMessageV2,
        content.documentWithCaptionMessage,
    ):
        if wrapped is not None:
            return _words(wrapped.message)
    if content.reactionMessage is not None:
        return "reaction", content.reactionMessage.text or ""
    if content.conversation is not None:
        return "text", content.conversation
    for name, kind in _KINDS.items():
        found = getattr(content, name)
        if isinstance(found, _Text):
            return kind, found.text or found.caption or found.selectedDisplayText or found.title or ""
    return "unknown", ""


def _seconds(stamp: float | str | None) -> float | None:
    try:
        return float(stamp) if stamp else None
    except ValueError:
        return None


def _chat(jid: str) -> str:
    """The person that an address leads to, without device and form."""
    return jid.partition("@")[0].partition(":")[0].lstrip("+")

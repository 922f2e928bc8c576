"""What Evolution's webhook tells, in the words of our contract: messages, statuses, and the state of the session."""

import hashlib
import time
from dataclasses import dataclass

import msgspec
import structlog

from replyline.evolution.content import EDIT, Json, Said, number_of, part_of, said_in, text_of
from replyline.evolution.memory import Memory, Seen, Session

log = structlog.get_logger(__name__)

BACKLOG_S = 2400.0
"""A message older than this, in seconds, is history: it is not forwarded.

15 minutes of a telephone that was offline (contracts §3.6), and 20 for which Evolution repeats a webhook (contracts §3.2).
"""
_CODES_LIVE_S = 45.0
_STATES = {"open": "open", "connecting": "connecting", "close": "closed", "refused": "logged_out"}
# Baileys' DisconnectReason, which Evolution hands on as `statusReason`.
_ENDINGS = {401: "logged_out", 403: "banned", 402: "banned", 411: "logged_out", 406: "banned"}
_STATUS_NUMBERS: dict[float | None, str] = {
    0: "ERROR",
    2: "SERVER_ACK",
    3: "DELIVERY_ACK",
    4: "READ",
    5: "PLAYED",
}  # Baileys' WAMessageStatus, which some versions hand on as it is
_STATUSES = {"SERVER_ACK": "sent", "DELIVERY_ACK": "delivered", "READ": "read", "PLAYED": "read", "ERROR": "failed"}
_NOT_PEOPLE = ("@g.us", "@broadcast", "@newsletter", "@bot")
_DEEPEST = 20
"""Objects within each other that are looked into; a file in all envelopes that there are stands less deep."""
_WHATSAPP_ITSELF = "0"
"""WhatsApp's own notices come from 0@s.whatsapp.net."""
# Where the same person's other address may stand, in the key or beside it (Evolution 2.3.0 to 2.3.3: `senderPn`).
_OTHER_ADDRESSES = (
    "remoteJidAlt",
    "senderPn",
    "senderLid",
    "participantPn",
    "participantAlt",
    "recipientLid",
    "recipientPn",
)


class Envelope(msgspec.Struct):
    """One call of Evolution's."""

    event: str
    data: msgspec.Raw
    instance: str = ""
    date_time: str = ""
    sender: str | None = None
    """The session's own number."""


class _Connection(msgspec.Struct):
    state: str
    statusReason: int | None = None
    wuid: str | None = None


class _Qr(msgspec.Struct):
    code: str | None = None
    pairingCode: str | None = None


class _QrUpdated(_Qr):
    """The code stands in `qrcode`, or by itself in other versions."""

    qrcode: _Qr | None = None


async def take(memory: Memory, session: Session, envelope: Envelope) -> None:
    """Keep what one call tells, as events to be told on. Raises msgspec.MsgspecError where it cannot be read."""
    match envelope.event:
        case "messages.upsert":
            await _message(memory, session, _object(envelope.data))
        case "send.message":
            await _sent(memory, session, _object(envelope.data))
        case "messages.update":
            for update in _objects(envelope.data):
                await _status(memory, session, update)
        case "messages.edited":
            await _edited(memory, session, _object(envelope.data), envelope.sender)
        case "messages.delete":
            await _deleted(memory, session, _object(envelope.data))
        case "connection.update":
            if envelope.date_time and envelope.date_time < session.told_at:
                return  # told late: what came after it is known already
            session.told_at = envelope.date_time or session.told_at
            await _connection(memory, session, msgspec.json.decode(envelope.data, type=_Connection))
        case "qrcode.updated":
            updated = msgspec.json.decode(envelope.data, type=_QrUpdated)
            found = updated.qrcode or updated
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


def _object(raw: msgspec.Raw) -> Json:
    return msgspec.json.decode(raw, type=dict[str, object])


def _objects(raw: msgspec.Raw) -> list[Json]:
    found = msgspec.json.decode(raw, type=dict[str, object] | list[dict[str, object]])
    return found if isinstance(found, list) else [found]


@dataclass(frozen=True, slots=True)
class _Key:
    """Which message, in which chat."""

    id: str
    jid: str
    alt: str | None
    from_me: bool

    @property
    def is_person(self) -> bool:
        """Not a group, a broadcast, a newsletter, a bot, nor WhatsApp itself."""
        return not self.jid.endswith(_NOT_PEOPLE) and _chat(self.jid) not in {"", _WHATSAPP_ITSELF}


def _key(data: Json, name: str = "key") -> _Key:
    """The key in a message. Raises msgspec.ValidationError if it is missing."""
    key = part_of(data, name) if name else data
    id_, jid = text_of(key, "id"), text_of(key, "remoteJid")
    if not id_ or not jid:
        raise msgspec.ValidationError("a message has no key")
    others = (text_of(key, other) or text_of(data, other) for other in _OTHER_ADDRESSES)
    alt = next((other for other in others if other and _chat(other) != _chat(jid)), None)
    return _Key(id_, jid, alt, key.get("fromMe") is True)


async def _message(memory: Memory, session: Session, data: Json) -> None:
    """What somebody wrote; not what went out through us, nor groups, nor history."""
    key = _key(data)
    at = number_of(data, "messageTimestamp") or None
    message = part_of(data, "message")
    if not key.is_person or not message or (at and time.time() - at > BACKLOG_S):
        return
    said = said_in(message, part_of(data, "contextInfo"))
    if key.from_me and await memory.claim_sent(session.id, _chat(key.jid), claimed_text(said), key.id) is not None:
        return
    # Of what the business does on its own telephone only what it says to the person is told: its reactions, its edits and
    # what cannot be read of it are not the person's.
    if said is None or (key.from_me and said.type in {"reaction", "edit", "revoke", "unknown"}):
        return
    event = message_event(key.id, key.jid, key.alt, said, at=at, from_me=key.from_me, name=text_of(data, "pushName"))
    file = msgspec.json.encode({"key": part_of(data, "key"), "message": _slim(message)}) if said.media else None
    seen = Seen(key.id, key.jid, key.alt, key.from_me, file)
    await memory.tell(session.id, [event_body(session, "message", event)], once=f"message:{key.id}", seen=seen)


async def _sent(memory: Memory, session: Session, data: Json) -> None:
    key = _key(data)
    said = said_in(part_of(data, "message"))
    await memory.claim_sent(session.id, _chat(key.jid), claimed_text(said), key.id)


def claimed_text(said: Said | None) -> str:
    """What a message of ours is recognised by, beside its chat."""
    if said is None:
        return ""
    return said.text if said.media is None else sent_file_text(said.type, said.text)


def sent_file_text(kind: str, caption: str) -> str:
    """The same for a file that is sent: Evolution reports its caption with it."""
    return f"[{kind}] {caption}"


def _slim(message: Json, depth: int = 0) -> Json:
    """A message with a file, without the parts that only make it large."""
    return {
        name: _slim(part_of(message, name), depth + 1) if isinstance(found, dict) and depth < _DEEPEST else found
        for name, found in message.items()
        if name not in {"base64", "jpegThumbnail", "thumbnail", "scansSidecar", "waveform", "contextInfo"}
    }


def message_event(
    message_id: str, jid: str, alt: str | None, said: Said, *, at: float | None, from_me: bool = False, name: str = ""
) -> Json:
    """The data of a `message` event."""
    return {
        "id": message_id,
        "from": jid,
        "alt": alt,
        "from_me": from_me,
        "type": said.type,
        "text": said.text,
        "name": name or None if not from_me else None,
        "timestamp": at,
        "backlog": False,
        "reply_to": said.reply_to,
        "target": said.target,
        "media": None if said.media is None else {"id": message_id, **said.media},
        "content": said.parts,
    }


async def _status(memory: Memory, session: Session, update: Json) -> None:
    key, changed = part_of(update, "key"), part_of(update, "update")
    wa_id = text_of(update, "keyId") or text_of(key, "id")
    number = number_of(changed, "status")
    name = text_of(update, "status") or text_of(changed, "status") or _STATUS_NUMBERS.get(number, "")
    status = _STATUSES.get(name)
    from_me = update.get("fromMe", key.get("fromMe", True))
    if status is None or not wa_id or from_me is not True:
        return
    data: Json = {
        "wa_id": wa_id,
        "message_id": await memory.key_of(session.id, wa_id),
        "status": status,
        "timestamp": time.time(),
        "error": {"code": "ERROR", "message": "WhatsApp did not take it"} if status == "failed" else None,
    }
    await memory.tell(session.id, [event_body(session, "status", data)], once=f"status:{wa_id}:{status}")


async def _edited(memory: Memory, session: Session, data: Json, own: str | None) -> None:
    """A person's edit comes as if it were ours: `fromMe: true`, and the business's own number for the chat.

    So the chat is that of the message with this id (Evolution API, issues 1367 and 1380). Every other note of WhatsApp's about a
    message comes under the same name: a revoke, which is told as `messages.delete` too, a timer, a history notice.
    """
    if data.get("type", EDIT[0]) not in EDIT or not part_of(data, "key"):
        return
    key = _key(data)
    seen = await memory.seen(session.id, key.id)
    if seen is not None:
        key = _Key(key.id, seen.jid, seen.alt, seen.from_me)
    elif key.from_me:
        if _chat(key.jid) == _chat(own or session.phone or ""):
            log.info("evolution.edit_of_unknown_message", session=session.id)
        return
    edited = part_of(data, "editedMessage") or part_of(data, "message")
    said = said_in(part_of(edited, "message") or edited)
    if key.from_me or not key.is_person or said is None or not said.text:
        return
    # A message may be edited again and again: each edit is one of its own.
    which = hashlib.sha256(f"{text_of(data, 'timestampMs')}\0{said.text}".encode()).hexdigest()[:12]
    await _amend(memory, session, key, Said("edit", said.text, key.id), f"edit:{which}")


async def _deleted(memory: Memory, session: Session, data: Json) -> None:
    key = _key(data, "key" if part_of(data, "key") else "")
    if not key.from_me and key.is_person:
        await _amend(memory, session, key, Said("revoke", "", key.id), "revoke")


async def _amend(memory: Memory, session: Session, key: _Key, said: Said, which: str) -> None:
    event = message_event(f"{key.id}:{which}", key.jid, key.alt, said, at=time.time())
    await memory.tell(session.id, [event_body(session, "message", event)])


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


def _chat(jid: str) -> str:
    """The person that an address leads to, without device and form."""
    return jid.partition("@")[0].partition(":")[0].lstrip("+")

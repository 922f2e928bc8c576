"""A stand-in for the WhatsApp QR gateway: our own contract, with a memory of what was sent under which id."""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal
from urllib.parse import unquote

import msgspec

from replyline.standins.callbacks import Callback
from replyline.standins.faults import (
    CALL_FAULTS,
    CallbackDelay,
    CallbackDrop,
    CallbackReorder,
    CallbackRepeat,
    Error,
    StatusFailed,
)
from replyline.standins.messaging import Copies, MessagingConfiguration, MessagingStandin, Status, Url, Written
from replyline.standins.server import BadControl, Reply, Request, merged, read_control

MAX_REMEMBERED = 100_000
"""Sends whose repeat is recognised; the oldest are forgotten first."""
_PATH = re.compile(r"^/v1/sessions/([^/]+)(?:/(messages|read|typing|logout))?$")
_JID = re.compile(r"^\+?\d{5,20}(?::\d+)?(?:@(?:s\.whatsapp\.net|c\.us|lid|g\.us))?$")
_ERRORS: dict[str, tuple[int, bool]] = {
    "unauthorized": (401, False),
    "not_found": (404, False),
    "unknown_session": (404, False),
    "in_flight": (409, True),
    "not_connected": (409, True),
    "invalid": (422, False),
    "not_on_whatsapp": (422, False),
    "too_large": (413, False),
    "restricted": (423, False),
    "paced": (429, True),
    "internal": (500, True),
    "unavailable": (503, True),
}
_BY_STATUS = {401: "unauthorized", 404: "unknown_session", 409: "not_connected", 413: "too_large", 423: "restricted"}
_BY_STATUS |= {422: "invalid", 429: "paced", 503: "unavailable"}

State = Literal["qr", "connecting", "open", "closed", "logged_out", "banned"]


class Session(msgspec.Struct, forbid_unknown_fields=True):
    """One connected account; `state` other than `open` refuses sends."""

    secret: str = ""
    token: str | None = None
    callback_url: Url | None = None
    state: State = "open"


class _Configuration(MessagingConfiguration, forbid_unknown_fields=True):
    sessions: dict[str, dict[str, object]] = msgspec.field(default_factory=dict)


class _Send(msgspec.Struct):
    to: str
    type: Literal["text"]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=65_536)]
    reply_to: str | None = None
    typing_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0


class _PersonText(msgspec.Struct, rename={"sender": "from"}, forbid_unknown_fields=True):
    sender: str
    text: str
    id: str | None = None
    name: str | None = None


class _Inbound(msgspec.Struct, rename={"sender": "from"}, forbid_unknown_fields=True):
    session: str
    sender: str | None = None
    text: str | None = None
    id: str | None = None
    name: str | None = None
    times: Copies = 1
    messages: list[_PersonText] = []


Event = Mapping[str, object]


class QrGatewayStandin(MessagingStandin[Event]):
    """The gateway, without a telephone behind it."""

    name: ClassVar[str] = "qr_gateway"
    # The contract has one event a callback: there are no batches.
    takes = (*CALL_FAULTS, StatusFailed, CallbackRepeat, CallbackReorder, CallbackDelay, CallbackDrop)

    def __init__(self) -> None:
        super().__init__()
        self._sessions: dict[str, Session] = {}
        self._answered: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._decoder = msgspec.json.Decoder(_Send)

    def configure(self, raw: bytes) -> None:
        """Sessions by name, which statuses follow a send, and how callbacks are tried again."""
        given = read_control(raw, _Configuration)
        self._sessions = merged(self._sessions, given.sessions, Session)
        self.configure_messaging(given)

    def encode(self, items: Sequence[Event]) -> bytes:
        """One event."""
        (event,) = items
        return msgspec.json.encode(event)

    def sign(self, secret: str, raw: bytes) -> Mapping[str, str]:
        """`X-Gateway-Signature`, over the time in seconds, a dot and the body."""
        stamp = str(int(time.time()))
        signature = hmac.new(secret.encode(), stamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
        return {"X-Gateway-Timestamp": stamp, "X-Gateway-Signature": f"v1={signature}"}

    async def answer(self, request: Request) -> Reply:
        """A send, or something about a session."""
        path = _PATH.match(request.path)
        if path is None:
            return _error("not_found", f"no route {request.method} {request.path}")
        name = unquote(path.group(1))
        session = self._sessions.get(name)
        if session is None:
            return _error("unknown_session", "no such session")
        if session.token is not None and request.bearer() != session.token:
            return _error("unauthorized", "wrong token")
        match request.method, path.group(2):
            case "POST", "messages":
                return self._send(name, session, request)
            case "GET", None:
                return Reply(200, {"id": name, "state": session.state, "phone": None, "qr": None})
            case "POST", "logout":
                session.state = "logged_out"
                return Reply(200, {"id": name, "state": session.state})
            case "POST", "read" | "typing":
                return Reply(202, {})
            case _:
                return _error("not_found", f"no route {request.method} {request.path}")

    def _send(self, name: str, session: Session, request: Request) -> Reply:
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            return _error("invalid", "Idempotency-Key is missing")
        if known := self._answered.get((name, key)):
            return Reply(200, {"message_id": key, "wa_id": known})
        if session.state != "open":
            return _error("not_connected", f"the session is {session.state}")
        try:
            send = self._decoder.decode(request.raw)
        except msgspec.MsgspecError as error:
            return _error("invalid", str(error))
        if not _JID.match(send.to):
            return _error("invalid", "`to` is neither a phone number nor a WhatsApp address")
        return self._accept(name, session, key, send, request)

    def _accept(self, name: str, session: Session, key: str, send: _Send, request: Request) -> Reply:
        wa_id = f"3EB0{secrets.token_hex(9).upper()}"
        self._answered[name, key] = wa_id
        while len(self._answered) > MAX_REMEMBERED:
            self._answered.popitem(last=False)
        failed = self.faults.pick(request.path, request.raw, (StatusFailed,)) if self.faults else None
        if failed is not None:
            events = [_status(name, wa_id, key, "failed")]
        else:
            self.deliver(send.to, send.text, wa_id, key)
            events = [_status(name, wa_id, key, status) for status in self.statuses]
        url = session.callback_url
        if url is not None and events:
            self.callbacks.later(*(Callback(url, session.secret, (event,)) for event in events))
        return Reply(202, {"message_id": key, "wa_id": wa_id})

    def error_reply(self, fault: Error) -> Reply:
        """In the gateway's own form; a status alone has the code that goes with it."""
        if fault.code is not None and fault.code not in _ERRORS:
            raise BadControl(f"code is one of {', '.join(sorted(_ERRORS))}")
        code = str(fault.code) if fault.code is not None else _BY_STATUS.get(fault.status or 500)
        if code is None:
            code = "internal" if (fault.status or 500) >= 500 else "invalid"
        return _error(code, "told to fail", status=fault.status)

    def written(self, raw: bytes) -> Written[Event]:
        """A callback for each message."""
        given = read_control(raw, _Inbound)
        session = self._sessions.get(given.session)
        if session is None or session.callback_url is None:
            raise BadControl("no such session, or it has no callback_url")
        texts = list(given.messages)
        if given.sender is not None and given.text is not None:
            texts.insert(0, _PersonText(given.sender, given.text, given.id, given.name))
        if not texts:
            raise BadControl("a message has `from` and `text`")
        url, secret, ids = session.callback_url, session.secret, [text.id or _new_id() for text in texts]
        callbacks = tuple(
            Callback(url, secret, (_message(given.session, message_id, text),))
            for message_id, text in zip(ids, texts, strict=True)
        )
        return Written(callbacks, given.times, ids)


def _message(session: str, message_id: str, text: _PersonText) -> Event:
    data = {
        "id": message_id,
        "from": text.sender,
        "type": "text",
        "text": text.text,
        "name": text.name,
        "timestamp": time.time(),
    }
    return _event(session, "message", data)


def _status(session: str, wa_id: str, key: str, status: Status | Literal["failed"]) -> Event:
    data: dict[str, object] = {"wa_id": wa_id, "message_id": key, "status": status, "timestamp": time.time()}
    if status == "failed":
        data["error"] = "told to fail"
    return _event(session, "status", data)


def _event(session: str, kind: str, data: Mapping[str, object]) -> Event:
    return {"id": f"evt_{secrets.token_hex(8)}", "type": kind, "session": session, "ts": time.time(), "data": data}


def _new_id() -> str:
    return secrets.token_hex(10).upper()


def _error(code: str, message: str, *, status: int | None = None) -> Reply:
    usual, retryable = _ERRORS[code]
    error: dict[str, object] = {
        "code": code,
        "message": message,
        "retryable": retryable,
        "retry_after_ms": 1000 if code in {"not_connected", "in_flight", "paced"} else None,
    }
    if code == "restricted":
        error["until"] = time.time() + 3600
    return Reply(usual if status is None else status, {"error": error})

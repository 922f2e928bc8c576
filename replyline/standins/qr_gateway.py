"""A stand-in for the WhatsApp QR gateway: our own contract, with a memory of what was sent under which id."""

import hashlib
import hmac
import math
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal
from urllib.parse import unquote

import msgspec
from aiohttp import web

from replyline.standins.callbacks import Callback
from replyline.standins.faults import (
    CALL_FAULTS,
    CallbackDelay,
    CallbackDrop,
    CallbackReorder,
    CallbackRepeat,
    Error,
    StatusFailed,
    StatusFirst,
)
from replyline.standins.messaging import Copies, MessagingConfiguration, MessagingStandin, Sent, Status, Url, Written
from replyline.standins.qr_messages import PersonText, QrFiles, Send, SendText, message_data
from replyline.standins.qr_sessions import BY_STATUS, ERRORS, Session, State, gateway_error
from replyline.standins.server import BadControl, ControlRoute, Reply, Request, json_response, merged, read_control

MAX_REMEMBERED = 100_000
"""Sends whose repeat is recognised; the oldest are forgotten first."""
_PATH = re.compile(r"^/v1/sessions/([^/]+)(?:/(messages|read|typing|pair|restart|logout|media/([^/]+)))?$")
_JID = re.compile(r"^\+?\d{5,20}(?::\d+)?(?:@(?:s\.whatsapp\.net|c\.us|lid|g\.us))?$")


class _Configuration(MessagingConfiguration, forbid_unknown_fields=True):
    sessions: dict[str, dict[str, object]] = msgspec.field(default_factory=dict)


class _Put(msgspec.Struct):
    webhook_url: Url
    webhook_secret: Annotated[str, msgspec.Meta(min_length=1)]
    label: str | None = None


class _Pair(msgspec.Struct):
    phone: Annotated[str, msgspec.Meta(pattern=r"^\d{6,20}$")]


class _Sign(msgspec.Struct):
    to: str
    message_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)] | None = None
    on: bool | None = None


class SignGiven(msgspec.Struct, frozen=True):
    """A person was shown that their message was read, or that somebody writes (`on`) or no longer does."""

    at: float
    session: str
    kind: str
    to: str
    on: bool | None
    message_ids: list[str] | None


class _Change(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /_session`: something happened to a session; the event is posted."""

    session: str
    state: State
    restricted_until: float | None = None
    last_error: dict[str, object] | None = None


class _Scan(msgspec.Struct, forbid_unknown_fields=True):
    session: str
    phone: str = "4915100000000"


class _Inbound(msgspec.Struct, rename={"sender": "from"}, kw_only=True):
    session: str
    sender: str | None = None
    text: str | None = None
    times: Copies = 1
    messages: list[PersonText] = []


Event = Mapping[str, object]


class QrGatewayStandin(MessagingStandin[Event]):
    """The gateway, without a telephone behind it."""

    name: ClassVar[str] = "qr_gateway"
    # The contract has one event a callback: there are no batches.
    takes = (*CALL_FAULTS, StatusFailed, StatusFirst, CallbackRepeat, CallbackReorder, CallbackDelay, CallbackDrop)

    def __init__(self) -> None:
        super().__init__()
        self._sessions: dict[str, Session] = {}
        self._answered: OrderedDict[tuple[str, str], tuple[str, bytes]] = OrderedDict()
        self._signs: deque[SignGiven] = deque(maxlen=MAX_REMEMBERED)
        self._free_at: dict[str, float] = {}
        self._files = QrFiles()
        self._decoder = msgspec.json.Decoder[Send](Send)

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
            return gateway_error("not_found", f"no route {request.method} {request.path}")
        name = unquote(path.group(1))
        session = self._sessions.get(name)
        if session is not None and session.token is not None and request.bearer() != session.token:
            return gateway_error("unauthorized", "wrong token")
        try:
            if request.method == "PUT" and path.group(2) is None:
                return self._put(name, msgspec.json.decode(request.raw, type=_Put))
            if session is None:
                return gateway_error("unknown_session", "no such session")
            if path.group(3) is not None and request.method == "GET":
                return self._files.fetch(name, unquote(path.group(3)))
            return await self._of_session(name, session, path.group(2), request)
        except msgspec.MsgspecError as error:
            return gateway_error("invalid", str(error))

    async def _of_session(self, name: str, session: Session, part: str | None, request: Request) -> Reply:
        match request.method, part:
            case "POST", "messages":
                return await self._send(name, session, request)
            case "GET", None:
                return Reply(200, session.shown(name))
            case "DELETE", None:
                del self._sessions[name]
                return Reply(204)
            case "POST", "pair":
                return self._pair(name, session, msgspec.json.decode(request.raw, type=_Pair))
            case "POST", "restart":
                return self._restart(name, session)
            case "POST", "logout":
                session.phone = None
                return self._change(name, session, "logged_out")
            case "POST", "read" | "typing" as kind:
                sign = msgspec.json.decode(request.raw, type=_Sign)
                self._signs.append(SignGiven(time.time(), name, kind, sign.to, sign.on, sign.message_ids))
                return Reply(202, {})
            case _:
                return gateway_error("not_found", f"no route {request.method} {request.path}")

    def _put(self, name: str, put: _Put) -> Reply:
        session = self._sessions.setdefault(name, Session(state="qr", qr=f"2@{secrets.token_urlsafe(60)}"))
        session.callback_url, session.secret, session.label = put.webhook_url, put.webhook_secret, put.label
        self._post_session(name, session)
        return Reply(200, session.shown(name))

    def _restart(self, name: str, session: Session) -> Reply:
        """Connect anew; one without a login shows a new code."""
        if session.state == "open" or session.phone:
            return self._change(name, session, "open")
        session.qr = f"2@{secrets.token_urlsafe(60)}"
        return self._change(name, session, "qr")

    def _pair(self, name: str, session: Session, pair: _Pair) -> Reply:
        if session.state == "open":
            return gateway_error("already_open", "the session is open")
        session.pairing_code = f"{secrets.token_hex(4).upper()}"
        session.label = session.label or pair.phone
        return self._change(name, session, "qr")

    def _change(self, name: str, session: Session, state: State) -> Reply:
        session.state = state
        if state != "qr":
            session.qr = session.pairing_code = None
        self._post_session(name, session)
        return Reply(200, session.shown(name))

    def _post_session(self, name: str, session: Session) -> None:
        if session.callback_url is not None:
            event = _event(name, "session", session.shown(name))
            self.callbacks.later(Callback(session.callback_url, session.secret, (event,)))

    async def _send(self, name: str, session: Session, request: Request) -> Reply:
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            return gateway_error("invalid", "Idempotency-Key is missing")
        if known := self._answered.get((name, key)):
            if known[1] != hashlib.sha256(request.raw).digest():
                return gateway_error("key_reused", "the key came with another message before")
            return Reply(200, {"message_id": key, "wa_id": known[0]})
        if session.state in {"logged_out", "banned"}:
            return gateway_error(session.state, f"the session is {session.state}")
        if session.state != "open":
            return gateway_error("not_connected", f"the session is {session.state}")
        send = self._decoder.decode(request.raw)
        if not _JID.match(send.to):
            return gateway_error("invalid", "`to` is neither a phone number nor a WhatsApp address")
        if (wait_ms := self._wait_ms(name, session)) > 0:
            return gateway_error("paced", "too fast for one number", retry_after_ms=wait_ms)
        return await self._accept(name, session, key, send, request)

    def _wait_ms(self, name: str, session: Session) -> int:
        """How long until the number may send again."""
        now = time.monotonic()
        wait_s = self._free_at.get(name, now) - now
        if wait_s > 0.001:
            return math.ceil(wait_s * 1000)
        self._free_at[name] = now + session.pace_ms / 1000
        return 0

    async def _accept(self, name: str, session: Session, key: str, send: Send, request: Request) -> Reply:
        wa_id = f"3EB0{secrets.token_hex(9).upper()}"
        self._answered[name, key] = (wa_id, hashlib.sha256(request.raw).digest())
        while len(self._answered) > MAX_REMEMBERED:
            self._answered.popitem(last=False)
        failed = self.faults.pick(request.path, request.raw, (StatusFailed,)) if self.faults else None
        if failed is not None:
            events = [_status(name, wa_id, key, "failed", code=failed.code)]
        else:
            self.deliver(_sent(send, wa_id, key))
            events = [_status(name, wa_id, key, status) for status in self.statuses]
        url = session.callback_url
        if url is not None and events and session.acks:
            callbacks = [Callback(url, session.secret, (event,)) for event in events]
            if self.faults and self.faults.pick(request.path, request.raw, (StatusFirst,)):
                await self.callbacks.at_once(*callbacks)
            else:
                self.callbacks.later(*callbacks)
        return Reply(202, {"message_id": key, "wa_id": wa_id})

    def control_routes(self) -> list[ControlRoute]:
        """Beside the usual ones: what happens to a session, and which signs of life were given."""
        return [
            *super().control_routes(),
            ("POST", "/_session", self._post_change),
            ("POST", "/_scan", self._post_scan),
            ("GET", "/_presence", self._get_presence),
        ]

    async def _post_change(self, received: web.Request) -> web.Response:
        given = read_control(await received.read(), _Change)
        session = self._known(given.session)
        session.restricted_until, session.last_error = given.restricted_until, given.last_error
        return json_response(self._change(given.session, session, given.state).body)

    async def _post_scan(self, received: web.Request) -> web.Response:
        """Somebody scans the code, or types the other one."""
        given = read_control(await received.read(), _Scan)
        session = self._known(given.session)
        session.phone = given.phone
        return json_response(self._change(given.session, session, "open").body)

    async def _get_presence(self, _: web.Request) -> web.Response:
        return json_response(list(self._signs))

    def _known(self, name: str) -> Session:
        session = self._sessions.get(name)
        if session is None:
            raise BadControl("no such session")
        return session

    def error_reply(self, fault: Error) -> Reply:
        """In the gateway's own form; a status alone has the code that goes with it."""
        if fault.code is not None and fault.code not in ERRORS:
            raise BadControl(f"code is one of {', '.join(sorted(ERRORS))}")
        code = str(fault.code) if fault.code is not None else BY_STATUS.get(fault.status or 500)
        if code is None:
            code = "internal" if (fault.status or 500) >= 500 else "invalid"
        return gateway_error(code, "told to fail", status=fault.status)

    def written(self, raw: bytes) -> Written[Event]:
        """A callback for each message."""
        given = read_control(raw, _Inbound)
        session = self._sessions.get(given.session)
        if session is None or session.callback_url is None:
            raise BadControl("no such session, or it has no callback_url")
        texts = list(given.messages)
        if given.sender is not None and given.text is not None:
            own = {
                name: value
                for name, value in msgspec.json.decode(raw, type=dict[str, object]).items()
                if name not in {"session", "times", "messages"}
            }
            try:
                texts.insert(0, msgspec.convert(own, PersonText))
            except msgspec.ValidationError as error:
                raise BadControl(str(error)) from error
        if not texts:
            raise BadControl("a message has `from` and `text`")
        url, secret, ids = session.callback_url, session.secret, [text.id or _new_id() for text in texts]
        callbacks = tuple(
            Callback(url, secret, (self._message(given.session, message_id, text),))
            for message_id, text in zip(ids, texts, strict=True)
        )
        return Written(callbacks, given.times, ids)

    def _message(self, session: str, message_id: str, text: PersonText) -> Event:
        media = self._files.keep(session, message_id, text.file)
        return _event(session, "message", message_data(message_id, text, media))


def _sent(send: Send, wa_id: str, key: str) -> Sent:
    if isinstance(send, SendText):
        return Sent(time.time(), send.to, send.text, wa_id, key, context=send.reply_to)
    body = {"link": send.link, "caption": send.caption, "filename": send.filename}
    return Sent(time.time(), send.to, send.caption or "", wa_id, key, send.kind, send.reply_to, body)


def _status(
    session: str, wa_id: str, key: str, status: Status | Literal["failed"], *, code: int | None = None
) -> Event:
    data: dict[str, object] = {"wa_id": wa_id, "message_id": key, "status": status, "timestamp": time.time()}
    data["error"] = {"code": str(code), "message": "told to fail"} if status == "failed" else None
    return _event(session, "status", data)


def _event(session: str, kind: str, data: Mapping[str, object]) -> Event:
    return {"id": f"evt_{secrets.token_hex(8)}", "type": kind, "session": session, "ts": time.time(), "data": data}


def _new_id() -> str:
    return secrets.token_hex(10).upper()

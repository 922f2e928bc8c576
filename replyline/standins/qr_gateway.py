"""A stand-in for the WhatsApp QR gateway: our own contract, with a memory of what was sent under which id."""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from replyline.standins.callbacks import Callbacks
from replyline.standins.server import BadConfiguration, Reply, Request, Standin

_PATH = re.compile(r"^/v1/sessions/([^/?]+)/messages$")
_SESSION_PATH = re.compile(r"^/v1/sessions/([^/?]+)$")
_MAX_SENT = 100_000


class Session(msgspec.Struct, forbid_unknown_fields=True):
    """One connected account; `state` other than `open` refuses sends."""

    secret: str = ""
    token: str | None = None
    callback_url: str | None = None
    state: Literal["qr", "connecting", "open", "closed", "logged_out", "banned"] = "open"


Status = Literal["sent", "delivered", "read"]


class _Configuration(msgspec.Struct, forbid_unknown_fields=True):
    sessions: dict[str, Session] = {}
    statuses: list[Status] | None = None


class _Send(msgspec.Struct):
    to: Annotated[str, msgspec.Meta(min_length=1)]
    type: Literal["text"]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=65_536)]
    reply_to: str | None = None
    typing_ms: int = 0


class _Inbound(msgspec.Struct, rename={"sender": "from"}, forbid_unknown_fields=True):
    session: str
    sender: str
    text: str
    id: str | None = None
    name: str | None = None
    times: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1


class QrGatewayStandin(Standin):
    """The gateway, without a telephone behind it."""

    name = "qr_gateway"

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: Callbacks[Mapping[str, object]] = Callbacks(self.faults)
        self._sessions: dict[str, Session] = {}
        self._statuses: list[Status] = ["sent", "delivered"]
        self._sent: deque[dict[str, object]] = deque(maxlen=_MAX_SENT)
        self._answered: OrderedDict[tuple[str, str], str] = OrderedDict()

    def configure(self, raw: bytes) -> None:
        """Sessions by name, and which statuses follow a send."""
        try:
            given = msgspec.json.decode(raw, type=_Configuration)
        except msgspec.MsgspecError as error:
            raise BadConfiguration(str(error)) from error
        self._sessions |= given.sessions
        if given.statuses is not None:
            self._statuses = given.statuses

    def add_routes(self, server: web.Application) -> None:
        """What people would have seen, and what they write."""
        server.router.add_get("/_sent", self._get_sent)
        server.router.add_delete("/_sent", self._delete_sent)
        server.router.add_post("/_inbound", self._post_inbound)

    async def close(self) -> None:
        """Stop, and give up callbacks that wait."""
        await self.callbacks.close()
        await super().close()

    async def answer(self, request: Request) -> Reply:
        """A send, or the state of a session."""
        if state := _SESSION_PATH.match(request.path):
            session = self._sessions.get(state.group(1))
            if session is None:
                return _error(404, "unknown_session", "no such session")
            return Reply(200, {"id": state.group(1), "state": session.state, "phone": None, "qr": None})
        path = _PATH.match(request.path)
        if path is None or request.method != "POST":
            return _error(404, "not_found", f"no route {request.method} {request.path}")
        name = path.group(1)
        session = self._sessions.get(name)
        if session is None:
            return _error(404, "unknown_session", "no such session")
        if session.token is not None and request.headers.get("Authorization", "") != f"Bearer {session.token}":
            return _error(401, "unauthorized", "wrong token")
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            return _error(422, "invalid", "Idempotency-Key is missing")
        if known := self._answered.get((name, key)):
            return Reply(200, {"message_id": key, "wa_id": known})
        if session.state != "open":
            return _error(409, "not_connected", f"the session is {session.state}", retry_after_ms=1000)
        try:
            send = msgspec.json.decode(request.raw, type=_Send)
        except msgspec.MsgspecError as error:
            return _error(422, "invalid", str(error))
        return self._accept(name, session, key, send)

    def _accept(self, name: str, session: Session, key: str, send: _Send) -> Reply:
        wa_id = secrets.token_hex(10).upper()
        self._answered[name, key] = wa_id
        while len(self._answered) > _MAX_SENT:
            self._answered.popitem(last=False)
        self._sent.append({"at": time.time(), "to": send.to, "text": send.text, "id": wa_id, "our_id": key})
        for status in self._statuses:
            data = {"wa_id": wa_id, "message_id": key, "status": status, "timestamp": time.time()}
            self._call_back(session, [_event(name, "status", data)])
        return Reply(202, {"message_id": key, "wa_id": wa_id})

    def _call_back(self, session: Session, events: Sequence[Mapping[str, object]]) -> None:
        if session.callback_url is not None:
            for event in events:
                self.callbacks.later(session.callback_url, [event], _body, lambda raw: _signed(session, raw))

    async def _get_sent(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(list(self._sent)), content_type="application/json")

    async def _delete_sent(self, _: web.Request) -> web.Response:
        self._sent.clear()
        return web.Response(body=b"[]", content_type="application/json")

    async def _post_inbound(self, received: web.Request) -> web.Response:
        """A person writes: `{session, from, text, id?, name?, times?}`."""
        try:
            given = msgspec.json.decode(await received.read(), type=_Inbound)
        except msgspec.MsgspecError as error:
            return web.json_response({"error": str(error)}, status=400)
        session = self._sessions.get(given.session)
        if session is None or session.callback_url is None:
            return web.json_response({"error": "no such session, or it has no callback_url"}, status=400)
        message_id = given.id or secrets.token_hex(10).upper()
        data = {
            "id": message_id,
            "from": given.sender,
            "type": "text",
            "text": given.text,
            "name": given.name,
            "timestamp": time.time(),
        }
        event = _event(given.session, "message", data)
        for _ in range(given.times - 1):
            self._call_back(session, [event])
        status = await self.callbacks.now(session.callback_url, [event], _body, lambda raw: _signed(session, raw))
        if not 200 <= status < 300:
            self._call_back(session, [event])
        return web.json_response({"status": status, "ids": [message_id]})


def _event(session: str, kind: str, data: Mapping[str, object]) -> dict[str, object]:
    return {"id": f"evt_{secrets.token_hex(8)}", "type": kind, "session": session, "ts": time.time(), "data": data}


def _body(events: Sequence[Mapping[str, object]]) -> bytes:
    return msgspec.json.encode(events[0])


def _signed(session: Session, raw: bytes) -> dict[str, str]:
    stamp = str(int(time.time()))
    signature = hmac.new(session.secret.encode(), stamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
    return {"X-Gateway-Timestamp": stamp, "X-Gateway-Signature": f"v1={signature}"}


def _error(status: int, code: str, message: str, *, retry_after_ms: int | None = None) -> Reply:
    error = {
        "code": code,
        "message": message,
        "retryable": status in {409, 423, 429} or status >= 500,
        "retry_after_ms": retry_after_ms,
    }
    return Reply(status, {"error": error})

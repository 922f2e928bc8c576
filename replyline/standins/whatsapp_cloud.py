"""A stand-in for Meta's WhatsApp Cloud API: sends, their statuses, files, and what people do as signed callbacks."""

import base64
import re
import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import msgspec
from aiohttp import web

from replyline.standins import cloud_callbacks
from replyline.standins.callbacks import Callback
from replyline.standins.cloud_callbacks import Inbound, Item, Number, SendOf, inbound_items, new_wamid
from replyline.standins.cloud_limits import CloudLimits
from replyline.standins.cloud_media import CloudMedia
from replyline.standins.cloud_sends import Send, read_send
from replyline.standins.faults import Error, StatusFailed, StatusFirst
from replyline.standins.graph_errors import code_for, graph_error, unknown_object
from replyline.standins.messaging import MAX_SENT, MessagingConfiguration, MessagingStandin, Sent, Written
from replyline.standins.server import BadControl, ControlRoute, Reply, Request, json_response, merged, read_control

_PATH = re.compile(r"^/v\d+\.\d+/([^/]+)(?:/(messages|media|subscribed_apps))?$")
_FILE = re.compile(r"^/files/([A-Za-z0-9_-]+)$")
_DAY_S = 86_400.0


class _Configuration(MessagingConfiguration, forbid_unknown_fields=True):
    numbers: dict[str, dict[str, object]] = msgspec.field(default_factory=dict)


class _Verify(msgspec.Struct, forbid_unknown_fields=True):
    phone_number_id: str


class _Post(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /_post`: any body at all, signed rightly or not."""

    phone_number_id: str
    body: msgspec.Raw = msgspec.Raw()
    raw: str | None = None
    sign: Literal["right", "wrong", "none"] = "right"


class ReadCall(msgspec.Struct, frozen=True):
    """A message of a person was marked as read, maybe with the sign that an answer is being written."""

    at: float
    phone_number_id: str
    message_id: str
    typing: bool


class WhatsAppCloudStandin(MessagingStandin[Item]):
    """Meta, as far as messages go."""

    name: ClassVar[str] = "whatsapp_cloud"

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, Number] = {}
        self._media = CloudMedia()
        self._limits = CloudLimits()
        self._read: deque[ReadCall] = deque(maxlen=MAX_SENT)
        self._wrote: dict[tuple[str, str], float] = {}

    def configure(self, raw: bytes) -> None:
        """Numbers by phone_number_id, which statuses follow a send, and how callbacks are tried again."""
        given = read_control(raw, _Configuration)
        self._numbers = merged(self._numbers, given.numbers, Number)
        self.configure_messaging(given)

    def encode(self, items: Sequence[Item]) -> bytes:
        """In Meta's envelope."""
        return cloud_callbacks.encode(items)

    def sign(self, secret: str, raw: bytes) -> Mapping[str, str]:
        """As Meta does."""
        return cloud_callbacks.sign(secret, raw)

    def control_routes(self) -> list[ControlRoute]:
        """Beside the usual ones: verify a callback URL, post anything to it, put files there, see what was read and limited."""
        return [
            *super().control_routes(),
            ("POST", "/_verify", self._post_verify),
            ("POST", "/_post", self._post_anything),
            ("POST", "/_media", self._post_media),
            ("GET", "/_read", self._get_read),
            ("DELETE", "/_read", self._delete_read),
            ("GET", "/_limits", self._get_limits),
        ]

    async def answer(self, request: Request) -> Reply:
        """A call of Graph, checked as Meta checks them."""
        token = request.bearer() or request.query.get("access_token")
        known = token is not None and any(token == number.access_token for number in self._numbers.values())
        if (file := _FILE.match(request.path)) is not None:
            return self._media.fetch(file.group(1), allowed=known, url=self.url)
        if token is None:
            return graph_error(200, "An access token is required to request this resource")
        if not known:
            return graph_error(190, "Invalid OAuth access token - Cannot parse access token")
        path = _PATH.match(request.path)
        if path is None:
            return unknown_object(request.path.strip("/"), request.method)
        return await self._of_object(path.group(1), path.group(2), token, request)

    async def _of_object(self, name: str, part: str | None, token: str, request: Request) -> Reply:
        number = self._numbers.get(name)
        if number is None or number.access_token != token:
            return self._of_other(name, part, token, request)
        match request.method, part:
            case "GET", None:
                return _state(name, number, request.query.get("fields", ""))
            case "POST", "messages":
                return await self._send(name, number, request)
            case "POST", "media":
                return self._media.upload(name, request.raw, request.headers.get("Content-Type", ""))
            case _:
                return unknown_object(name, request.method)

    def _of_other(self, name: str, part: str | None, token: str, request: Request) -> Reply:
        """A file, a business account, or the token itself."""
        if part == "subscribed_apps" and any(number.waba_id == name for number in self._numbers.values()):
            return Reply(200, {"data": []} if request.method == "GET" else {"success": True})
        if name == "debug_token" and request.method == "GET":
            asked = request.query.get("input_token")
            valid = any(number.access_token == asked for number in self._numbers.values())
            return Reply(200, {"data": {"is_valid": valid, "expires_at": 0}})
        if part is None and request.method == "GET":
            return self._media.describe(name, request.query.get("phone_number_id"), self.url)
        if part is None and request.method == "DELETE":
            return self._media.delete(name)
        return unknown_object(name, request.method)

    async def _send(self, number_id: str, number: Number, request: Request) -> Reply:
        send = read_send(request.raw)
        if isinstance(send, Reply):
            return send
        if send.status is not None:
            typing = send.typing_indicator is not None
            self._read.append(ReadCall(time.time(), number_id, send.message_id or "", typing))
            return Reply(200, {"success": True})
        if number.refuse_with is not None:
            return graph_error(number.refuse_with, "configured to refuse")
        if number.status != "CONNECTED":
            return graph_error(133010, f"the number is {number.status}")
        recipient = (send.to or send.recipient or "").lstrip("+")
        limited = self._limits.check(number_id, recipient, per_second=number.messages_per_second, pair=number.pair)
        if limited is not None:
            return graph_error(limited, "too many messages")
        return await self._accept(number_id, number, send, request)

    async def _accept(self, number_id: str, number: Number, send: Send, request: Request) -> Reply:
        recipient = send.to or send.recipient or ""
        wa_id = recipient.lstrip("+")
        known_as = {"recipient_id": wa_id} if send.to else {"recipient_user_id": recipient}
        wamid, our_id = new_wamid(), send.biz_opaque_callback_data
        failure = self._failure(number_id, number, send, request)
        if failure is None:
            context = send.context.message_id if send.context else None
            body = msgspec.to_builtins(getattr(send, send.type))
            self.deliver(Sent(time.time(), wa_id, send.words(), wamid, our_id, send.type, context, body))
        send_of = SendOf(number_id, number, wamid, known_as, our_id)
        items = [send_of.failed(failure)] if failure else [send_of.status(status) for status in self.statuses]
        if number.callback_url is not None and items:
            callbacks = [Callback(number.callback_url, number.app_secret, (item,)) for item in items]
            if self.faults and self.faults.pick(request.path, request.raw, (StatusFirst,)):
                await self.callbacks.at_once(*callbacks)
            else:
                self.callbacks.later(*callbacks)
        contact = {"input": recipient, "wa_id": wa_id} if send.to else {"input": recipient, "user_id": recipient}
        return Reply(200, {"messaging_product": "whatsapp", "contacts": [contact], "messages": [{"id": wamid}]})

    def _failure(self, number_id: str, number: Number, send: Send, request: Request) -> int | None:
        """Why an accepted message will not arrive: told to fail, or the 24 hours are over."""
        failed = self.faults.pick(request.path, request.raw, (StatusFailed,)) if self.faults else None
        if failed is not None:
            return failed.code
        person = (send.to or send.recipient or "").lstrip("+")
        late = time.time() - self._wrote.get((number_id, person), 0.0) > _DAY_S
        return 131047 if number.window and late and send.type != "template" else None

    def error_reply(self, fault: Error) -> Reply:
        """In Meta's own form; a status alone has the code that usually goes with it."""
        if isinstance(fault.code, str):
            raise BadControl("code is a number here: an error code of the Graph API")
        if fault.code is None:
            status = fault.status or 500
            return graph_error(code_for(status), "told to fail", status=status)
        return graph_error(fault.code, "told to fail", status=fault.status)

    def written(self, raw: bytes) -> Written[Item]:
        """One callback, of one or several messages, statuses and numbers."""
        given = read_control(raw, Inbound)
        number = self._number(given.phone_number_id)
        items: list[Item] = []
        for part in (given, *given.also):
            of = self._number(part.phone_number_id)
            for text in part.texts():
                if (text.text is None and text.message is None) or (text.sender is None and text.user_id is None):
                    raise BadControl("a message has a text, and `from` or `user_id`")
                at = text.timestamp if text.timestamp is not None else time.time()
                for name in (text.sender, text.user_id):
                    if name is not None:
                        self._wrote[part.phone_number_id, name.lstrip("+")] = at
            items += inbound_items(part.phone_number_id, of, part)
        if not items:
            raise BadControl("nothing to post: a message has a text, and `from` or `user_id`")
        ids = [str(item.content["id"]) for item in items if item.kind == "messages"]
        return Written((Callback(number.callback_url or "", number.app_secret, tuple(items)),), given.times, ids)

    def _number(self, number_id: str) -> Number:
        number = self._numbers.get(number_id)
        if number is None or number.callback_url is None:
            raise BadControl("no such number, or it has no callback_url")
        return number

    async def _post_verify(self, received: web.Request) -> web.Response:
        """Ask a callback URL for the challenge (WhatsApp Cloud API, "Webhooks: verification requests")."""
        number = self._number(read_control(await received.read(), _Verify).phone_number_id)
        challenge = str(secrets.randbelow(10**10))
        query = {
            "hub.mode": "subscribe",
            "hub.challenge": challenge,
            "hub.verify_token": number.verify_token or "",
        }
        status, text = await self.callbacks.get(number.callback_url or "", query)
        return json_response({"status": status, "verified": status == 200 and text == challenge})

    async def _post_anything(self, received: web.Request) -> web.Response:
        """Post any body to a number's callback URL, once."""
        given = read_control(await received.read(), _Post)
        number = self._number(given.phone_number_id)
        try:
            body = base64.b64decode(given.raw, validate=True) if given.raw is not None else bytes(given.body)
        except ValueError as error:
            raise BadControl("raw is not base64") from error
        secret = number.app_secret if given.sign == "right" else "another secret"
        headers = {} if given.sign == "none" else cloud_callbacks.sign(secret, body)
        status, text = await self.callbacks.post_once(number.callback_url or "", body, headers)
        return json_response({"status": status, "text": text})

    async def _post_media(self, received: web.Request) -> web.Response:
        return json_response(self._media.put(await received.read()))

    async def _get_read(self, _: web.Request) -> web.Response:
        return json_response(list(self._read))

    async def _delete_read(self, _: web.Request) -> web.Response:
        self._read.clear()
        return json_response([])

    async def _get_limits(self, _: web.Request) -> web.Response:
        return json_response(self._limits.refused)


def _state(number_id: str, number: Number, fields: str) -> Reply:
    state: dict[str, object] = {
        "display_phone_number": number.display_phone_number,
        "verified_name": "Stand-in",
        "quality_rating": number.quality_rating,
        "status": number.status,
        "throughput": {"level": "STANDARD"},
    }
    asked = [field for field in fields.split(",") if field in state] if fields else list(state)
    return Reply(200, {**{field: state[field] for field in asked}, "id": number_id})

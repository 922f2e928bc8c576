"""A stand-in for Meta's WhatsApp Cloud API: sends, their statuses, and messages of people as signed callbacks."""

import hashlib
import hmac
import json
import re
import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from replyline.standins.callbacks import Callbacks
from replyline.standins.faults import Fault
from replyline.standins.server import BadConfiguration, Reply, Request, Standin

_PATH = re.compile(r"^/(v\d+\.\d+)/([^/?]+)/messages$")
_MAX_SENT = 100_000
_ERRORS = {
    0: (401, "AuthException"),
    4: (429, "Application request limit reached"),
    100: (400, "Invalid parameter"),
    190: (401, "Invalid OAuth access token"),
    130429: (429, "Rate limit hit"),
    131000: (500, "Something went wrong"),
    131008: (400, "Required parameter is missing"),
    131009: (400, "Parameter value is not valid"),
    131016: (503, "Service unavailable"),
    131026: (400, "Message undeliverable"),
    131047: (400, "Re-engagement message"),
    131056: (429, "(Business Account, Consumer Account) pair rate limit hit"),
}


class Number(msgspec.Struct, forbid_unknown_fields=True):
    """One business number; callbacks go to `callback_url`, signed with `app_secret`."""

    access_token: str
    app_secret: str = ""
    callback_url: str | None = None
    verify_token: str | None = None
    display_phone_number: str = "15550783881"
    waba_id: str = "102290129340398"


Status = Literal["sent", "delivered", "read"]


class _Configuration(msgspec.Struct, forbid_unknown_fields=True):
    numbers: dict[str, Number] = {}
    statuses: list[Status] | None = None


class _Text(msgspec.Struct):
    body: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    preview_url: bool = False


class _Send(msgspec.Struct):
    messaging_product: Literal["whatsapp"]
    type: Literal["text"]
    text: _Text
    to: str | None = None
    recipient: str | None = None
    recipient_type: Literal["individual", "group"] = "individual"
    biz_opaque_callback_data: Annotated[str, msgspec.Meta(max_length=512)] | None = None


class _InboundText(msgspec.Struct, rename={"sender": "from"}, forbid_unknown_fields=True):
    sender: str
    text: str
    id: str | None = None
    name: str | None = None


class _Inbound(msgspec.Struct, rename={"sender": "from"}, forbid_unknown_fields=True):
    phone_number_id: str
    sender: str | None = None
    text: str | None = None
    id: str | None = None
    name: str | None = None
    times: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    messages: list[_InboundText] = []


@dataclass(frozen=True, slots=True)
class _Item:
    """One message or status of a callback."""

    kind: Literal["messages", "statuses"]
    content: Mapping[str, object]
    contact: Mapping[str, object] | None = None


class WhatsAppCloudStandin(Standin):
    """Meta, as far as text messages go."""

    name = "whatsapp_cloud"

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: Callbacks[_Item] = Callbacks(self.faults)
        self._numbers: dict[str, Number] = {}
        self._statuses: list[Status] = ["sent", "delivered"]
        self._sent: deque[dict[str, object]] = deque(maxlen=_MAX_SENT)

    def configure(self, raw: bytes) -> None:
        """Numbers by phone_number_id, and which statuses follow a send."""
        try:
            given = msgspec.json.decode(raw, type=_Configuration)
        except msgspec.MsgspecError as error:
            raise BadConfiguration(str(error)) from error
        self._numbers |= given.numbers
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
        """`POST /{version}/{phone_number_id}/messages`, checked as Meta checks it."""
        path = _PATH.match(request.path)
        if path is None or request.method != "POST":
            return _error(100, f"Unsupported {request.method.lower()} request to {request.path}", subcode=33)
        number_id = path.group(2)
        number = self._numbers.get(number_id)
        if number is None:
            return _error(100, f"Object with ID '{number_id}' does not exist", subcode=33)
        if request.headers.get("Authorization", "") != f"Bearer {number.access_token}":
            return _error(190, "Invalid OAuth access token - Cannot parse access token")
        try:
            send = msgspec.json.decode(request.raw, type=_Send)
        except msgspec.ValidationError as error:
            return _error(131008 if "missing required" in str(error) else 131009, str(error))
        except msgspec.DecodeError as error:
            return _error(100, f"(#100) {error}")
        recipient = send.to or send.recipient
        if recipient is None:
            return _error(131008, "Parameter `to` is required")
        if send.to is not None and not re.fullmatch(r"\+?\d{5,15}", send.to):
            return _error(131009, f"`to` is not a phone number: {send.to}")
        return self._accept(number_id, number, send, recipient)

    def _accept(self, number_id: str, number: Number, send: _Send, recipient: str) -> Reply:
        wamid = f"wamid.{secrets.token_hex(16).upper()}"
        wa_id = recipient.lstrip("+")
        self._sent.append(
            {
                "at": time.time(),
                "to": wa_id,
                "text": send.text.body,
                "id": wamid,
                "our_id": send.biz_opaque_callback_data,
            }
        )
        if number.callback_url is not None:
            for status in self._statuses:
                item: dict[str, object] = {
                    "id": wamid,
                    "status": status,
                    "timestamp": str(int(time.time())),
                    "recipient_id": wa_id,
                }
                if send.biz_opaque_callback_data is not None:
                    item["biz_opaque_callback_data"] = send.biz_opaque_callback_data
                self._call_back(number_id, number, [_Item("statuses", item)])
        contact = {"input": recipient, "wa_id": wa_id} if send.to else {"input": recipient, "user_id": recipient}
        return Reply(200, {"messaging_product": "whatsapp", "contacts": [contact], "messages": [{"id": wamid}]})

    def error_reply(self, fault: Fault) -> Reply:
        """In Meta's own form where the fault names a code."""
        if fault.code is None:
            return super().error_reply(fault)
        reply = _error(fault.code, _ERRORS.get(fault.code, (fault.status, "told to fail"))[1], status=fault.status)
        return Reply(reply.status, reply.body, fault.headers)

    def _call_back(self, number_id: str, number: Number, items: Sequence[_Item]) -> None:
        if number.callback_url is not None:
            self.callbacks.later(
                number.callback_url,
                items,
                lambda all_: _body(number_id, number, all_),
                lambda raw: _signed(number, raw),
            )

    async def _get_sent(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(list(self._sent)), content_type="application/json")

    async def _delete_sent(self, _: web.Request) -> web.Response:
        self._sent.clear()
        return web.Response(body=b"[]", content_type="application/json")

    async def _post_inbound(self, received: web.Request) -> web.Response:
        """A person writes: `{phone_number_id, from, text, id?, name?, times?}` or `{phone_number_id, messages: […]}`."""
        try:
            given = msgspec.json.decode(await received.read(), type=_Inbound)
        except msgspec.MsgspecError as error:
            return web.json_response({"error": str(error)}, status=400)
        number = self._numbers.get(given.phone_number_id)
        if number is None or number.callback_url is None:
            return web.json_response({"error": "no such number, or it has no callback_url"}, status=400)
        texts = given.messages
        if given.sender is not None and given.text is not None:
            texts = [*texts, _InboundText(given.sender, given.text, given.id, given.name)]
        if not texts:
            return web.json_response({"error": "from and text are missing"}, status=400)
        items = [_inbound_item(text) for text in texts]
        ids = [item.content["id"] for item in items]
        for _ in range(given.times - 1):
            self._call_back(given.phone_number_id, number, items)
        if self.faults.pick(number.callback_url, b"", ("callback_drop",)) is not None:
            return web.json_response({"status": 0, "ids": ids})
        status = await self.callbacks.now(
            number.callback_url,
            items,
            lambda all_: _body(given.phone_number_id, number, all_),
            lambda raw: _signed(number, raw),
        )
        if not 200 <= status < 300:  # Meta tries again
            self._call_back(given.phone_number_id, number, items)
        return web.json_response({"status": status, "ids": ids})


def _inbound_item(text: _InboundText) -> _Item:
    message = {
        "from": text.sender,
        "id": text.id or f"wamid.{secrets.token_hex(16).upper()}",
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": text.text},
    }
    return _Item("messages", message, {"profile": {"name": text.name or text.sender}, "wa_id": text.sender})


def _body(number_id: str, number: Number, items: Sequence[_Item]) -> bytes:
    """One callback of several items, each in a change of its own; non-ASCII escaped, as Meta signs it."""
    changes = []
    for item in items:
        value: dict[str, object] = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": number.display_phone_number, "phone_number_id": number_id},
            item.kind: [item.content],
        }
        if item.contact is not None:
            value["contacts"] = [item.contact]
        changes.append({"field": "messages", "value": value})
    body = {"object": "whatsapp_business_account", "entry": [{"id": number.waba_id, "changes": changes}]}
    return json.dumps(body, separators=(",", ":")).encode()


def _signed(number: Number, raw: bytes) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={hmac.new(number.app_secret.encode(), raw, hashlib.sha256).hexdigest()}"}


def _error(code: int, details: str, *, subcode: int | None = None, status: int | None = None) -> Reply:
    usual, title = _ERRORS.get(code, (400, "Error"))
    error: dict[str, object] = {
        "message": f"(#{code}) {title}",
        "type": "OAuthException",
        "code": code,
        "error_data": {"messaging_product": "whatsapp", "details": details},
        "fbtrace_id": secrets.token_hex(8),
    }
    if subcode is not None:
        error["error_subcode"] = subcode
    return Reply(usual if status in {None, 500} else status or usual, {"error": error})

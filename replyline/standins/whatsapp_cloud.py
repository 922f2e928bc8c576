"""A stand-in for Meta's WhatsApp Cloud API: sends, their statuses, and messages of people as signed callbacks."""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from aiohttp import web

from replyline.standins import cloud_callbacks
from replyline.standins.callbacks import Callback
from replyline.standins.cloud_callbacks import Inbound, Item, Number, SendOf, inbound_item, new_wamid
from replyline.standins.faults import Error, StatusFailed
from replyline.standins.graph_errors import code_for, graph_error, unknown_object
from replyline.standins.messaging import MessagingConfiguration, MessagingStandin, Written
from replyline.standins.server import BadControl, ControlRoute, Reply, Request, json_response, merged, read_control

_PATH = re.compile(r"^/v\d+\.\d+/([^/]+)(/messages)?$")
_PHONE = re.compile(r"^\+?\d{5,15}$")
_BSUID = re.compile(r"^[A-Z]{2}\.[A-Za-z0-9.]{1,128}$")
# The message types there are, beside text (WhatsApp Cloud API, "Messages").
_OTHER_TYPES = frozenset(
    ("audio", "contacts", "document", "image", "interactive", "location", "reaction", "sticker", "template", "video")
)


class _Configuration(MessagingConfiguration, forbid_unknown_fields=True):
    numbers: dict[str, dict[str, object]] = msgspec.field(default_factory=dict)


class _Text(msgspec.Struct):
    body: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    preview_url: bool = False


class _Context(msgspec.Struct):
    message_id: str


class _Send(msgspec.Struct):
    messaging_product: Literal["whatsapp"]
    type: str = "text"
    text: _Text | None = None
    to: str | None = None
    recipient: str | None = None
    recipient_type: Literal["individual", "group"] = "individual"
    context: _Context | None = None
    biz_opaque_callback_data: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    status: Literal["read"] | None = None
    message_id: str | None = None


class _Verify(msgspec.Struct, forbid_unknown_fields=True):
    phone_number_id: str


class WhatsAppCloudStandin(MessagingStandin[Item]):
    """Meta, as far as text messages go."""

    name: ClassVar[str] = "whatsapp_cloud"

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, Number] = {}
        self._decoder = msgspec.json.Decoder(_Send)

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
        """Beside the usual ones, let Meta verify a callback URL."""
        return [*super().control_routes(), ("POST", "/_verify", self._post_verify)]

    async def answer(self, request: Request) -> Reply:
        """A send, a read receipt, or the state of a number, checked as Meta checks them."""
        token = request.bearer() or request.query.get("access_token")
        if token is None:
            return graph_error(200, "An access token is required to request this resource")
        if all(token != number.access_token for number in self._numbers.values()):
            return graph_error(190, "Invalid OAuth access token - Cannot parse access token")
        path = _PATH.match(request.path)
        number_id = path.group(1) if path is not None else request.path.strip("/")
        number = self._numbers.get(number_id)
        if path is None or number is None or number.access_token != token:
            return unknown_object(number_id, request.method)
        match request.method, path.group(2):
            case "GET", None:
                return _state(number_id, number, request.query.get("fields", ""))
            case "POST", "/messages":
                return self._send(number_id, number, request)
            case _:
                return unknown_object(number_id, request.method)

    def _send(self, number_id: str, number: Number, request: Request) -> Reply:
        try:
            send = self._decoder.decode(request.raw)
        except msgspec.ValidationError as error:
            missing = str(error).startswith("Object missing required field")
            return graph_error(131008 if missing else 100, str(error))
        except msgspec.DecodeError as error:
            return graph_error(100, f"The body is not JSON: {error}")
        if send.status is not None:
            return Reply(200, {"success": True}) if send.message_id else graph_error(131008, "message_id is required")
        return _refusal(send) or self._accept(number_id, number, send, request)

    def _accept(self, number_id: str, number: Number, send: _Send, request: Request) -> Reply:
        recipient = send.to or send.recipient or ""
        wa_id = recipient.lstrip("+")
        known_as = {"recipient_id": wa_id} if send.to else {"recipient_user_id": recipient}
        wamid, our_id = new_wamid(), send.biz_opaque_callback_data
        failed = self.faults.pick(request.path, request.raw, (StatusFailed,)) if self.faults else None
        if failed is None:
            self.deliver(wa_id, send.text.body if send.text else "", wamid, our_id)
        send_of = SendOf(number_id, number, wamid, known_as, our_id)
        items = [send_of.failed(failed.code)] if failed else [send_of.status(status) for status in self.statuses]
        url = number.callback_url
        if url is not None and items:
            self.callbacks.later(*(Callback(url, number.app_secret, (item,)) for item in items))
        contact = {"input": recipient, "wa_id": wa_id} if send.to else {"input": recipient, "user_id": recipient}
        return Reply(200, {"messaging_product": "whatsapp", "contacts": [contact], "messages": [{"id": wamid}]})

    def error_reply(self, fault: Error) -> Reply:
        """In Meta's own form; a status alone has the code that usually goes with it."""
        if isinstance(fault.code, str):
            raise BadControl("code is a number here: an error code of the Graph API")
        if fault.code is None:
            status = fault.status or 500
            return graph_error(code_for(status), "told to fail", status=status)
        return graph_error(fault.code, "told to fail", status=fault.status)

    def written(self, raw: bytes) -> Written[Item]:
        """One callback, of one or several messages."""
        given = read_control(raw, Inbound)
        number = self._numbers.get(given.phone_number_id)
        if number is None or number.callback_url is None:
            raise BadControl("no such number, or it has no callback_url")
        texts = given.texts()
        if not texts or any(text.sender is None and text.user_id is None for text in texts):
            raise BadControl("a message has a text, and `from` or `user_id`")
        items = tuple(inbound_item(given.phone_number_id, number, text) for text in texts)
        ids = [str(item.content["id"]) for item in items]
        return Written((Callback(number.callback_url, number.app_secret, items),), given.times, ids)

    async def _post_verify(self, received: web.Request) -> web.Response:
        """Ask a callback URL for the challenge (WhatsApp Cloud API, "Webhooks: verification requests")."""
        number = self._numbers.get(read_control(await received.read(), _Verify).phone_number_id)
        if number is None or number.callback_url is None:
            raise BadControl("no such number, or it has no callback_url")
        challenge = str(secrets.randbelow(10**10))
        query = {
            "hub.mode": "subscribe",
            "hub.challenge": challenge,
            "hub.verify_token": number.verify_token or "",
        }
        status, text = await self.callbacks.get(number.callback_url, query)
        return json_response({"status": status, "verified": status == 200 and text == challenge})


def _refusal(send: _Send) -> Reply | None:
    """Why a message is not taken."""
    if send.type != "text":
        if send.type in _OTHER_TYPES:
            return graph_error(131051, f"this stand-in takes text only, not {send.type}")
        return graph_error(100, f"Param type must be one of text, {', '.join(sorted(_OTHER_TYPES))}")
    if send.text is None:
        return graph_error(131008, "Parameter `text` is required")
    if send.to is None and send.recipient is None:
        return graph_error(131008, "Parameter `to` is required")
    if send.to is not None and not _PHONE.match(send.to):
        return graph_error(131009, "`to` is not a phone number")
    if send.to is None and not _BSUID.match(send.recipient or ""):
        return graph_error(131009, "`recipient` is not a business-scoped user id")
    return None


def _state(number_id: str, number: Number, fields: str) -> Reply:
    state: dict[str, object] = {
        "display_phone_number": number.display_phone_number,
        "verified_name": "Stand-in",
        "quality_rating": "GREEN",
        "status": "CONNECTED",
        "throughput": {"level": "STANDARD"},
    }
    asked = [field for field in fields.split(",") if field in state] if fields else list(state)
    return Reply(200, {**{field: state[field] for field in asked}, "id": number_id})

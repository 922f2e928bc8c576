"""A stand-in for Evolution API v2 with its own shapes: 201 for a send, 400 for all that goes wrong with one (contracts §3.2)."""

import base64
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal
from urllib.parse import unquote

import msgspec

from replyline.standins.callbacks import Callback
from replyline.standins.faults import Error, StatusFailed
from replyline.standins.messaging import Copies, MessagingConfiguration, MessagingStandin, Sent, Url, Written
from replyline.standins.server import BadControl, Reply, Request, merged, read_control

_PATH = re.compile(r"^/(instance|webhook|message|chat)/([A-Za-z0-9]+)(?:/([^/]+))?$")
_STATUS = {"sent": "SERVER_ACK", "delivered": "DELIVERY_ACK", "read": "READ"}


class Instance(msgspec.Struct, forbid_unknown_fields=True):
    """One WhatsApp account as Evolution keeps it."""

    state: str = "close"
    webhook_url: Url | None = None
    webhook_headers: dict[str, str] = {}
    events: list[str] = []
    numbers_without_whatsapp: list[str] = []
    files: dict[str, str] = {}
    """Files of messages, in base64, by the id of the message."""
    keeps_messages: bool = True
    """Whether a file can be had by the id of its message alone (DATABASE_SAVE_DATA_NEW_MESSAGE)."""
    reports_own_sends: bool = True
    """Whether `send.message` is posted for what went out through the API."""


class _Configuration(MessagingConfiguration, forbid_unknown_fields=True):
    api_key: str | None = None
    instances: dict[str, dict[str, object]] = msgspec.field(default_factory=dict)


class _Webhook(msgspec.Struct):
    url: Url
    events: list[str]
    enabled: bool = True
    headers: dict[str, str] = {}


class _Create(msgspec.Struct):
    instanceName: str
    integration: str
    webhook: _Webhook | None = None


class _SetWebhook(msgspec.Struct):
    webhook: _Webhook


class _QuotedKey(msgspec.Struct):
    id: str


class _Quoted(msgspec.Struct):
    key: _QuotedKey


class _SendText(msgspec.Struct):
    number: str
    text: Annotated[str, msgspec.Meta(min_length=1)]
    delay: int = 0
    quoted: _Quoted | None = None


class _SendMedia(msgspec.Struct):
    """Evolution takes a link or base64; the stand-in takes base64, as links are for the adapter to fetch."""

    number: str
    mediatype: Literal["image", "video", "document"]
    media: Annotated[str, msgspec.Meta(min_length=1)]
    mimetype: str | None = None
    caption: str | None = None
    fileName: str | None = None
    delay: int = 0
    quoted: _Quoted | None = None


class _SendAudio(msgspec.Struct):
    number: str
    audio: Annotated[str, msgspec.Meta(min_length=1)]
    delay: int = 0
    quoted: _Quoted | None = None


class _SendSticker(msgspec.Struct):
    number: str
    sticker: Annotated[str, msgspec.Meta(min_length=1)]
    delay: int = 0
    quoted: _Quoted | None = None


class _AskedMessage(msgspec.Struct):
    key: _QuotedKey
    message: dict[str, object] | None = None


class _AskFile(msgspec.Struct):
    message: _AskedMessage
    convertToMp4: bool = False


class _Inbound(msgspec.Struct, rename={"sender": "from"}, forbid_unknown_fields=True):
    """`POST /_inbound`: somebody writes, or `event` and `data` are posted as they are."""

    instance: str
    sender: str | None = None
    text: str | None = None
    id: str | None = None
    from_me: bool = False
    alt: str | None = None
    age_s: float = 0.0
    times: Copies = 1
    event: str | None = None
    data: dict[str, object] = {}


Event = Mapping[str, object]


class EvolutionStandin(MessagingStandin[Event]):
    """Evolution, without a telephone behind it. Callbacks carry the headers that the webhook was set with."""

    name: ClassVar[str] = "evolution"

    def __init__(self) -> None:
        super().__init__()
        self.api_key = "evolution-global-key"
        self._instances: dict[str, Instance] = {}

    def configure(self, raw: bytes) -> None:
        """The global key, instances by name, which statuses follow a send, and how callbacks are tried again."""
        given = read_control(raw, _Configuration)
        self.api_key = given.api_key or self.api_key
        self._instances = merged(self._instances, given.instances, Instance)
        self.configure_messaging(given)

    def encode(self, items: Sequence[Event]) -> bytes:
        """One event."""
        (event,) = items
        return msgspec.json.encode(event)

    def sign(self, secret: str, raw: bytes) -> Mapping[str, str]:
        """There is no signature: the headers that the webhook was set with, kept here as JSON."""
        return msgspec.json.decode(secret.encode(), type=dict[str, str])

    async def answer(self, request: Request) -> Reply:
        """A call, its key checked first."""
        if request.headers.get("apikey") != self.api_key:
            return _error(401, "Unauthorized")
        path = _PATH.match(request.path)
        if path is None:
            return _error(404, "Not Found", [f"Cannot {request.method} {request.path}"])
        group, what, name = path.group(1), path.group(2), unquote(path.group(3) or "")
        try:
            if (request.method, group, what) == ("POST", "instance", "create"):
                return self._create(msgspec.json.decode(request.raw, type=_Create))
            instance = self._instances.get(name)
            if instance is None:
                return _error(404, "Not Found", [f'The "{name}" instance does not exist'])
            return self._of_instance(request, f"{group}/{what}", name, instance)
        except msgspec.MsgspecError as error:
            return _error(400, "Bad Request", [[str(error)]])

    def _create(self, given: _Create) -> Reply:
        if given.instanceName in self._instances:
            return _error(403, "Forbidden", [f'This name "{given.instanceName}" is already in use.'])
        instance = self._instances[given.instanceName] = Instance()
        if given.webhook is not None:
            _set_webhook(instance, given.webhook)
        shown = {"instanceName": given.instanceName, "integration": given.integration, "status": "connecting"}
        return Reply(201, {"instance": shown, "hash": secrets.token_hex(8), "qrcode": self._code(instance)})

    def _code(self, instance: Instance) -> dict[str, object]:
        instance.state = "connecting"
        return {"pairingCode": None, "code": f"2@{secrets.token_urlsafe(40)}", "base64": "data:,", "count": 1}

    def _of_instance(self, request: Request, what: str, name: str, instance: Instance) -> Reply:
        match request.method, what:
            case "GET", "instance/connect":
                if instance.state == "open":
                    return Reply(200, {"instance": {"instanceName": name, "state": "open"}})
                code = self._code(instance)
                if "number" in request.query:
                    code["pairingCode"] = "WZYEH1YY"
                return Reply(200, code)
            case "GET", "instance/connectionState":
                return Reply(200, {"instance": {"instanceName": name, "state": instance.state}})
            case "POST", "instance/restart":
                if instance.state == "close":
                    return Reply(200, {"error": True, "message": "The instance is not connected"})
                return Reply(200, {"instance": {"instanceName": name, "state": "connecting"}})
            case "DELETE", "instance/logout":
                if instance.state == "close":
                    return _error(400, "Bad Request", [f'The "{name}" instance is not connected'])
                instance.state = "close"
                return Reply(200, {"status": "SUCCESS", "error": False})
            case "DELETE", "instance/delete":
                del self._instances[name]
                return Reply(200, {"status": "SUCCESS", "error": False})
            case "POST", "webhook/set":
                _set_webhook(instance, msgspec.json.decode(request.raw, type=_SetWebhook).webhook)
                return Reply(201, {})
            case "POST", "message/sendText":
                return self._send(name, instance, msgspec.json.decode(request.raw, type=_SendText), request)
            case "POST", "message/sendMedia":
                media = msgspec.json.decode(request.raw, type=_SendMedia)
                facts = {"mimetype": media.mimetype, "fileName": media.fileName, "caption": media.caption}
                return self._send_file(name, instance, media, (media.mediatype, media.media, facts), request)
            case "POST", "message/sendWhatsAppAudio":
                audio = msgspec.json.decode(request.raw, type=_SendAudio)
                voice = {"mimetype": "audio/ogg; codecs=opus", "ptt": True}
                return self._send_file(name, instance, audio, ("audio", audio.audio, voice), request)
            case "POST", "message/sendSticker":
                sticker = msgspec.json.decode(request.raw, type=_SendSticker)
                return self._send_file(name, instance, sticker, ("sticker", sticker.sticker, {}), request)
            case "POST", "chat/getBase64FromMediaMessage":
                return _file(instance, msgspec.json.decode(request.raw, type=_AskFile).message)
            case "POST", "chat/markMessageAsRead" | "chat/sendPresence":
                return Reply(201, {"read": "success"})
            case _:
                return _error(404, "Not Found", [f"Cannot {request.method} {request.path}"])

    def _send(self, name: str, instance: Instance, send: _SendText, request: Request) -> Reply:
        return self._take(name, instance, send, _Said(send.text, "text", {"conversation": send.text}, None), request)

    def _send_file(
        self,
        name: str,
        instance: Instance,
        send: _SendMedia | _SendAudio | _SendSticker,
        file: tuple[str, str, Mapping[str, object]],
        request: Request,
    ) -> Reply:
        kind, data, facts = file
        try:
            size = len(base64.b64decode(data, validate=True))
        except ValueError:
            return _error(400, "Bad Request", ["Media must be a url or base64"])
        told = {name: value for name, value in facts.items() if value is not None}
        caption = str(told.get("caption") or "")
        said = _Said(caption, kind, {f"{kind}Message": told}, {**told, "size": size})
        return self._take(name, instance, send, said, request)

    def _take(
        self,
        name: str,
        instance: Instance,
        send: _SendText | _SendMedia | _SendAudio | _SendSticker,
        said: "_Said",
        request: Request,
    ) -> Reply:
        person = send.number.partition("@")[0].lstrip("+")
        if instance.state != "open":
            return _error(400, "Bad Request", ["Error: Connection Closed"])
        if person in instance.numbers_without_whatsapp:
            return _error(400, "Bad Request", [{"jid": f"{person}@s.whatsapp.net", "exists": False, "number": person}])
        jid = send.number if "@" in send.number else f"{person}@s.whatsapp.net"
        wa_id = f"3EB0{secrets.token_hex(9).upper()}"
        message = {**_message(jid, wa_id, said.text, from_me=True), "message": said.message}
        failed = self.faults.pick(request.path, request.raw, (StatusFailed,)) if self.faults else None
        if failed is None:
            context = send.quoted.key.id if send.quoted else None
            self.deliver(Sent(time.time(), jid, said.text, wa_id, None, said.kind, context, said.body))
        events = [("send.message", message)] if instance.reports_own_sends else []
        statuses = ["ERROR"] if failed is not None else [_STATUS[status] for status in self.statuses]
        events += [("messages.update", {"keyId": wa_id, "fromMe": True, "status": status}) for status in statuses]
        callbacks = [self._callback(name, instance, event, data) for event, data in events]
        self.callbacks.later(*(callback for callback in callbacks if callback is not None))
        return Reply(201, {**message, "status": "PENDING", "messageType": "conversation"})

    def _callback(
        self, name: str, instance: Instance, event: str, data: Mapping[str, object]
    ) -> Callback[Event] | None:
        subscribed = event.upper().replace(".", "_") in instance.events
        if instance.webhook_url is None or not subscribed:
            return None
        envelope = {"event": event, "instance": name, "data": data, "apikey": None, "server_url": self.url}
        return Callback(instance.webhook_url, msgspec.json.encode(instance.webhook_headers).decode(), (envelope,))

    def error_reply(self, fault: Error) -> Reply:
        """In Evolution's own form; `code` is the message, as "Timed Out"."""
        status = fault.status or 400
        return _error(status, "Bad Request", [f"Error: {fault.code or 'told to fail'}"])

    def written(self, raw: bytes) -> Written[Event]:
        """One event."""
        given = read_control(raw, _Inbound)
        instance = self._instances.get(given.instance)
        if instance is None:
            raise BadControl("no such instance")
        message_id = given.id or secrets.token_hex(10).upper()
        event, data = given.event or "messages.upsert", dict(given.data)
        if given.event is None:
            if given.sender is None or given.text is None:
                raise BadControl("a message has `from` and `text`")
            data = _message(given.sender, message_id, given.text, from_me=given.from_me, age_s=given.age_s)
            if given.alt is not None:
                data["key"] = {**msgspec.convert(data["key"], dict[str, object]), "remoteJidAlt": given.alt}
        if event == "connection.update" and isinstance(data.get("state"), str):
            instance.state = str(data["state"])
        callback = self._callback(given.instance, instance, event, data)
        if callback is None:
            raise BadControl(f"nobody is subscribed to {event}")
        return Written((callback,), given.times, [message_id])


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    kind: str
    message: Mapping[str, object]
    body: object


def _file(instance: Instance, asked: _AskedMessage) -> Reply:
    """The file of a message, by the id of one that Evolution keeps, or from the message itself."""
    if not instance.keeps_messages and asked.message is None:
        return _error(400, "Bad Request", ["TypeError: Cannot read properties of undefined"])
    data = instance.files.get(asked.key.id)
    if data is None:
        return _error(400, "Bad Request", ["Error: Failed to fetch stream: status code 404"])
    return Reply(201, {"mediaType": "imageMessage", "fileName": "x", "mimetype": "image/jpeg", "base64": data})


def _set_webhook(instance: Instance, webhook: _Webhook) -> None:
    instance.webhook_url = webhook.url if webhook.enabled else None
    instance.webhook_headers, instance.events = webhook.headers, webhook.events


def _message(jid: str, message_id: str, text: str, *, from_me: bool, age_s: float = 0.0) -> dict[str, object]:
    return {
        "key": {"remoteJid": jid, "fromMe": from_me, "id": message_id},
        "pushName": "Ana",
        "message": {"conversation": text},
        "messageType": "conversation",
        "messageTimestamp": int(time.time() - age_s),
    }


def _error(status: int, error: str, message: Sequence[object] = ()) -> Reply:
    return Reply(status, {"status": status, "error": error, "response": {"message": list(message)}})

"""The messages: by API, as Meta and the QR gateway call, and as visitors of a widget write."""

import asyncio
import hashlib
import hmac
import time
import uuid

import msgspec

from bench.door.stage import ORIGIN, Door
from tests.make import CLOUD_SECRETS, QR_SECRETS

ROUTES = ("messages", "whatsapp-cloud", "whatsapp-qr", "widget")
_JSON = {"Content-Type": "application/json"}
_PEOPLE = 500


async def send(door: Door, route: str, messages: int, at_once: int) -> None:
    """So many messages, `at_once` of them in flight.

    Raises:
        RuntimeError: one was not accepted.
    """
    numbers = iter(range(door.sent, door.sent + messages))
    door.sent += messages

    async def one_after_another() -> None:
        for number in numbers:
            await _send_one(door, route, number)

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))


async def _send_one(door: Door, route: str, number: int) -> None:
    path, headers, body = _request(door, route, number)
    async with door.http.post(f"{door.url}{path}", data=body, headers={**_JSON, **headers}) as response:
        if response.status not in {200, 202}:
            raise RuntimeError(f"{route}: {response.status} {await response.text()}")
        await response.read()


def _request(door: Door, route: str, number: int) -> tuple[str, dict[str, str], bytes]:
    person = f"49{number % _PEOPLE:010}"
    match route:
        case "messages":
            body = msgspec.json.encode(
                {
                    "chatbotId": str(door.cloud.chatbot_id),
                    "channel": "WHATSAPP_CLOUD",
                    "externalUserId": person,
                    "externalMessageId": f"api.{number}",
                    "content": f"message {number}",
                }
            )
            return "/v1/messages", {"Authorization": f"Bearer {door.api_key}"}, body
        case "whatsapp-cloud":
            return _of_meta(door, person, number)
        case "whatsapp-qr":
            return _of_gateway(door, person, number)
        case _:
            body = msgspec.json.encode({"client_id": str(uuid.uuid4()), "text": f"message {number}"})
            token = door.sessions[number % len(door.sessions)]
            return "/widget/v1/messages", {"Authorization": f"Bearer {token}", "Origin": ORIGIN}, body


def _of_meta(door: Door, person: str, number: int) -> tuple[str, dict[str, str], bytes]:
    message = {
        "from": person,
        "id": f"wamid.{number}",
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": f"message {number}"},
    }
    metadata = {"display_phone_number": "15550783881", "phone_number_id": door.cloud.external_id}
    value = {"messaging_product": "whatsapp", "metadata": metadata, "messages": [message]}
    change = {"field": "messages", "value": value}
    body = msgspec.json.encode({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]})
    signature = hmac.new(CLOUD_SECRETS["app_secret"].encode(), body, hashlib.sha256).hexdigest()
    return (
        f"/callbacks/whatsapp-cloud/{door.cloud.channel_key}",
        {"X-Hub-Signature-256": f"sha256={signature}"},
        body,
    )


def _of_gateway(door: Door, person: str, number: int) -> tuple[str, dict[str, str], bytes]:
    data = {"id": f"qr.{number}", "from": f"{person}@s.whatsapp.net", "text": f"message {number}"}
    body = msgspec.json.encode(
        {"id": f"evt_{number}", "type": "message", "session": door.qr.external_id, "ts": 1, "data": data}
    )
    stamp = str(int(time.time()))
    digest = hmac.new(QR_SECRETS["secret"].encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return (
        f"/callbacks/whatsapp-qr/{door.qr.channel_key}",
        {"X-Gateway-Timestamp": stamp, "X-Gateway-Signature": f"v1={digest}"},
        body,
    )

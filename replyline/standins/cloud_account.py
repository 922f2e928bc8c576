"""What Meta tells of a number, a business account and a token (WhatsApp Cloud API, "Phone numbers"; contracts §1.9)."""

from collections.abc import Mapping

import msgspec

from replyline.standins.cloud_callbacks import Number
from replyline.standins.graph_errors import graph_error
from replyline.standins.server import Reply

_APP = {
    "id": "670843887433847",
    "name": "Replyline stand-in",
    "link": "https://www.facebook.com/games/?app_id=670843887433847",
}


class _Subscribe(msgspec.Struct):
    override_callback_uri: str | None = None
    verify_token: str | None = None


def state_of(number_id: str, number: Number, fields: str) -> Reply:
    """The fields that were asked for; without any, Meta's own choice of them."""
    known: dict[str, object] = {
        "verified_name": "Stand-in",
        "display_phone_number": number.display_phone_number,
        "quality_rating": number.quality_rating,
        "status": number.status,
        "throughput": {"level": "HIGH" if number.messages_per_second > 80 else "STANDARD"},
        "name_status": "APPROVED",
        "code_verification_status": "VERIFIED",
        "platform_type": "CLOUD_API",
        "id": number_id,
    }
    asked = [field.strip() for field in fields.split(",") if field.strip()] or list(known)
    unknown = [field for field in asked if field not in known]
    if unknown:
        return graph_error(100, f"Tried accessing nonexisting field ({unknown[0]})")
    return Reply(200, {field: known[field] for field in (*asked, "id")})


class SubscribedApps:
    """Which business accounts our app hears of. Callbacks go to `callback_url` whatever stands here."""

    def __init__(self) -> None:
        self._subscribed: dict[str, str | None] = {}

    def answer(self, method: str, waba_id: str, raw: bytes) -> Reply:
        """POST subscribes, maybe with a callback address of its own; DELETE ends it, GET lists."""
        match method:
            case "POST":
                try:
                    given = msgspec.json.decode(raw, type=_Subscribe) if raw else _Subscribe()
                except msgspec.MsgspecError as error:
                    return graph_error(100, str(error))
                self._subscribed[waba_id] = given.override_callback_uri
                return Reply(200, {"success": True})
            case "DELETE":
                return Reply(200, {"success": self._subscribed.pop(waba_id, "") != ""})
            case _:
                return Reply(200, {"data": self._listed(waba_id)})

    def _listed(self, waba_id: str) -> list[dict[str, object]]:
        if waba_id not in self._subscribed:
            return []
        address = self._subscribed[waba_id]
        override: dict[str, object] = {} if address is None else {"override_callback_uri": address}
        return [{"whatsapp_business_api_data": _APP, **override}]


def debug_token(asked: str | None, numbers: Mapping[str, Number]) -> Reply:
    """What a token is good for (Graph API, "debug_token")."""
    if not asked:
        return graph_error(100, "Required parameter `input_token`")
    reached = sorted({number.waba_id for number in numbers.values() if number.access_token == asked})
    scopes = ["whatsapp_business_management", "whatsapp_business_messaging"] if reached else []
    data = {
        "app_id": _APP["id"],
        "application": _APP["name"],
        "type": "SYSTEM_USER",
        "is_valid": bool(reached),
        "expires_at": 0,
        "scopes": scopes,
        "granular_scopes": [{"scope": scope, "target_ids": reached} for scope in scopes],
    }
    return Reply(200, {"data": data})

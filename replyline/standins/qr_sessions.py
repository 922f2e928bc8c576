"""A session of the QR gateway as its stand-in keeps it, and the gateway's errors (docs/qr-gateway.md)."""

import time
from typing import Annotated, Literal

import msgspec

from replyline.standins.messaging import Url
from replyline.standins.server import Reply

ERRORS: dict[str, tuple[int, bool]] = {
    "unauthorized": (401, False),
    "not_found": (404, False),
    "unknown_media": (404, False),
    "unknown_session": (404, False),
    "in_flight": (409, True),
    "not_connected": (409, True),
    "already_open": (409, False),
    "logged_out": (410, False),
    "banned": (410, False),
    "bad_link": (422, False),
    "invalid": (422, False),
    "not_on_whatsapp": (422, False),
    "key_reused": (422, False),
    "too_large": (413, False),
    "not_owner": (421, True),
    "restricted": (423, False),
    "paced": (429, True),
    "capped": (429, True),
    "internal": (500, True),
    "unavailable": (503, True),
}
BY_STATUS = {401: "unauthorized", 404: "unknown_session", 409: "not_connected", 410: "logged_out", 413: "too_large"}
BY_STATUS |= {421: "not_owner", 422: "invalid", 423: "restricted", 429: "paced", 503: "unavailable"}


State = Literal["qr", "connecting", "open", "closed", "logged_out", "banned"]


class Session(msgspec.Struct, forbid_unknown_fields=True):
    """One connected account; `state` other than `open` refuses sends."""

    secret: str = ""
    token: str | None = None
    callback_url: Url | None = None
    state: State = "open"
    label: str | None = None
    phone: str | None = None
    qr: str | None = None
    pairing_code: str | None = None
    restricted_until: float | None = None
    last_error: dict[str, object] | None = None
    acks: bool = True
    """Whether anything is heard of an accepted message."""
    pace_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    """At least so long between two sends; one that comes earlier is told its own time."""

    def shown(self, name: str) -> dict[str, object]:
        """As the gateway shows it."""
        expires = time.time() + 20
        return {
            "id": name,
            "label": self.label,
            "state": self.state,
            "phone": self.phone,
            "qr": {"code": self.qr, "expires_at": expires} if self.qr else None,
            "pairing_code": {"code": self.pairing_code, "expires_at": expires} if self.pairing_code else None,
            "restricted_until": self.restricted_until,
            "last_error": self.last_error,
            "waiting_events": 0,
        }


def gateway_error(code: str, message: str, *, status: int | None = None, retry_after_ms: int = 1000) -> Reply:
    """An error in the gateway's own form."""
    usual, retryable = ERRORS[code]
    error: dict[str, object] = {
        "code": code,
        "message": message,
        "retryable": retryable,
        "retry_after_ms": retry_after_ms if usual in {409, 421, 429} and retryable else None,
    }
    if code == "restricted":
        error["until"] = time.time() + 3600
    return Reply(usual if status is None else status, {"error": error})

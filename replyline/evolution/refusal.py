"""The errors of the gateway contract (docs/qr-gateway.md, "Errors")."""

from typing import Literal

Code = Literal[
    "unauthorized",
    "not_found",
    "unknown_media",
    "unknown_session",
    "not_connected",
    "in_flight",
    "already_open",
    "logged_out",
    "banned",
    "bad_link",
    "invalid",
    "not_on_whatsapp",
    "key_reused",
    "paced",
    "too_large",
    "internal",
    "unavailable",
]

_KINDS: dict[Code, tuple[int, bool]] = {
    "unauthorized": (401, False),
    "not_found": (404, False),
    "unknown_media": (404, False),
    "unknown_session": (404, False),
    "not_connected": (409, True),
    "in_flight": (409, True),
    "already_open": (409, False),
    "logged_out": (410, False),
    "banned": (410, False),
    "bad_link": (422, False),
    "invalid": (422, False),
    "not_on_whatsapp": (422, False),
    "key_reused": (422, False),
    "paced": (429, True),
    "too_large": (413, False),
    "internal": (500, True),
    "unavailable": (503, True),
}


class Refusal(Exception):
    """A call that is not carried out; `retry_after_ms` says when to come again, where that helps."""

    def __init__(self, code: Code, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status, self.retryable = _KINDS[code]
        self.retry_after_ms = retry_after_ms

    def body(self) -> dict[str, object]:
        """As the contract has it."""
        return {
            "error": {
                "code": self.code,
                "message": str(self),
                "retryable": self.retryable,
                "retry_after_ms": self.retry_after_ms,
            }
        }

"""Meta's statuses: how far a message of ours has come, what it costs, or why it will not arrive (contracts §2.6)."""

from datetime import UTC, datetime

import msgspec

from replyline.channels.contract import DeliveryStatus, StatusUpdate
from replyline.channels.reading import is_id, items, our_id, part, seconds, text
from replyline.channels.whatsapp_cloud.errors import is_channel_down, reason_of
from replyline.statuses import Pricing

_MAX_NAME_CHARS = 512
_MAX_DETAIL_CHARS = 1000
_STATUSES: dict[str, DeliveryStatus] = {
    "sent": "SENT",
    "delivered": "DELIVERED",
    "read": "READ",
    "played": "READ",
    "failed": "FAILED",
}


class _ErrorData(msgspec.Struct):
    details: str | None = None


class _StatusError(msgspec.Struct):
    code: int
    title: str | None = None
    message: str | None = None
    error_data: msgspec.Raw = msgspec.Raw()


class _Pricing(msgspec.Struct):
    category: str
    type: str = ""


class _Status(msgspec.Struct):
    id: str
    status: str
    timestamp: str | float | None = None
    biz_opaque_callback_data: str | None = None
    errors: msgspec.Raw = msgspec.Raw()
    pricing: msgspec.Raw = msgspec.Raw()


def read_status(raw: msgspec.Raw) -> StatusUpdate | str | None:
    """What a status says; a text says why it cannot be told, None that the message is another program's."""
    status = part(raw, _Status)
    if status is None or not is_id(status.id):
        return "a status cannot be read"
    if status.status not in _STATUSES:
        return f"a status {text(status.status, 60)}"
    if status.biz_opaque_callback_data and our_id(status.biz_opaque_callback_data) is None:
        return None  # another program's message on the same number
    at = seconds(status.timestamp)
    errors = [part(error, _StatusError) for error in items(status.errors)]
    error = errors[0] if errors else None
    pricing = part(status.pricing, _Pricing) if bytes(status.pricing) else None
    return StatusUpdate(
        external_id=status.id,
        status=_STATUSES[status.status],
        at=datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC),
        message_id=our_id(status.biz_opaque_callback_data),
        error_reason=reason_of(error.code) if error else None,
        error_code=error.code if error and abs(error.code) < 2**31 else None,
        error_title=text(error.title or error.message or "", _MAX_NAME_CHARS) if error else None,
        error_detail=_detail(error) if error else None,
        pricing=None if pricing is None else Pricing(text(pricing.category, 60), text(pricing.type, 60)),
        channel_down=error is not None and is_channel_down(error.code),
    )


def _detail(error: _StatusError) -> str:
    data = part(error.error_data, _ErrorData) if bytes(error.error_data) else None
    words = [f"{error.code}: {error.title or error.message}"]
    if data is not None and data.details:
        words.append(data.details)
    return text(": ".join(words), _MAX_DETAIL_CHARS)

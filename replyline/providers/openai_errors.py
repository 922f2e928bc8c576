"""What an answer of the OpenAI dialect other than 200 means for the turn (contracts §5.2)."""

from collections.abc import Mapping

import msgspec

from replyline.errors import JobError, Permanent, RateLimited, Temporary

DEFAULT_WAIT_S = 5.0
_LONGEST_WAIT_S = 600.0
_QUOTA = frozenset({"insufficient_quota", "credit_balance_exhausted", "project_spend_limit_exceeded", "billing_error"})
_FILTERED = frozenset({"content_filter", "content_policy_violation"})


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None


class _ErrorAnswer(msgspec.Struct):
    error: _Error


def error_from(status: int, body: bytes, headers: Mapping[str, str]) -> JobError:
    """The failure in our words; a `Retry-After` is honoured up to ten minutes."""
    try:
        error = msgspec.json.decode(body, type=_ErrorAnswer).error
    except msgspec.MsgspecError:
        error = _Error()
    named = {str(error.code), str(error.type)}
    said = f"the provider answered {status}: {error.message or error.code or 'no reason'}"
    if named & _QUOTA or status == 402:
        return Permanent(said, reason="provider_quota")
    if named & _FILTERED:
        return Permanent(said, reason="content_filter")
    return classify(status, said, wait_s(headers))


def classify(status: int, said: str, after_s: float) -> JobError:
    """By HTTP status alone."""
    if status in {429, 498}:  # 498 is Groq's "capacity exceeded"
        return RateLimited(said, after=after_s, reason="provider_rate_limited")
    if status in {401, 403}:
        return Permanent(said, reason="provider_auth")
    if status == 404:
        return Permanent(said, reason="unknown_model")
    if status in {503, 529}:
        return Temporary(said, reason="provider_overloaded")
    if status >= 500 or status in {408, 409, 425}:
        return Temporary(said, reason="provider_server_error")
    return Permanent(said, reason="provider_refused")


def wait_s(headers: Mapping[str, str]) -> float:
    """Seconds to wait: `retry-after-ms`, `retry-after` in seconds, or 5 (contracts §5.1, rate headers)."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(max(float(headers.get(name, "")) * scale, 0.0), _LONGEST_WAIT_S)
        except ValueError:
            continue
    return DEFAULT_WAIT_S

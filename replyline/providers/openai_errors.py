"""What an answer of the OpenAI dialect other than 200 means for the turn (contracts §5.2)."""

import math
from collections.abc import Mapping, Set

import msgspec

from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.webhooks import retry_after_s

_DEFAULT_WAIT_S = 5.0
_LONGEST_WAIT_S = 600.0
_QUOTA = frozenset({"insufficient_quota", "credit_balance_exhausted", "project_spend_limit_exceeded", "billing_error"})
_FILTERED = frozenset({"content_filter", "content_policy_violation"})
_TOO_LONG = frozenset({"context_length_exceeded"})


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None


class _ErrorAnswer(msgspec.Struct):
    error: _Error


def error_from(status: int, body: bytes, headers: Mapping[str, str], *, secret: str | None) -> JobError:
    """The failure in our words, without the key that was sent; a wait that is asked for is honoured up to ten minutes."""
    try:
        error = msgspec.json.decode(body, type=_ErrorAnswer).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = _Error()
    if status == 200:  # an error inside a good answer has its status as its code (OpenRouter, "Errors")
        status = error.code if isinstance(error.code, int) else 502
    said = f"the provider answered {status}: {error.message or error.code or 'no reason'}"
    if secret:
        said = said.replace(secret, "[redacted]")
    return classify(status, {str(error.code), str(error.type)}, said, wait_s(headers))


def classify(status: int, named: Set[str], said: str, after_s: float) -> JobError:
    """The failure by what the answer calls it (`code` and `type`), else by its HTTP status."""
    if named & _QUOTA or status == 402:
        return Permanent(said, reason="provider_quota")
    if named & _FILTERED:
        return Permanent(said, reason="content_filter")
    if named & _TOO_LONG:
        return Permanent(said, reason="context_too_long")
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
    """Seconds to wait: `retry-after-ms`, else `Retry-After`, else 5 (contracts §5.1, rate headers); at most 600."""
    try:
        asked: float | None = float(headers.get("retry-after-ms", "")) / 1000
    except ValueError:
        asked = retry_after_s(headers)
    return bounded(asked)


def bounded(asked_s: float | None) -> float:
    """The wait that was asked for, 0 to 600 seconds; 5 where none was."""
    if asked_s is None or math.isnan(asked_s):
        return _DEFAULT_WAIT_S
    return min(max(asked_s, 0.0), _LONGEST_WAIT_S)

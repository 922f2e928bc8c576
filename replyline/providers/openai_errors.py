"""What an answer of the OpenAI dialect other than 200 means for the turn (contracts §5.2)."""

import math
import re
from collections.abc import Mapping, Set

from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.providers.openai_refusal import LONGEST_TEXT, asked_wait_s, read_refusal

_DEFAULT_WAIT_S = 5.0
_LONGEST_WAIT_S = 600.0

_QUOTA = frozenset({"insufficient_quota", "credit_balance_exhausted", "project_spend_limit_exceeded", "billing_error"})
_FILTERED = frozenset({"content_filter", "content_policy_violation", "invalid_prompt"})
_TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_NO_MODEL = frozenset({"model_not_found", "model_decommissioned", "invalid_model"})
_BAD_KEY = frozenset({"invalid_api_key", "API_KEY_INVALID"})
# Groq: the model called a tool that it was not offered; the next try answers.
_BY_CHANCE = frozenset({"tool_use_failed"})

# Where a server has no name for it, its words have: vLLM, Mistral, Gemini, llama.cpp, LM Studio, Together, Groq, DeepSeek.
_SAYS_TOO_LONG = re.compile(
    r"context (length|size|window)|token count .{0,80}exceeds|too large for model|`inputs` tokens|request too large"
)
_SAYS_NO_MODEL = re.compile(r"model not exist|invalid model|decommissioned")
_SAYS_BAD_KEY = re.compile(r"api key not valid|invalid api key")
_SAYS_FILTERED = re.compile(r"moderation|was flagged|flagged for")
_SAYS_QUOTA = re.compile(r"\bcredits?\b|spending limit|insufficient balance")
# LM Studio answers an unknown path with 200 and this.
_SAYS_WRONG_PATH = re.compile(r"unexpected endpoint")


def error_from(status: int, body: bytes, headers: Mapping[str, str], *, secret: str | None) -> JobError:
    """The failure in our words, without the key that was sent; a wait that is asked for is honoured up to ten minutes."""
    refusal = read_refusal(body)
    if status == 200:  # an error inside a good answer has its status as its code (OpenRouter, "Errors")
        status = refusal.status or 502
    said = f"the provider answered {status}: {refusal.message or 'no reason'}"
    if secret:
        said = said.replace(secret, "[redacted]")
    return classify(status, refusal.names, said, asked_wait_s(headers, refusal))


def classify(status: int, named: Set[str], said: str, asked_wait: float | None) -> JobError:
    """The failure by what the answer calls it (`code` and `type`), by its words, else by its HTTP status.

    `asked_wait` is in seconds, None where no wait was asked for. A server that is overloaded and says for how long is waited for
    like a limit.
    """
    reason = _reason_named(status, named) or _reason_said(status, said[:LONGEST_TEXT].lower())
    if reason is not None:
        return Permanent(said, reason=reason)
    if named & _BY_CHANCE:
        return Temporary(said, reason="provider_server_error")
    if status in {429, 498}:  # 498 is Groq's "capacity exceeded"
        return RateLimited(said, after=bounded(asked_wait), reason="provider_rate_limited")
    if status in {401, 403}:
        return Permanent(said, reason="provider_auth")
    if status == 404:
        return Permanent(said, reason="unknown_model")
    if status in {503, 529}:
        if asked_wait is not None:
            return RateLimited(said, after=bounded(asked_wait), reason="provider_overloaded")
        return Temporary(said, reason="provider_overloaded")
    if status >= 500 or status in {408, 409, 424, 425}:  # 424: TGI's "generation failed"
        return Temporary(said, reason="provider_server_error")
    return Permanent(said, reason="provider_refused")


def _reason_named(status: int, named: Set[str]) -> str | None:
    if named & _QUOTA or status == 402:
        return "provider_quota"
    if named & _FILTERED:
        return "content_filter"
    if named & _TOO_LONG or status == 413:  # 413: one request is more than a minute's budget, or than the server takes
        return "context_too_long"
    if named & _NO_MODEL:
        return "unknown_model"
    if named & _BAD_KEY:
        return "provider_auth"
    return None


def _reason_said(status: int, words: str) -> str | None:
    if _SAYS_WRONG_PATH.search(words):
        return "provider_misconfigured"
    if status == 403:
        if _SAYS_FILTERED.search(words):
            return "content_filter"
        return "provider_quota" if _SAYS_QUOTA.search(words) else None
    if status in {400, 422}:
        for pattern, reason in (
            (_SAYS_TOO_LONG, "context_too_long"),
            (_SAYS_NO_MODEL, "unknown_model"),
            (_SAYS_BAD_KEY, "provider_auth"),
        ):
            if pattern.search(words):
                return reason
    return None


def bounded(asked_s: float | None) -> float:
    """The wait that was asked for, 0 to 600 seconds; 5 where none was."""
    if asked_s is None or math.isnan(asked_s):
        return _DEFAULT_WAIT_S
    return min(max(asked_s, 0.0), _LONGEST_WAIT_S)

"""What a server of the OpenAI dialect says when it refuses: its words, its names for the failure, and how long to wait.

Every server writes it differently: OpenAI `{"error": {…}}`, vLLM and Mistral `{"object": "error", "message": …}`, Gemini a list
of one, Ollama and TGI `{"error": "text"}`, FastAPI `{"detail": …}`, OpenRouter the vendor's own answer under `metadata.raw`,
proxies plain text or HTML. All are read here, none is required.
"""

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from replyline.webhooks import retry_after_s

LONGEST_TEXT = 2000
"""Characters of a server's words that are read."""
_DEEPEST = 4
_NAMED = ("code", "type", "status", "reason", "error_type")
_WORDS = ("message", "msg", "detail", "error", "raw")
_WAIT_IN_WORDS = re.compile(
    r"(?:try again in|retry after|retry in)\s{1,4}"
    r"(?:(?P<h>\d{1,4})h)?(?:(?P<m>\d{1,5})m(?!s))?(?:(?P<s>\d{1,6}(?:\.\d{1,9})?)\s?(?P<unit>ms|s|sec))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's refusal, as far as it says."""

    message: str = ""
    names: frozenset[str] = frozenset()
    """What it calls the failure: `code`, `type`, `status` and the like, wherever they stand."""
    status: int | None = None
    """An HTTP status that stands in the body."""
    wait_s: float | None = None
    """How long it asks to wait, in seconds, if the body says so."""


def read_refusal(body: bytes) -> Refusal:
    """The refusal that this body is; an empty one for a body that says nothing."""
    try:
        decoded: object = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Refusal(_plain(body))
    parts = list(_parts(decoded, 0))
    messages = [text for part in parts for text in _texts(part)]
    message = messages[-1] if messages else _plain(msgspec.json.encode(decoded)) if isinstance(decoded, str) else ""
    return Refusal(
        message[:LONGEST_TEXT],
        frozenset(str(part[name]) for part in parts for name in _NAMED if isinstance(part.get(name), str | int)),
        next((status for part in parts if (status := _status(part)) is not None), None),
        next((wait for part in parts if (wait := _wait(part)) is not None), None) or _wait_in_words(message),
    )


def asked_wait_s(headers: Mapping[str, str], refusal: Refusal) -> float | None:
    """The wait that was asked for, in seconds: `retry-after-ms`, `Retry-After`, then the body; None where none was."""
    try:
        asked: float | None = float(headers.get("retry-after-ms", "")) / 1000
    except ValueError:
        asked = retry_after_s(headers)
    if asked is None or math.isnan(asked):
        asked = refusal.wait_s
    return asked


def _parts(node: object, depth: int) -> Iterator[dict[str, object]]:
    """The objects that may say something, the outermost first; the innermost has the most telling words."""
    if depth > _DEEPEST:
        return
    if isinstance(node, list):
        for entry in node[:10]:
            yield from _parts(entry, depth + 1)
        return
    if isinstance(node, str) and node.startswith("{"):  # OpenRouter quotes the vendor's answer as text
        try:
            node = msgspec.json.decode(node[: 8 * LONGEST_TEXT])
        except (msgspec.MsgspecError, RecursionError):
            return
    if not isinstance(node, dict):
        return
    part = {str(name): value for name, value in node.items()}
    yield part
    for name in ("details", "error", "detail", "message", "metadata", "raw"):
        if isinstance(part.get(name), dict | list) or name == "raw":
            yield from _parts(part.get(name), depth + 1)


def _texts(part: Mapping[str, object]) -> Iterator[str]:
    for name in _WORDS:
        value = part.get(name)
        if isinstance(value, str) and value and not value.startswith("{"):
            yield value


def _status(part: Mapping[str, object]) -> int | None:
    code = part.get("code")
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and 400 <= code <= 599 else None


def _wait(part: Mapping[str, object]) -> float | None:
    """Gemini's RetryInfo, OpenRouter's `retry_after_seconds` and its limit's reset (milliseconds since 1970)."""
    delay = part.get("retryDelay")
    if isinstance(delay, str):
        return _number(delay.removesuffix("s"))
    seconds = part.get("retry_after_seconds")
    if isinstance(seconds, int | float):
        return _number(seconds)
    headers = part.get("headers")
    if isinstance(headers, dict):
        resets_at_ms = _number(headers.get("X-RateLimit-Reset"))
        return None if resets_at_ms is None else resets_at_ms / 1000 - time.time()
    return None


def _wait_in_words(message: str) -> float | None:
    """ "Please try again in 7m30.5s" (OpenAI and Groq say it in words where no header does)."""
    found = _WAIT_IN_WORDS.search(message[:LONGEST_TEXT])
    if found is None or not (found["h"] or found["m"] or found["s"]):
        return None
    seconds = float(found["s"] or 0) / (1000 if (found["unit"] or "").lower() == "ms" else 1)
    return int(found["h"] or 0) * 3600 + int(found["m"] or 0) * 60 + seconds


def _number(value: object) -> float | None:
    if not isinstance(value, str | int | float) or (isinstance(value, str) and len(value) > 40):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(body: bytes) -> str:
    """The first line of a text; markup says nothing."""
    text = body[: 4 * LONGEST_TEXT].decode(errors="replace").strip().strip('"')
    return "" if text.startswith("<") else text.partition("\n")[0][:200]

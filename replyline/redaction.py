"""Taking secrets and personal text out of what is logged or kept about errors."""

import hashlib
import re
from urllib.parse import unquote

# Every repetition that another try may begin inside of is bounded, or long texts take time by the square of their length.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)\s{1,20}[^\s\"',;]+"), r"\1 [redacted]"),
    (re.compile(r"(?i)\b(sk|rk|whsec|xox[a-z]|ghp|EAA[A-Za-z0-9]?)[-_]?[A-Za-z0-9_\-+/=]{12,}"), "[redacted]"),
    (
        re.compile(
            r"(?i)\b(access_token|api[_-]?key|password|secret|token|authorization)\b(\"?\s{0,20}[=:]\s{0,20}\"?)[^\s\"'&,;}]+"
        ),
        r"\1\2[redacted]",
    ),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)[^\s/@:]{0,256}:[^\s/@]{0,1024}@"), r"\1[redacted]@"),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,253}"), "[address]"),
    (re.compile(r"(?<![\w-])\+?\d[\d ()-]{6,40}\d(?![\w-])"), "[number]"),
)

# Base64 that begins with the person's telephone number; it may stand in a URL.
_WAMID = re.compile(r"(?i)(?<![a-z0-9])wamid\.[\w+/=%-]+")
_WAMID_HASH_CHARS = 12

_MAX_CHARS = 4000
_SEARCHED_CHARS = 8000
_LONGEST_TOKEN = 1024


def redact(text: str, *, max_chars: int = _MAX_CHARS) -> str:
    """`text` without tokens, passwords, mail addresses and phone numbers, cut to `max_chars` from the end that says least.

    A message id of WhatsApp's (`wamid.…`) becomes `[wamid …]` with the first digits of its SHA-256, which name the same message
    everywhere; `external_id` in Postgres has the id itself.
    """
    searched = max(_SEARCHED_CHARS, 2 * max_chars)
    if len(text) > searched:
        text = _without_half_a_word(text[-searched:])
    text = _WAMID.sub(_hashed, text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    if len(text) > max_chars:
        text = f"…{text[-max_chars:]}"
    return text


def _hashed(wamid: re.Match[str]) -> str:
    digest = hashlib.sha256(unquote(wamid.group()).encode()).hexdigest()
    return f"[wamid {digest[:_WAMID_HASH_CHARS]}]"


def _without_half_a_word(text: str) -> str:
    """What a cut left of a secret has lost the sign by which it is known."""
    gap = re.search(r"\s", text[:_LONGEST_TOKEN])
    return text[_LONGEST_TOKEN if gap is None else gap.end() :]

"""Taking secrets and personal text out of what is logged or kept about errors."""

import re

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;]+"), r"\1 [redacted]"),
    (re.compile(r"(?i)\b(sk|rk|whsec|xox[a-z]|ghp|EAA[A-Za-z0-9]?)[-_]?[A-Za-z0-9_\-+/=]{12,}"), "[redacted]"),
    (
        re.compile(
            r"(?i)\b(access_token|api[_-]?key|password|secret|token|authorization)\b(\"?\s*[=:]\s*\"?)[^\s\"'&,;}]+"
        ),
        r"\1\2[redacted]",
    ),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]*@"), r"\1[redacted]@"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "[address]"),
    (re.compile(r"(?<![\w-])\+?\d[\d ()-]{6,}\d(?![\w-])"), "[number]"),
)

_MAX_CHARS = 4000


def redact(text: str, *, max_chars: int = _MAX_CHARS) -> str:
    """`text` without tokens, passwords, mail addresses and phone numbers, cut to `max_chars` from the end that says least."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    if len(text) > max_chars:
        text = f"…{text[-max_chars:]}"
    return text

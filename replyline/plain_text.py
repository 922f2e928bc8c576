"""Text that can be stored and sent: no NUL, which Postgres refuses, and no half of a surrogate pair, which no encoding has."""

import re

_REPLACEMENT = "\ufffd"
_ESCAPES = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_HALVES = re.compile("[\ud800-\udfff]")
_NULS = re.compile(r"\\\\|\\u0000")


def storable(text: str) -> str:
    """The text with U+FFFD for each NUL and each half of a surrogate pair."""
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return _HALVES.sub(_REPLACEMENT, text)


def mend_json(raw: bytes) -> bytes:
    """JSON with U+FFFD for each half of a surrogate pair, escaped or not, and for bytes that are not UTF-8.

    JSON's grammar allows a half to be escaped (RFC 8259 §8.2), and `JSON.stringify` writes it so: an emoji cut in two by a
    limit. Decoders refuse the whole document for it.
    """
    mended = _ESCAPES.sub(_mend, raw)
    try:
        mended.decode()
    except UnicodeDecodeError:
        return mended.decode(errors="replace").encode()
    return mended


def _mend(escape: "re.Match[bytes]") -> bytes:
    found = escape[0]
    return rb"\ufffd" if len(found) == 6 else found


def without_nul(json: str) -> str:
    """JSON with U+FFFD for each escaped NUL, which JSON has and Postgres' jsonb has not."""
    return _NULS.sub(lambda escape: escape[0] if escape[0] != r"\u0000" else r"\ufffd", json)

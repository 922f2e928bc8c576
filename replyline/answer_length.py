"""How long an answer may be: a model that does not stop must not fill somebody's telephone."""

import re

# The end of a paragraph, else of a sentence, else of a word: the last one before the limit.
_ENDS = (re.compile(r"\n\s*\n"), re.compile(r"[.!?…。！？]['\")\]]*(?=\s)|\n"), re.compile(r"(?=\s)"))
_MORE = " …"


def shorten(text: str, most_chars: int) -> str:
    """The text, or its beginning of at most `most_chars` characters up to the end of a sentence; "…" says that there was more."""
    if len(text) <= most_chars:
        return text
    room = most_chars - len(_MORE)
    for end in _ENDS:
        places = [found.end() for found in end.finditer(text[: room + 1]) if found.end() <= room]
        if places and places[-1] > most_chars // 2:
            return text[: places[-1]].rstrip() + _MORE
    return text[:room] + _MORE

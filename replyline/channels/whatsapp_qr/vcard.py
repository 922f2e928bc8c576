"""Contact cards as WhatsApp sends them: vCard 3.0 (RFC 2426), of which the names, numbers and addresses are read."""

import re

from replyline.channels.reading import text
from replyline.inbound_content import MAX_CARD_ENTRIES, MAX_NAME_CHARS, MAX_WORDS_CHARS, Card, Phone

_MAX_LINES = 500
_FOLD = re.compile(r"\r?\n[ \t]")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_WA_ID = re.compile(r"(?:^|;)waid=(\d{5,20})(?:;|$)", re.IGNORECASE)
_TYPE = re.compile(r"(?:^|;)type=([A-Za-z]{1,20})(?:;|$)", re.IGNORECASE)


def card_in(vcard: str | None, name: str | None) -> Card | None:
    """The card; `name` is what WhatsApp shows for it. None where nothing on it can be read."""
    read: dict[str, str] = {}
    phones: list[Phone] = []
    emails: list[str] = []
    for line in _FOLD.sub("", vcard or "").splitlines()[:_MAX_LINES]:
        head, _, value = line.partition(":")
        named, _, more = head.partition(";")
        value = text(_plain(value), MAX_NAME_CHARS)
        match named.rpartition(".")[2].upper():  # without its group, as in `item1.TEL`
            case "TEL" if value:
                wa_id, kind = _WA_ID.search(more), _TYPE.search(more)
                phones.append(
                    Phone(
                        number=value[:100],
                        wa_id=wa_id.group(1) if wa_id else None,
                        kind=kind.group(1) if kind else None,
                    )
                )
            case "EMAIL" if value:
                emails.append(value)
            case "FN" | "ORG" as field if value:
                read.setdefault(field, value)
    card = Card(
        name=name or read.get("FN"),
        organization=read.get("ORG") if read.get("ORG") != (name or read.get("FN")) else None,
        phones=tuple(phones[:MAX_CARD_ENTRIES]),
        emails=tuple(emails[:MAX_CARD_ENTRIES]),
        vcard=text(vcard, MAX_WORDS_CHARS) if vcard else None,
    )
    return None if card in {Card(), Card(vcard=card.vcard)} else card


def _plain(value: str) -> str:
    """A value without escapes; the parts of a structured one, which a semicolon separates, become words."""
    words = re.split(r"(?<!\\);", value)
    return " ".join(_ESCAPED.sub(_unescaped, word).strip() for word in words if word.strip())


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found.group(1) in "nN" else found.group(1)

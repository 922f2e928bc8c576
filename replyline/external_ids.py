"""Ids that come from outside: what each kind looks like, so that none is ever more than one part of a URL or a path."""

import re
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class IdKind:
    """One kind of id. `meaning` completes "a phone_number_id is …"."""

    name: str
    pattern: str
    meaning: str

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and re.fullmatch(self.pattern, value, re.ASCII) is not None

    def check(self, value: str) -> str:
        """The id itself. Raises ValueError where it is none of this kind."""
        if value not in self:
            raise ValueError(f"{self.name} {value[:60]!r}: it must be {self.meaning}")
        return value

    def in_url(self, value: str) -> str:
        """The id as one segment of a path, or as one value of a query. Raises ValueError where it is none of this kind."""
        return quote(self.check(value), safe="")


# Graph API ids are numbers (WhatsApp Cloud API, "Get Started" and "Media"); the longest known have 17 digits.
PHONE_NUMBER_ID = IdKind("phone_number_id", r"\d{5,20}", "5 to 20 digits")
MEDIA_ID = IdKind("media id", r"\d{1,32}", "1 to 32 digits")
# docs/qr-gateway.md, "Calls". Not dots alone: URL libraries read "." and ".." as folders.
SESSION = IdKind("session", r"(?!\.+\Z)[A-Za-z0-9._-]{1,100}", "1 to 100 of A-Z a-z 0-9 . _ -, and more than dots")
TEMPLATE_NAME = IdKind("template name", r"[a-z0-9_]{1,512}", "1 to 512 of a-z 0-9 _")

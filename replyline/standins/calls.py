"""What a stand-in was sent: the newest calls, bounded in number and in bytes, read page by page."""

import time
from collections import deque
from dataclasses import dataclass
from itertools import islice

import msgspec

MAX_CALLS = 100_000
MAX_BYTES = 256_000_000
"""Bodies and headers that are kept at most, all calls together; the oldest go first."""
MAX_BODY_BYTES = 64_000
"""Of one body; what is longer is kept as the beginning of its text."""
PAGE = 1_000
_SECRET = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"x-api-key"))


class Call(msgspec.Struct, frozen=True):
    """One call as it is shown. `at` is Unix seconds of its arrival; `status` is None where the connection was cut."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: object
    status: int | None


class Page(msgspec.Struct, frozen=True):
    """Calls from `since` on; `next` is the `since` that goes on after them."""

    next: int
    calls: list[Call]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A call as it is kept: unread, because most are never looked at."""

    at: float
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    status: int | None
    size: int


class Calls:
    """The newest calls; each has a number that never changes, from 0."""

    def __init__(self, *, most: int = MAX_CALLS, most_bytes: int = MAX_BYTES) -> None:
        self._kept: deque[_Kept] = deque()
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._seen = 0

    def add(
        self,
        method: str,
        path: str,
        headers: tuple[tuple[bytes, bytes], ...],
        body: bytes,
        status: int | None,
        *,
        at: float | None = None,
    ) -> None:
        """Keep one; values of headers that carry secrets are not kept."""
        lower = ((name.lower(), value) for name, value in headers)
        shown = tuple((name, b"[redacted]" if name in _SECRET else value) for name, value in lower)
        body = body[: MAX_BODY_BYTES + 1]
        size = len(path) + len(body) + sum(len(name) + len(value) for name, value in shown)
        self._kept.append(_Kept(time.time() if at is None else at, method, path, shown, body, status, size))
        self._seen += 1
        self._bytes += size
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self._bytes -= self._kept.popleft().size

    def page(self, since: int, *, most: int = PAGE) -> Page:
        """At most `most` calls from number `since` on, or from the oldest that is left."""
        oldest = self._seen - len(self._kept)
        start = min(max(since, oldest), self._seen)
        calls = [_shown(kept) for kept in islice(self._kept, start - oldest, start - oldest + most)]
        return Page(start + len(calls), calls)

    def clear(self) -> None:
        """Forget them; numbers go on."""
        self._kept.clear()
        self._bytes = 0


def _shown(kept: _Kept) -> Call:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in kept.headers}
    return Call(kept.at, kept.method, kept.path, headers, _body(kept.body), kept.status)


def _body(raw: bytes) -> object:
    """JSON where it is, text otherwise, None where there was none."""
    if not raw:
        return None
    if len(raw) <= MAX_BODY_BYTES:
        try:
            return msgspec.json.decode(raw)
        except msgspec.DecodeError:
            return raw.decode(errors="replace")  # text is what `body` shows then
    return raw[:MAX_BODY_BYTES].decode(errors="replace")

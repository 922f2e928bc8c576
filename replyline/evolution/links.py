"""Fetching a file that is to be sent from the link that a customer gave: never from inside our own network."""

from dataclasses import dataclass

import aiohttp

from replyline.evolution.refusal import Refusal
from replyline.webhooks import RefusedAddress

MAX_FILE_BYTES = 64_000_000
"""The largest file that is fetched or sent."""
_REDIRECTS = 3
_CHUNK_BYTES = 65_536
_LATER_MS = 10_000
_TYPES = {"image": "image/", "audio": "audio/", "video": "video/", "sticker": "image/webp"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file; `mime` is None where its server says nothing in particular, `name` is the last part of the address's path."""

    data: bytes
    mime: str | None
    name: str | None


async def fetch_link(http: aiohttp.ClientSession, link: str, kind: str) -> Fetched:
    """Fetch a file of that kind.

    Raises:
        Refusal: `bad_link` where it will never work, `too_large`, or `unavailable`.
    """
    try:
        async with http.get(link, max_redirects=_REDIRECTS) as response:
            _check_status(response.status)
            mime = _mime(response.headers.get("Content-Type", ""))
            if mime is not None and not mime.startswith(_TYPES.get(kind, "")):
                raise Refusal("bad_link", f"the link leads to {mime[:100]}, which is no {kind}")
            data = await _read(response)
            return Fetched(data, mime, response.url.name[:240] or None)
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, aiohttp.TooManyRedirects) as error:
        raise Refusal("bad_link", "the link leads nowhere") from error
    except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
        if isinstance(error, RefusedAddress) or isinstance(error.__cause__, RefusedAddress):
            raise Refusal("bad_link", "the link leads to a private or local address") from error
        said = f"the link cannot be read: {type(error).__name__}"
        raise Refusal("unavailable", said, retry_after_ms=_LATER_MS) from error


def _check_status(status: int) -> None:
    if status == 429 or status >= 500:
        raise Refusal("unavailable", f"the link answered {status}", retry_after_ms=_LATER_MS)
    if status != 200:
        raise Refusal("bad_link", f"the link answered {status}")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    too_large = Refusal("too_large", f"a file to be sent has at most {MAX_FILE_BYTES} bytes")
    if (response.content_length or 0) > MAX_FILE_BYTES:
        raise too_large
    read = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        read += chunk
        if len(read) > MAX_FILE_BYTES:
            raise too_large
    if not read:
        raise Refusal("bad_link", "the link leads to an empty file")
    return bytes(read)


def _mime(header: str) -> str | None:
    mime = header.strip().lower()
    return None if not mime or mime.startswith(("application/octet-stream", "binary/")) else mime

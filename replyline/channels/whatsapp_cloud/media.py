"""Fetching the files that people send: Meta names them by id, gives an address for five minutes, and wants the token for both.

WhatsApp Cloud API, "Media": ids of inbound files live 7 days, addresses 5 minutes; limits by kind (contracts §1.4).
"""

import base64
import hashlib
from collections.abc import AsyncIterator

import aiohttp
import msgspec
from yarl import URL

from replyline.channels.http_call import Answer, call, no_answer
from replyline.channels.reading import part
from replyline.channels.whatsapp_cloud.errors import error_from
from replyline.channels.whatsapp_cloud.file_hosts import FileHosts
from replyline.errors import ChannelDown, JobError, Permanent, Temporary
from replyline.jobs import MediaRef
from replyline.webhooks import RefusedAddress, retry_after_s

_MB = 1_000_000
MAX_BYTES = {"image": 5 * _MB, "audio": 16 * _MB, "video": 16 * _MB, "document": 100 * _MB, "sticker": 500_000}
"""The largest file of each kind; Meta lets none through that is larger, so one that is has been tampered with."""
_TYPES = {
    "image": ("image/",),
    "audio": ("audio/",),
    "video": ("video/",),
    "sticker": ("image/webp",),
    "document": ("application/", "text/", "image/", "audio/", "video/"),
}
_CHUNK_BYTES = 65_536
_REDIRECTS = 3
_REDIRECTED = frozenset({301, 302, 303, 307, 308})


class _Media(msgspec.Struct):
    url: str
    mime_type: str | None = None
    sha256: str | None = None
    file_size: int | str | None = None


async def fetch(
    media: MediaRef, http: aiohttp.ClientSession, url: str, token: str, hosts: FileHosts
) -> AsyncIterator[bytes]:
    """The file, piece by piece; `url` is where Graph describes it, `hosts` are where its bytes may be.

    Raises:
        Permanent: it is gone, too large, of another type than its kind, or its address leads elsewhere than to Meta.
        Temporary, RateLimited: as Graph says; a channel that is down may work again within the days of the job's retries.
    """
    headers = {"Authorization": f"Bearer {token}"}
    answer = await call(http, "Meta", url, headers=headers, secret=token, method="GET")
    if answer.status != 200:
        raise _about_the_file(error_from(answer))
    described = part(answer.body, _Media)
    address = _address(described.url) if described is not None else None
    if described is None or address is None:
        raise Temporary("Meta's answer names no address of the file", reason="unreadable_answer")
    limit = MAX_BYTES.get(media.kind, MAX_BYTES["document"])
    _check_type(media.kind, described.mime_type or media.mime_type)
    if (size := _size(described.file_size)) is not None and size > limit:
        raise Permanent(f"a {media.kind} of {size} bytes: at most {limit} are taken", reason="media_too_large")
    digest = hashlib.sha256()
    received = 0
    async for chunk in _download(http, address, headers, hosts):
        received += len(chunk)
        if received > limit:
            raise Permanent(f"more than the {limit} bytes that a {media.kind} may have", reason="media_too_large")
        digest.update(chunk)
        yield chunk
    wanted = described.sha256 or media.sha256
    if wanted and not _is_hash(digest, wanted):
        raise Temporary("the file is not the one whose hash was announced", reason="media_hash")


def _about_the_file(error: JobError) -> JobError:
    """Graph answers the same for every object that it does not find (100 with subcode 33): here it is the file, not the number.

    A channel that is down (its token, say) is mended within days more often than not, and so long can the file be had.
    """
    if error.reason == "number_unknown":
        return Permanent(str(error), reason="media_unknown")
    return Temporary(str(error), reason=error.reason) if isinstance(error, ChannelDown) else error


def _check_type(kind: str, mime_type: str | None) -> None:
    if mime_type and not mime_type.lower().startswith(_TYPES.get(kind, ("",))):
        raise Permanent(f"a {kind} cannot be of the type {mime_type[:100]}", reason="media_type")


def _size(value: int | str | None) -> int | None:
    """Meta writes it as text at times (contracts §1.4)."""
    try:
        return None if value is None else int(value)
    except ValueError:
        return None


def _is_hash(digest: "hashlib._Hash", wanted: str) -> bool:
    """Graph gives the SHA-256 in hex, callbacks in base64."""
    return wanted.lower() == digest.hexdigest() or wanted == base64.b64encode(digest.digest()).decode()


async def _download(
    http: aiohttp.ClientSession, address: URL, headers: dict[str, str], hosts: FileHosts
) -> AsyncIterator[bytes]:
    """Follows redirects by hand: every address is checked, and only the first one's host gets the token."""
    try:
        for _ in range(_REDIRECTS + 1):
            hosts.check(address)
            async with http.get(address, headers=headers, allow_redirects=False) as response:
                if response.status not in _REDIRECTED:
                    if response.status != 200:
                        raise _refusal(response)
                    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                        yield chunk
                    return
                target = _address(response.headers.get("Location", ""), address)
            if target is None:
                raise Temporary("the file's address leads nowhere", reason="media_address")
            if target.origin() != address.origin():
                headers = {}
            address = target
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one of the latter
        if isinstance(error, RefusedAddress) or isinstance(error.__cause__, RefusedAddress):
            raise Permanent("the file's address leads to a private or local address", reason="media_address") from error
        if not isinstance(error, aiohttp.ClientError | TimeoutError):
            raise Temporary("the file's address cannot be reached", reason="connection") from error
        raise no_answer(error, "the file's address") from error
    raise Temporary(f"the file's address leads on more than {_REDIRECTS} times", reason="media_address")


def _address(text: str, base: URL | None = None) -> URL | None:
    """`text` as an address that can be called; None where it is none."""
    try:
        read = URL(text) if base is None else base.join(URL(text))
    except ValueError:
        return None
    return read if text and read.scheme in {"http", "https"} and read.host else None


def _refusal(response: aiohttp.ClientResponse) -> Exception:
    """An address that has expired answers 404: the next try asks for a new one."""
    if response.status in {401, 403, 404, 410}:
        return Temporary(f"the file's address answered {response.status}", reason="media_address_expired")
    return error_from(Answer(response.status, b"", retry_after_s(response.headers)))

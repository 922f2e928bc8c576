"""Fetching the files that people send: Meta names them by id, gives an address for five minutes, and wants the token for both.

WhatsApp Cloud API, "Media": ids of inbound files live 7 days, addresses 5 minutes; limits by kind (contracts §1.4).
"""

import base64
import hashlib
from collections.abc import AsyncIterator

import aiohttp
import msgspec

from replyline.channels.contract import ChannelAccount
from replyline.channels.http_call import Answer, call, no_answer
from replyline.channels.reading import part
from replyline.channels.whatsapp_cloud.errors import error_from
from replyline.errors import ChannelDown, JobError, Permanent, Temporary
from replyline.jobs import MediaRef
from replyline.webhooks import retry_after_s

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


class _Media(msgspec.Struct):
    url: str
    mime_type: str | None = None
    sha256: str | None = None
    file_size: int | str | None = None


async def fetch(
    account: ChannelAccount, media: MediaRef, http: aiohttp.ClientSession, url: str, token: str
) -> AsyncIterator[bytes]:
    """The file, piece by piece; `url` is where Graph describes it.

    Raises:
        Permanent: it is gone, too large, of another type than its kind, or not what its hash says.
        Temporary, RateLimited: as Graph says; a channel that is down may be well again within the days of the job's retries.
    """
    headers = {"Authorization": f"Bearer {token}"}
    answer = await call(http, "Meta", url, headers=headers, secret=token, method="GET")
    if answer.status != 200:
        raise _about_the_file(error_from(answer))
    described = part(answer.body, _Media)
    if described is None or not described.url.startswith(("https://", "http://")):
        raise Temporary("Meta's answer names no address of the file", reason="unreadable_answer")
    limit = MAX_BYTES.get(media.kind, MAX_BYTES["document"])
    _check_type(media.kind, described.mime_type or media.mime_type)
    if (size := _size(described.file_size)) is not None and size > limit:
        raise Permanent(f"a {media.kind} of {size} bytes: at most {limit} are taken", reason="media_too_large")
    if url.startswith("https://") and not described.url.startswith("https://"):
        raise Permanent("the file's address is not https: the token does not go there", reason="media_address")
    digest = hashlib.sha256()
    received = 0
    async for chunk in _download(http, described.url, headers):
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


async def _download(http: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> AsyncIterator[bytes]:
    try:
        async with http.get(url, headers=headers, max_redirects=_REDIRECTS) as response:
            if response.status != 200:
                raise _refusal(response)
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                yield chunk
    except (aiohttp.ClientError, TimeoutError) as error:
        raise no_answer(error, "the file's address") from error


def _refusal(response: aiohttp.ClientResponse) -> Exception:
    """An address that has expired answers 404: the next try asks for a new one."""
    if response.status in {401, 403, 404, 410}:
        return Temporary(f"the file's address answered {response.status}", reason="media_address_expired")
    return error_from(Answer(response.status, b"", retry_after_s(response.headers)))

"""Fetching the files that people send from the gateway, which fetches them from WhatsApp (docs/qr-gateway.md, "Files")."""

import base64
import hashlib
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp

from replyline.channels.contract import ChannelAccount
from replyline.channels.http_call import Answer, no_answer
from replyline.channels.whatsapp_qr.gateway import headers_for, refusal, session_url
from replyline.errors import Permanent, Temporary
from replyline.jobs import MediaRef
from replyline.webhooks import read_at_most, retry_after_s

MAX_BYTES = 100_000_000
"""The largest file that is kept, whatever its kind; the gateway has a limit of its own."""
_CHUNK_BYTES = 65_536
_MAX_ERROR_BYTES = 65_536


async def fetch(account: ChannelAccount, media: MediaRef, http: aiohttp.ClientSession) -> AsyncIterator[bytes]:
    """The file, piece by piece.

    Raises:
        Permanent: it is gone, or too large.
        Temporary: it was cut off, or is not what its hash says; or as the gateway says.
        RateLimited, ChannelDown: as the gateway says.
    """
    digest = hashlib.sha256()
    received = 0
    async for chunk in _download(account, media.provider_id, http):
        received += len(chunk)
        if received > MAX_BYTES:
            raise Permanent(f"a file of more than {MAX_BYTES} bytes: no larger one is kept", reason="media_too_large")
        digest.update(chunk)
        yield chunk
    if media.sha256 and media.sha256 != base64.b64encode(digest.digest()).decode():
        raise Temporary("the file is not the one whose hash was announced", reason="media_hash")


async def _download(account: ChannelAccount, media_id: str, http: aiohttp.ClientSession) -> AsyncIterator[bytes]:
    if media_id in {".", ".."}:  # the only ids that quoting leaves a way up in a path
        raise Permanent("the file's id is none", reason="media_id")
    url = session_url(account, f"/media/{quote(media_id, safe='')}")
    try:
        async with http.get(url, headers=headers_for(account), allow_redirects=False) as response:
            if response.status != 200:
                body = await read_at_most(response, _MAX_ERROR_BYTES)
                raise refusal(Answer(response.status, body, retry_after_s(response.headers)))
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                yield chunk
    except (aiohttp.ClientError, TimeoutError) as error:
        raise no_answer(error, "the QR gateway") from error

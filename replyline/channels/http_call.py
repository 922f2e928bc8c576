"""One HTTP call to a channel, and what its failure says: whether the message may have gone out although no answer came."""

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from replyline.errors import JobError, Permanent, Temporary
from replyline.webhooks import read_at_most, retry_after_s

_MAX_ANSWER_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the first 64 KiB of it, without the secret that was sent."""

    status: int
    body: bytes
    retry_after_s: float | None
    """Seconds that the answer asks us to wait, 0 to 3600; None where it does not."""


async def call(
    http: aiohttp.ClientSession,
    what: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str],
    secret: str | None,
    method: str = "POST",
) -> Answer:
    """Send `body` to `url`, following no redirect; `what` names the other side in errors.

    Raises:
        Temporary: no answer came, with `outcome_unknown` unless the connection was never made.
        Permanent: `url` is no URL.
    """
    try:
        async with http.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
            read = await read_at_most(response, _MAX_ANSWER_BYTES)
            if secret:  # Graph quotes a malformed token in its error message
                read = read.replace(secret.encode(), b"[redacted]")
            return Answer(response.status, read, retry_after_s(response.headers))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise no_answer(error, what) from error


def no_answer(error: aiohttp.ClientError | TimeoutError, what: str) -> JobError:
    """What a call means that was not answered.

    Only where the connection was never made is it certain that nothing was sent (aiohttp, "Client exceptions").
    """
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return Permanent(f"the address of {what} is no URL", reason="channel_misconfigured")
    never_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    if isinstance(error, TimeoutError):
        return Temporary(f"{what} did not answer in time", reason="timeout", outcome_unknown=not never_sent)
    said = f"{what} cannot be reached: {type(error).__name__}"
    return Temporary(said, reason="connection", outcome_unknown=not never_sent)

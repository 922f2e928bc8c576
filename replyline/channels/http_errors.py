"""What a failed HTTP call to a channel says about the message: whether it may have gone out although no answer came."""

from collections.abc import Mapping

import aiohttp

from replyline.errors import Temporary


def failed_call(error: aiohttp.ClientError | TimeoutError, what: str) -> Temporary:
    """The failure of a call to `what`, in our words.

    Only where the connection was never made is it certain that nothing was sent (aiohttp, "Client exceptions").
    """
    never_sent = isinstance(
        error,
        aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL | aiohttp.ClientSSLError,
    )
    if isinstance(error, TimeoutError):
        reason, said = "timeout", "did not answer in time"
    else:
        reason, said = "connection", f"cannot be reached: {type(error).__name__}"
    return Temporary(f"{what} {said}", reason=reason, outcome_unknown=not never_sent)


def retry_after_s(headers: Mapping[str, str], default_s: float, longest_s: float = 3600.0) -> float:
    """Seconds of a `Retry-After` header (RFC 9110 §10.2.3, the form in seconds), at most `longest_s`; `default_s` without one."""
    try:
        return min(max(float(headers.get("Retry-After", "")), 0.0), longest_s)
    except ValueError:
        return default_s

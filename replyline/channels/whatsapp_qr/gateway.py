"""Calls of the gateway: what it is asked, and what its refusals mean (docs/qr-gateway.md, "Calls" and "Errors")."""

from collections.abc import Mapping

import aiohttp
import msgspec

from replyline.channels.contract import ChannelAccount
from replyline.channels.http_call import Answer, call
from replyline.channels.reading import part
from replyline.errors import ChannelDown, JobError, Permanent, RateLimited, Temporary
from replyline.external_ids import SESSION

_DEFAULT_WAIT_S = 5.0
_LONGEST_WAIT_S = 3600.0
# In these states nothing can be sent, and no waiting helps by itself for the last two.
_DOWN = {
    "connecting": "session_closed",
    "closed": "session_closed",
    "qr": "session_not_paired",
    "logged_out": "session_logged_out",
    "banned": "session_banned",
}


class Failure(msgspec.Struct):
    """What went wrong last, as the gateway says it."""

    code: str = ""
    message: str = ""


class QrCode(msgspec.Struct):
    """A code to scan or to type, until `expires_at` (Unix seconds)."""

    code: str
    expires_at: float | None = None


class Session(msgspec.Struct):
    """A session as the gateway shows it."""

    id: str
    state: str
    label: str | None = None
    phone: str | None = None
    qr: QrCode | None = None
    pairing_code: QrCode | None = None
    restricted_until: float | None = None
    last_error: Failure | None = None
    waiting_events: int = 0


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""
    retryable: bool = False
    retry_after_ms: float | None = None


class _ErrorAnswer(msgspec.Struct):
    error: _Error


def down_reason(state: str) -> str | None:
    """Why nothing can be sent in a session of that state; None where it can."""
    return _DOWN.get(state)


async def connect_session(
    account: ChannelAccount, http: aiohttp.ClientSession, *, callback_url: str, label: str
) -> Session:
    """Make the account's session, or tell it where its events go; one that was logged out or banned tries anew.

    Raises:
        JobError: the gateway did not do it.
    """
    body = {"webhook_url": callback_url, "webhook_secret": account.secrets.get("secret", ""), "label": label[:100]}
    session = _session(await ask(account, http, "PUT", "", body))
    if session.state in {"logged_out", "banned"}:
        return await change_session(account, http, "restart")
    return session


async def show_session(account: ChannelAccount, http: aiohttp.ClientSession) -> Session:
    """The account's session as it is now.

    Raises:
        JobError: the gateway does not say, or has no such session.
    """
    return _session(await ask(account, http, "GET", "", None))


async def pair_session(account: ChannelAccount, http: aiohttp.ClientSession, *, phone: str) -> Session:
    """Ask for a code to type on the telephone instead of a picture to scan.

    Raises:
        JobError: there is none; the session may be open already.
    """
    return _session(await ask(account, http, "POST", "/pair", {"phone": phone}))


async def change_session(account: ChannelAccount, http: aiohttp.ClientSession, change: str) -> Session:
    """`restart` the session, or `logout`.

    Raises:
        JobError: the gateway did not do it.
    """
    return _session(await ask(account, http, "POST", f"/{change}", {}))


async def delete_session(account: ChannelAccount, http: aiohttp.ClientSession) -> None:
    """Let the gateway forget the account's session with its login; one that it does not know is forgotten already.

    Raises:
        JobError: it did not.
    """
    try:
        await ask(account, http, "DELETE", "", None)
    except ChannelDown as error:
        if error.reason != "session_unknown":
            raise


def _session(answer: Answer) -> Session:
    read = part(answer.body, Session)
    if read is None:
        raise Temporary("the gateway's answer is no session", reason="unreadable_answer")
    return read


async def ask(
    account: ChannelAccount,
    http: aiohttp.ClientSession,
    method: str,
    path: str,
    body: Mapping[str, object] | None,
    *,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One call about the account's session; `path` goes behind it.

    Raises:
        JobError: it was not done; the error says whether and when a repeat helps.
    """
    answer = await call(
        http,
        "the QR gateway",
        session_url(account, path),
        body=None if body is None else msgspec.json.encode(body),
        headers={"Content-Type": "application/json", **(headers or {}), **headers_for(account)},
        secret=account.secrets.get("gateway_token"),
        method=method,
    )
    if not 200 <= answer.status < 300:
        raise refusal(answer)
    return answer


def session_url(account: ChannelAccount, path: str) -> str:
    """Where the gateway has the account's session; `path` goes behind it. Raises Permanent where the channel names no gateway."""
    url = account.config.get("gateway_url")
    if not url:
        raise Permanent("the channel has no gateway_url", reason="channel_misconfigured")
    try:
        session = SESSION.in_url(account.external_id)
    except ValueError as error:
        raise Permanent(str(error), reason="channel_misconfigured") from error
    return f"{url.rstrip('/')}/v1/sessions/{session}{path}"


def headers_for(account: ChannelAccount) -> Mapping[str, str]:
    """What proves to the gateway that it is us."""
    token = account.secrets.get("gateway_token")
    return {"Authorization": f"Bearer {token}"} if token else {}


def refusal(answer: Answer) -> JobError:
    """The gateway says by itself whether a repeat helps; without a readable error the status decides."""
    status = answer.status
    read = part(answer.body, _ErrorAnswer)
    error = read.error if read else _Error(retryable=status in {408, 425})
    said = f"the QR gateway answered {status}: {error.message or error.code or 'no reason'}"
    reason = error.code or f"http_{status}"
    wait_s = answer.retry_after_s or _DEFAULT_WAIT_S
    if error.retry_after_ms is not None:
        wait_s = min(max(error.retry_after_ms / 1000, 0.0), _LONGEST_WAIT_S)
    match status:
        case 401 | 403 | 410:  # our token, or the session's login, is no longer taken
            return ChannelDown(said, reason=f"session_{reason}" if status == 410 else "gateway_unauthorized")
        case 404 if error.code == "unknown_session":
            return ChannelDown(said, reason="session_unknown")
        case 409 | 421 | 429:  # not connected or in flight; another gateway's; paced: it will be taken later
            return RateLimited(said, after=wait_s, reason=reason)
        case 423:  # WhatsApp's error 463: every repeat counts as another attempt to reach out and makes it worse
            return Permanent(said, reason=reason)
        case _ if error.retryable or status >= 500:
            return Temporary(said, reason=reason)
        case _:
            return Permanent(said, reason=reason)

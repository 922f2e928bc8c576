"""The door for channels: a callback is checked, split into messages and statuses, and kept before it is answered."""

import asyncio
import uuid
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar

import msgspec
import structlog
from fastapi import APIRouter, Request, Response

from replyline import metrics
from replyline.app import App
from replyline.channels import (
    CHANNELS,
    Callback,
    ChannelAccount,
    ForgedCallback,
    InboundMessage,
    UnreadableCallback,
    UnreadItem,
)
from replyline.channels.whatsapp_cloud import verification
from replyline.errors import Permanent
from replyline.ids import new_id
from replyline.inbound_content import encode_inbound
from replyline.jobs import MAX_CONTENT_CHARS, ChannelKind, IncomingMessageJob, decode, encode
from replyline.plain_text import mend_json
from replyline.statuses import StatusUpdate
from replyline.store import unread
from replyline.store.database import StoreUnavailable
from replyline.store.moves.accept import Accept, Accepted, dedupe_key
from replyline.store.moves.health import DEGRADED, note_confirmed
from replyline.store.moves.statuses import ReportedStatus
from replyline.web.auth import Here
from replyline.web.guards import OpenRoute, takes
from replyline.web.notices import keep_notices
from replyline.web.problems import Problem, not_found
from replyline.web.session_events import note_session_event

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_MAX_ID_CHARS = 512
_LATEST_S = 4_102_444_800.0  # the year 2100: Postgres would refuse later times than it can keep
_MOST_OTHER_ACCOUNTS = 20

router = APIRouter(tags=["callbacks"], route_class=OpenRoute)


@router.get("/callbacks/whatsapp-cloud/{channel_key}", response_class=Response)
async def whatsapp_cloud_handshake(channel_key: str, request: Request, app: Here) -> Response:
    """Meta's check of the callback URL: answers `hub.challenge` if `hub.verify_token` is the channel's."""
    account = await _account(app, "WHATSAPP_CLOUD", channel_key)
    try:
        challenge = verification(account, request.query_params)
    except ForgedCallback as error:
        raise Problem(403, "forged", str(error)) from error
    return Response(challenge, media_type="text/plain")


@router.post("/callbacks/whatsapp-cloud/{channel_key}")
@takes(None)
async def whatsapp_cloud(channel_key: str, request: Request, app: Here) -> Mapping[str, int]:
    """Messages and statuses from Meta, signed with `X-Hub-Signature-256`. 2xx means kept; Meta repeats what is not."""
    return await keep_callback(app, "WHATSAPP_CLOUD", channel_key, request)


@router.post("/callbacks/whatsapp-qr/{channel_key}")
@takes(None)
async def whatsapp_qr(channel_key: str, request: Request, app: Here) -> Mapping[str, int]:
    """One event from the QR gateway, signed with `X-Gateway-Signature`. 2xx means kept; the gateway repeats what is not."""
    return await keep_callback(app, "WHATSAPP_QR", channel_key, request)


async def keep_callback(app: App, kind: ChannelKind, channel_key: str, request: Request) -> Mapping[str, int]:
    """Keep what a channel's callback says, and count what it was.

    Raises:
        Problem: 404, there is no such channel; 401, it is forged.
    """
    outcome = "failed"
    try:
        account = await _account(app, kind, channel_key)
        counts = await _keep_all(app, account, request, await request.body())
        outcome = "accepted"
    except Problem as error:
        outcome = error.code
        raise
    except Permanent as error:  # its customer was deleted within the last seconds
        outcome = "not_found"
        raise not_found("channel") from error
    except StoreUnavailable:
        outcome = "store_unavailable"
        raise
    finally:
        metrics.callbacks_total.labels(kind, outcome).inc()
    for name, count in counts.items():
        metrics.callback_items_total.labels(kind, name).inc(count)
    return counts


async def _account(app: App, kind: ChannelKind, channel_key: str) -> ChannelAccount:
    account = await app.account_by_key(channel_key) if "\0" not in channel_key else None
    if account is None or account.kind != kind:
        raise not_found("channel")
    return account


async def _keep_all(app: App, account: ChannelAccount, request: Request, raw: bytes) -> dict[str, int]:
    """Keep what the callback says to the account, and to others of whom it proves the same.

    One application of Meta's may carry several numbers, and reports them all to one URL. What a callback says of another number
    counts only if that number's own channel finds the signature right too: no customer can speak for another's number.
    """
    channel = CHANNELS[account.kind]
    try:
        channel.verify(account, request.headers, raw)
    except ForgedCallback as error:
        raise Problem(401, "forged", str(error)) from error
    said = mend_json(raw)  # what was signed is `raw`; half an emoji in one text must not cost the others
    try:
        callback = channel.parse(account, said)
    except UnreadableCallback as error:
        # Refused, it would be sent again for a week (contracts §2.3); kept, somebody can look at it.
        log.warning("callbacks.unreadable", channel_id=str(account.id), error=str(error))
        callback = Callback(unread=(UnreadItem(str(error), raw),))
    counts = await _keep(app, account, callback)
    others, foreign = await _also_signed(app, account, callback, request, raw)
    counts["foreign"] += foreign
    for other in others:
        for kind, count in (await _keep(app, other, channel.parse(other, said), only_its_own=True)).items():
            counts[kind] += count
    return counts


async def _also_signed(
    app: App, account: ChannelAccount, callback: Callback, request: Request, raw: bytes
) -> tuple[list[ChannelAccount], int]:
    """The other accounts that the callback speaks of and may speak for, and how many of its items belong to no account here."""
    found: dict[uuid.UUID, ChannelAccount] = {}
    foreign = 0
    for place, (name, items) in enumerate(callback.elsewhere.items()):
        named = await app.account_named(account.kind, name) if place < _MOST_OTHER_ACCOUNTS and _is_name(name) else None
        signed = [] if named is None else _signed([named], request, raw)
        found |= {other.id: other for other in signed}
        foreign += 0 if signed else items
    for place, (name, items) in enumerate(callback.businesses.items()):
        members = await app.accounts_of_business(name) if place < _MOST_OTHER_ACCOUNTS and _is_name(name) else []
        signed = _signed(members, request, raw)
        found |= {other.id: other for other in signed}
        foreign += 0 if signed or account.config.get("waba_id") in {None, name} else items
    return [other for other in found.values() if other.id != account.id], foreign


def _is_name(name: str) -> bool:
    return bool(name) and "\0" not in name


def _signed(accounts: Iterable[ChannelAccount], request: Request, raw: bytes) -> list[ChannelAccount]:
    """Those whose own secret made the signature: no customer can speak for another's account."""
    signed: list[ChannelAccount] = []
    for other in accounts:
        try:
            CHANNELS[other.kind].verify(other, request.headers, raw)
        except ForgedCallback:
            continue  # counted as foreign
        signed.append(other)
    return signed


async def _keep(app: App, account: ChannelAccount, callback: Callback, *, only_its_own: bool = False) -> dict[str, int]:
    jobs = [(message, _job(account, message)) for message in callback.messages]
    good = [job for _, job in jobs if job is not None]
    bad = [UnreadItem("a message that cannot be queued", _raw(message)) for message, job in jobs if job is None]
    unread_items = [item for item in callback.unread if item.own or not only_its_own] + bad
    accepted = await _accept(app, account, good)
    statuses = await _apply(app, account, callback.statuses)
    session_is_new = callback.session is not None and await note_session_event(app, account, callback.session)
    notices = await keep_notices(app, account, callback)
    if unread_items:
        await _keep_unread(app, account, unread_items)
    return {
        "accepted": sum(not one.duplicate for one in accepted),
        "duplicates": sum(one.duplicate for one in accepted) + int(callback.session is not None and not session_is_new),
        "statuses": statuses,
        "sessions": int(session_is_new),
        "notices": notices,
        "unread": len(unread_items),
        "ignored": 0 if only_its_own else callback.ignored,
        "foreign": 0,
    }


async def _accept(app: App, account: ChannelAccount, jobs: list[IncomingMessageJob]) -> list[Accepted]:
    """All at once and in order: they share one transaction, or a few."""
    if not jobs:
        return []
    priority = await app.priority_of(account.customer_id)
    return await _all(
        app.moves.accept(Accept(job, priority, dedupe_key(account.id, job.external_message_id or ""))) for job in jobs
    )


async def _apply(app: App, account: ChannelAccount, updates: Iterable[StatusUpdate]) -> int:
    statuses = [status for update in updates if (status := _status(update)) is not None]
    if not statuses:
        return 0
    channel = CHANNELS[account.kind]
    reported = [
        ReportedStatus(
            account.id,
            account.customer_id,
            status,
            instead=channel.fallback(account, "") if status.error_reason == "window_closed" else None,
        )
        for status in statuses
    ]
    applied = await _all(app.moves.apply_status(row) for row in reported)
    down = [status for status, new in zip(statuses, applied, strict=True) if new and status.channel_down]
    if down:
        await app.channel_down(account, down[0].error_reason or "unknown", down[0].error_detail or "")
    if not channel.accepted_is_sent and any(status.status != "FAILED" for status in statuses):
        await _note_confirmed(app, account)
    return len(statuses)


async def _note_confirmed(app: App, account: ChannelAccount) -> None:
    async with app.database.connection() as connection:
        await note_confirmed(connection, account.id, customer_id=account.customer_id)
    if account.health_reason == DEGRADED:
        await app.channel_healed(account)


async def _keep_unread(app: App, account: ChannelAccount, items: list[UnreadItem]) -> None:
    log.warning("callbacks.not_understood", channel_id=str(account.id), items=len(items), first=items[0].reason)
    await unread.keep(
        app.database,
        customer_id=account.customer_id,
        channel_id=account.id,
        items=[(item.reason[:_MAX_ID_CHARS], item.raw) for item in items],
    )


async def _all(writes: Iterable[Awaitable[Result]]) -> list[Result]:
    """Wait for every write, also after one has failed: the sender repeats all, and those that went well are duplicates then."""
    results = await asyncio.gather(*writes, return_exceptions=True)
    kept: list[Result] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        kept.append(result)
    return kept


def _job(account: ChannelAccount, message: InboundMessage) -> IncomingMessageJob | None:
    """What came in as a job; None for what no worker could read, because repeating the callback would not mend it."""
    at = message.provider_timestamp
    external_id = _clean(message.external_id)
    job = IncomingMessageJob(
        customer_id=account.customer_id,
        trace_id=new_id(),
        message_id=new_id(),
        chatbot_id=account.chatbot_id,
        channel=account.kind,
        channel_id=account.id,
        external_user_id=_clean(message.sender),
        external_message_id=external_id,
        kind=message.kind,
        identity_kind=message.identity_kind,
        also_known_as=message.also_known_as,
        target_id=message.target_id,
        media=message.media,
        body=message.body if encode_inbound(message.body) is not None else None,
        reply_to=_clean(message.reply_to),
        content=_clean(message.content)[:MAX_CONTENT_CHARS],
        content_type=_clean(message.content_type)[:_MAX_ID_CHARS],
        contact_name=_clean(message.name)[:_MAX_ID_CHARS] if message.name else None,
        provider_timestamp=at if at is not None and 0 < at < _LATEST_S else None,
    )
    try:
        decode(job.queue, encode(job))
        if not external_id:  # nothing would tell it from another one
            raise msgspec.ValidationError("the message has no id")
    except msgspec.ValidationError as error:
        log.warning("callbacks.message_left_out", channel_id=str(account.id), error=str(error))
        return None
    return job


def _raw(message: InboundMessage) -> bytes:
    return msgspec.json.encode(message)


def _status(update: StatusUpdate) -> StatusUpdate | None:
    if not update.external_id or len(update.external_id) > _MAX_ID_CHARS or "\0" in update.external_id:
        return None
    return update


def _clean(text: str) -> str:
    """Without U+0000, which JSON allows and Postgres does not keep."""
    return text.replace("\0", "")

"""The door for channels: a callback is checked, split into messages and statuses, and kept before it is answered."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar

import msgspec
import structlog
from fastapi import APIRouter, Request, Response

from replyline import metrics
from replyline.app import App
from replyline.channels import CHANNELS, Callback, ChannelAccount, ForgedCallback, InboundMessage, UnreadableCallback
from replyline.channels.whatsapp_cloud import verification
from replyline.ids import new_id
from replyline.jobs import MAX_CONTENT_CHARS, ChannelKind, IncomingMessageJob, decode, encode
from replyline.statuses import StatusUpdate
from replyline.store.database import StoreUnavailable
from replyline.store.moves.accept import Accept, dedupe_key
from replyline.store.moves.statuses import ReportedStatus
from replyline.web.auth import Here
from replyline.web.problems import Problem, not_found

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_MAX_ID_CHARS = 512
_LATEST_S = 4_102_444_800.0  # the year 2100: Postgres would refuse later times than it can keep

router = APIRouter(tags=["callbacks"])


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
async def whatsapp_cloud(channel_key: str, request: Request, app: Here) -> Mapping[str, int]:
    """Messages and statuses from Meta, signed with `X-Hub-Signature-256`. 2xx means kept; Meta repeats what is not."""
    return await _counted(app, "WHATSAPP_CLOUD", channel_key, request)


@router.post("/callbacks/whatsapp-qr/{channel_key}")
async def whatsapp_qr(channel_key: str, request: Request, app: Here) -> Mapping[str, int]:
    """One event from the QR gateway, signed with `X-Gateway-Signature`. 2xx means kept; the gateway repeats what is not."""
    return await _counted(app, "WHATSAPP_QR", channel_key, request)


async def _counted(app: App, kind: ChannelKind, channel_key: str, request: Request) -> Mapping[str, int]:
    outcome = "failed"
    try:
        kept = await _keep(app, await _account(app, kind, channel_key), request)
        outcome = "accepted"
    except Problem as error:
        outcome = error.code
        raise
    except StoreUnavailable:
        outcome = "store_unavailable"
        raise
    finally:
        metrics.callbacks_total.labels(kind, outcome).inc()
    return kept


async def _account(app: App, kind: ChannelKind, channel_key: str) -> ChannelAccount:
    account = await app.account_by_key(channel_key) if "\0" not in channel_key else None
    if account is None or account.kind != kind:
        raise not_found("channel")
    return account


async def _keep(app: App, account: ChannelAccount, request: Request) -> Mapping[str, int]:
    raw = await request.body()
    callback = _read(account, request, raw)
    jobs = [job for message in callback.messages if (job := _job(account, message)) is not None]
    statuses = [status for update in callback.statuses if (status := _status(update)) is not None]
    priority = await app.priority_of(account.customer_id)
    # All at once and in order: they share one transaction, or a few.
    accepted = await _all(
        app.moves.accept(Accept(job, priority, dedupe_key(account.id, job.external_message_id or ""))) for job in jobs
    )
    await _all(app.moves.apply_status(ReportedStatus(account.id, account.customer_id, update)) for update in statuses)
    left_out = len(callback.messages) - len(jobs) + len(callback.statuses) - len(statuses)
    return {
        "accepted": sum(not one.duplicate for one in accepted),
        "duplicates": sum(one.duplicate for one in accepted),
        "statuses": len(statuses),
        "ignored": callback.ignored + left_out,
    }


def _read(account: ChannelAccount, request: Request, raw: bytes) -> Callback:
    channel = CHANNELS[account.kind]
    try:
        channel.verify(account, request.headers, raw)
        return channel.parse(account, raw)
    except ForgedCallback as error:
        raise Problem(401, "forged", str(error)) from error
    except UnreadableCallback as error:
        log.warning("callbacks.unreadable", channel_id=str(account.id), error=str(error))
        raise Problem(400, "unreadable", str(error)) from error


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
    """The message as a job; None for one that no worker could read, because repeating the callback would not mend it."""
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
        identity_kind=message.identity_kind,
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


def _status(update: StatusUpdate) -> StatusUpdate | None:
    if not update.external_id or len(update.external_id) > _MAX_ID_CHARS or "\0" in update.external_id:
        return None
    return StatusUpdate(
        external_id=update.external_id,
        status=update.status,
        at=update.at,
        message_id=update.message_id,
        error_reason=update.error_reason,
        error_detail=_clean(update.error_detail) if update.error_detail else None,
    )


def _clean(text: str) -> str:
    """Without U+0000, which JSON allows and Postgres does not keep."""
    return text.replace("\0", "")

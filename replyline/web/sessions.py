"""The session behind a channel WHATSAPP_QR: pairing a telephone, by a picture or by a code, and letting it go."""

import io
import uuid
from collections.abc import Coroutine
from typing import Annotated

import segno
from fastapi import APIRouter, Response
from pydantic import StringConstraints

from replyline.app import App
from replyline.channels import ChannelAccount
from replyline.channels.whatsapp_qr.gateway import (
    Session,
    change_session,
    connect_session,
    pair_session,
    show_session,
)
from replyline.errors import ChannelDown, JobError, Permanent, RateLimited
from replyline.store import channels
from replyline.web.auth import Here, Tenant
from replyline.web.guards import KeyedRoute
from replyline.web.problems import Problem, not_found
from replyline.web.wire import In, Out

router = APIRouter(prefix="/v1/channels/{channel_id}/session", tags=["sessions"], route_class=KeyedRoute)

Phone = Annotated[str, StringConstraints(pattern=r"^\+?[0-9]{6,20}$")]


class CodeOut(Out):
    """A code to scan or to type, until `expiresAt` (Unix seconds)."""

    code: str
    expires_at: float | None


class FailureOut(Out):
    """What went wrong last."""

    code: str
    message: str


class SessionOut(Out):
    """A session as the gateway shows it: `state` is connecting, qr, open, closed, logged_out or banned."""

    id: str
    state: str
    label: str | None
    phone: str | None
    qr: CodeOut | None
    pairing_code: CodeOut | None
    restricted_until: float | None
    last_error: FailureOut | None
    waiting_events: int


class PairIn(In):
    """The telephone that gets a code to type, digits with the country code."""

    phone: Phone


@router.get("")
async def get_session(channel_id: uuid.UUID, app: Here, customer_id: Tenant) -> SessionOut:
    """The session as it is now."""
    return await _shown(show_session(await _account(app, channel_id, customer_id), app.http))


@router.post("")
async def start_session(channel_id: uuid.UUID, app: Here, customer_id: Tenant) -> SessionOut:
    """Make the session, or tell the gateway where its events go; then scan the picture at `session/qr.svg`."""
    account = await _account(app, channel_id, customer_id)
    url = f"{app.settings.reached_at}/callbacks/whatsapp-qr/{account.channel_key}"
    return await _shown(connect_session(account, app.http, callback_url=url, label=account.external_id))


@router.post("/pair")
async def pair(channel_id: uuid.UUID, body: PairIn, app: Here, customer_id: Tenant) -> SessionOut:
    """Get a code to type on the telephone (Linked devices, Link with phone number) instead of a picture to scan."""
    account = await _account(app, channel_id, customer_id)
    return await _shown(pair_session(account, app.http, phone=body.phone.removeprefix("+")))


@router.post("/restart")
async def restart(channel_id: uuid.UUID, app: Here, customer_id: Tenant) -> SessionOut:
    """Connect anew."""
    return await _shown(change_session(await _account(app, channel_id, customer_id), app.http, "restart"))


@router.post("/logout")
async def logout(channel_id: uuid.UUID, app: Here, customer_id: Tenant) -> SessionOut:
    """Unlink the telephone; its login is deleted, and the channel holds its messages until somebody pairs again."""
    return await _shown(change_session(await _account(app, channel_id, customer_id), app.http, "logout"))


@router.get("/qr.svg", response_class=Response)
async def qr_picture(channel_id: uuid.UUID, app: Here, customer_id: Tenant) -> Response:
    """The code to scan, as a picture; 404 while there is none."""
    session = await _asked(show_session(await _account(app, channel_id, customer_id), app.http))
    if session.qr is None:
        raise Problem(404, "no_code", f"the session is {session.state}: there is no code to scan")
    picture = io.BytesIO()
    segno.make(session.qr.code, error="l").save(picture, kind="svg", scale=6, border=4, light="#fff")
    return Response(picture.getvalue(), media_type="image/svg+xml", headers={"Cache-Control": "no-store"})


async def _account(app: App, channel_id: uuid.UUID, customer_id: uuid.UUID) -> ChannelAccount:
    channel = await channels.get(app.database, channel_id, customer_id=customer_id)
    account = await app.account(channel_id) if channel is not None else None
    if account is None:
        raise not_found("channel")
    if account.kind != "WHATSAPP_QR":
        raise Problem(409, "no_session", f"a channel {account.kind} has no session")
    return account


async def _shown(asking: Coroutine[object, object, Session]) -> SessionOut:
    return SessionOut.model_validate(await _asked(asking))


async def _asked(asking: Coroutine[object, object, Session]) -> Session:
    """The gateway's answer, or its refusal in our words."""
    try:
        return await asking
    except RateLimited as error:
        raise Problem(
            409, error.reason, str(error), headers={"Retry-After": str(max(1, round(error.after)))}
        ) from error
    except ChannelDown as error:
        raise Problem(409, error.reason, str(error)) from error
    except Permanent as error:
        raise Problem(422, error.reason, str(error)) from error
    except JobError as error:
        raise Problem(502, error.reason, str(error)) from error

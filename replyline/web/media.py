"""Files that people sent, for the customer they were sent to."""

import uuid
from datetime import datetime
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from replyline.store import media, messages
from replyline.store.media import Media
from replyline.web.auth import Here, Tenant
from replyline.web.downloads import download
from replyline.web.guards import KeyedRoute
from replyline.web.problems import Problem, not_found
from replyline.web.wire import Out

router = APIRouter(tags=["media"], route_class=KeyedRoute)


class MediaOut(Out):
    """One file: PENDING while it is fetched, STORED with its `size` in bytes, or FAILED with `errorReason`."""

    id: uuid.UUID
    message_id: uuid.UUID
    kind: str
    mime_type: str | None
    filename: str | None
    size: int | None
    state: str
    error_reason: str | None
    created_at: datetime
    stored_at: datetime | None


@router.get("/v1/messages/{message_id}/media")
async def list_media(message_id: uuid.UUID, app: Here, customer_id: Tenant) -> list[MediaOut]:
    """The files that came with a message."""
    if await messages.get(app.database, message_id, customer_id=customer_id) is None:
        raise not_found("message")
    found = await media.of_message(app.database, message_id, customer_id=customer_id)
    return [MediaOut.model_validate(one) for one in found]


@router.get("/v1/media/{media_id}", response_class=StreamingResponse)
async def get_media(media_id: uuid.UUID, app: Here, customer_id: Tenant) -> StreamingResponse:
    """The bytes of a file; never shown in place, because a stranger chose them."""
    found = await media.get(app.database, media_id, customer_id=customer_id)
    if found is None:
        raise not_found("file")
    if found.path is None:
        raise Problem(409, "not_stored", f"the file is {found.state}: {found.error_reason or 'not fetched yet'}")
    return await download(
        app.files,
        found.path,
        filename=_name(found),
        headers={"X-Media-Type": quote(found.mime_type or "", safe="/;= +-.")},
    )


def _name(found: Media) -> str:
    return (found.filename or f"{found.kind}-{found.id}").replace("/", "_").replace("\\", "_")

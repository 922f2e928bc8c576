"""Files of visitors: kept under a random name, only of kinds that are what they say, and never shown in place by a browser."""

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import StringConstraints

from replyline import metrics
from replyline.app import App
from replyline.errors import Temporary
from replyline.files import FilesUnavailable
from replyline.ids import new_id
from replyline.store import media
from replyline.store.media import Upload
from replyline.web.auth import Here
from replyline.web.downloads import download
from replyline.web.guards import takes
from replyline.web.problems import Problem, not_found
from replyline.web.widget.limits import WidgetLimits, limits_of
from replyline.web.widget.visitors import CurrentGuest, VisitorRoute
from replyline.web.widget.wire import AttachmentOut, attachment_id, attachment_name
from replyline.web.wire import Text

log = structlog.get_logger(__name__)

router = APIRouter(route_class=VisitorRoute)

# How each kind begins (RFC 2083, ITU T.81 annex B, GIF89a, RFC 9649, ISO 32000). Text is UTF-8 without control
# characters.
_BEGINNINGS: tuple[tuple[str, bytes], ...] = (
    ("image/png", b"\x89PNG\r\n\x1a\n"),
    ("image/jpeg", b"\xff\xd8\xff"),
    ("image/gif", b"GIF87a"),
    ("image/gif", b"GIF89a"),
    ("application/pdf", b"%PDF-"),
)
UPLOAD_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "text/plain")
_TEXT_CONTROLS = frozenset(range(32)) - {9, 10, 13}

Filename = Annotated[
    Text, StringConstraints(min_length=1, max_length=200), Query(description="As the visitor calls it.")
]


@router.post("/uploads", status_code=201)
@takes(None)
async def upload(
    request: Request,
    guest: CurrentGuest,
    app: Here,
    limits: Annotated[WidgetLimits, Depends(limits_of)],
    filename: Filename = "file",
) -> AttachmentOut:
    """Keep a file (the body, as it is, with its `Content-Type`) until a message names it, for a day at most."""
    if guest.site.config.get("uploads") == "off":
        raise _refused(403, "uploads_off", "this widget takes no files")
    await limits.upload(guest.visitor, request)
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared not in UPLOAD_TYPES:
        raise _refused(415, "unsupported_type", f"a file may be {', '.join(UPLOAD_TYPES)}")
    data = await request.body()
    if not data:
        raise _refused(422, "invalid", "the file is empty")
    if type_of(data) != declared:
        raise _refused(415, "lying_type", f"the file is not what it says: its bytes are not {declared}")
    new = Upload(
        id=new_id(),
        customer_id=guest.site.customer_id,
        channel_id=guest.site.id,
        uploaded_by=guest.visitor.identity,
        kind="image" if declared.startswith("image/") else "document",
        mime_type=declared,
        filename=_plain_name(filename),
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )
    try:
        await app.files.write(new.path, _once(data))
    except Temporary as error:
        raise Problem(503, "files_unavailable", "the file cannot be kept now", retry_after_s=5.0) from error
    try:
        await media.keep_upload(app.database, new)
    except BaseException:
        await _take_back(app, new)
        raise
    return AttachmentOut(id=attachment_name(new.id), name=new.filename, mime_type=declared, size=new.size)


@router.get("/uploads/{name}", response_class=StreamingResponse)
async def fetch(
    name: str, guest: CurrentGuest, app: Here, limits: Annotated[WidgetLimits, Depends(limits_of)]
) -> StreamingResponse:
    """A file of the visitor's own conversation, to be saved and not shown: nothing in it can run as the site."""
    await limits.read(guest.visitor)
    try:
        media_id = attachment_id(name)
    except ValueError as error:
        raise not_found("file") from error
    found = await media.of_conversation(
        app.database,
        media_id,
        customer_id=guest.site.customer_id,
        conversation_id=guest.visitor.conversation_id,
        channel_id=guest.site.id,
        uploaded_by=guest.visitor.identity,
    )
    if found is None or found.path is None:
        raise not_found("file")
    return await download(
        app.files,
        found.path,
        filename=found.filename or "file",
        headers={"Cross-Origin-Resource-Policy": "cross-origin"},
    )


async def _take_back(app: App, new: Upload) -> None:
    """A file that nobody would ever know of."""
    try:
        await app.files.delete(new.path)
    except FilesUnavailable as error:
        log.error("widget.file_left_behind", path=new.path, error=str(error))


def type_of(data: bytes) -> str | None:
    """What a file is by its bytes; None where it is none of the kinds that are taken."""
    for mime_type, beginning in _BEGINNINGS:
        if data.startswith(beginning):
            return mime_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "text/plain" if _is_text(data) else None


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return not _TEXT_CONTROLS & set(data)


def _plain_name(name: str) -> str:
    """Without folders and control characters: whoever saves it must not be led anywhere."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable()).strip(". ") or "file"


def _refused(status: int, code: str, detail: str) -> Problem:
    metrics.widget_refusals_total.labels("upload").inc()
    return Problem(status, code, detail)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data

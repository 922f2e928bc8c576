"""Files of strangers as answers: always to be saved, never shown in place, so that nothing in them can run."""

from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote

from fastapi.responses import StreamingResponse

from replyline.files import Files, FilesUnavailable
from replyline.web.problems import Problem, not_found


async def download(
    files: Files, path: str, *, filename: str, headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """The file under `path`, piece by piece, to be saved as `filename`.

    Raises:
        Problem: 404, it is not there (any more); 503, the place of files cannot be read.
    """
    chunks = files.read(path)
    try:
        first = await anext(chunks, b"")
    except FileNotFoundError as error:
        raise not_found("file") from error
    except FilesUnavailable as error:
        raise Problem(503, "files_unavailable", "the file cannot be read now: try again", retry_after_s=5.0) from error
    return StreamingResponse(
        _from(first, chunks),
        media_type="application/octet-stream",
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            **(headers or {}),
        },
    )


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk

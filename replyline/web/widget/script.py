"""/widget.js: the widget itself, one file built from `widget/`, which a site loads."""

import hashlib
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

router = APIRouter(include_in_schema=False)


@router.get("/widget.js", response_class=Response)
async def widget_js(request: Request) -> Response:
    """The script. Any page may load it: what it may do, the site's allowed origins decide."""
    script, etag = _script()
    headers = {
        "ETag": etag,
        "Cache-Control": "public, max-age=300, stale-while-revalidate=86400",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Access-Control-Allow-Origin": "*",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(script, headers=headers, media_type="text/javascript; charset=utf-8")


@cache
def _script() -> tuple[bytes, str]:
    script = (files("replyline.web") / "static" / "widget.js").read_bytes()
    return script, f'"{hashlib.sha256(script).hexdigest()[:32]}"'

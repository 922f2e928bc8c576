"""Every error as problem JSON (RFC 9457), whoever raised it; none of them repeats what was sent, which may be a secret."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replyline.broker import BrokerUnavailable
from replyline.store.api_keys import TooManyKeys
from replyline.store.channel_forms import ChannelRefused, ChannelTaken
from replyline.store.chatbots import ChatbotRefused, ReferenceTaken
from replyline.store.database import StoreUnavailable
from replyline.store.knowledge import DocumentRefused, DocumentTaken
from replyline.store.webhooks import EndpointRefused
from replyline.vault import UnreadableSecret

log = structlog.get_logger(__name__)

_EMPTY = "must not be empty"
_MOST_ERRORS = 50
MEDIA_TYPE = "application/problem+json"

_TEXT: Mapping[str, str] = {"type": "string"}
# Of `answer`: what the description of the API says of errors.
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "a snake_case word to act on"},
        "detail": {"type": "string", "description": "a sentence for people"},
        "retry_after_ms": {"type": "integer", "description": "milliseconds after which to try again"},
        "errors": {
            "type": "array",
            "description": "the fields that do not fit, the first 50",
            "items": {
                "type": "object",
                "required": ["field", "in", "message"],
                "properties": {"field": _TEXT, "in": _TEXT, "message": _TEXT},
            },
        },
    },
}
_SAID: Mapping[int | str, str] = {
    422: "What was sent does not fit",
    "4XX": "Refused, for the reason in `code`",
    "5XX": "Not possible now: try again",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": said, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}} for status, said in _SAID.items()
}
"""What every route may answer instead, for the description of the API (RFC 9457)."""

# What the parts raise that a caller can act on: the status, a word to group by, and seconds after which to try again.
_KNOWN: Mapping[type[Exception], tuple[int, str, int | None]] = {
    StoreUnavailable: (503, "store_unavailable", 1),
    BrokerUnavailable: (503, "redis_unavailable", 1),
    ReferenceTaken: (409, "taken", None),
    ChannelTaken: (409, "taken", None),
    DocumentTaken: (409, "taken", None),
    ChannelRefused: (422, "refused", None),
    ChatbotRefused: (422, "refused", None),
    DocumentRefused: (422, "refused", None),
    EndpointRefused: (422, "refused", None),
    TooManyKeys: (409, "too_many_keys", None),
}


class Problem(HTTPException):
    """An answer that is not the one hoped for: `status`, a snake_case `code` to act on, and a sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        waits = {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))}
        super().__init__(status_code=status, detail=detail, headers={**waits, **(headers or {})})
        self.code = code
        self.retry_after_s = retry_after_s


def not_found(what: str) -> Problem:
    """The answer for what does not exist, and for what is another customer's: the two look the same."""
    return Problem(404, "not_found", f"there is no such {what}")


def answer(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    retry_after_s: float | None = None,
) -> Response:
    """The problem as a response."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if retry_after_s is not None:
        body["retry_after_ms"] = math.ceil(retry_after_s * 1000)
    if errors:
        body["errors"] = list(errors)
    return Response(msgspec.json.encode(body), status, dict(headers or {}), MEDIA_TYPE)


def install(api: FastAPI) -> None:
    """Let every error of `api` leave it as problem JSON."""
    api.add_exception_handler(StarletteHTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _invalid)
    for kind in _KNOWN:
        api.add_exception_handler(kind, _known_error)
    api.add_exception_handler(UnreadableSecret, _unreadable_secret)


async def answer_to(request: Request, error: Exception) -> Response:
    """The answer to an error, for a route that stands outside of FastAPI; one that nobody foresaw is raised again."""
    if isinstance(error, StarletteHTTPException):
        return await _http_error(request, error)
    if isinstance(error, UnreadableSecret):
        return await _unreadable_secret(request, error)
    if isinstance(error, tuple(_KNOWN)):
        return await _known_error(request, error)
    raise error


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, StarletteHTTPException):
        raise error
    if not isinstance(error, Problem):
        return answer(
            error.status_code, HTTPStatus(error.status_code).name.lower(), str(error.detail), headers=error.headers
        )
    return answer(
        error.status_code, error.code, str(error.detail), headers=error.headers, retry_after_s=error.retry_after_s
    )


async def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found_errors = error.errors()[:_MOST_ERRORS]
    if any(tuple(found["loc"]) == ("body",) for found in found_errors) and not _says_json(request):
        return answer(415, "unsupported_type", "say what the body is: Content-Type: application/json")
    errors = [
        {
            "field": ".".join(str(part) for part in found["loc"][1:]) or str(found["loc"][0]),
            "in": str(found["loc"][0]),
            "message": _EMPTY if _is_empty(found) else str(found["msg"]).removeprefix("Value error, "),
        }
        for found in found_errors
    ]
    if any(found["type"] == "json_invalid" for found in found_errors):
        return answer(400, "unreadable", "the body is not JSON")
    said = "; ".join(f"{found['field']}: {found['message']}" for found in errors[:5])
    return answer(422, "invalid", said, errors=errors)


def _says_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _is_empty(found: Mapping[str, Any]) -> bool:
    return found["type"] in {"string_too_short", "too_short"} and found.get("ctx", {}).get("min_length") == 1


async def _known_error(_request: Request, error: Exception) -> Response:
    status, code, after_s = next(row for kind, row in _KNOWN.items() if isinstance(error, kind))
    headers = {} if after_s is None else {"Retry-After": str(after_s)}
    # The addresses of the stores are not shown to clients.
    detail = "try again in a moment" if status == 503 else str(error)
    return answer(status, code, detail, headers=headers)


async def _unreadable_secret(request: Request, error: Exception) -> Response:
    log.error("web.unreadable_secret", path=request.url.path, error=str(error))
    return answer(500, "unreadable_secret", "a secret was sealed with a key that this deployment does not have")


class LastResort:
    """Answers 500 for an error that nobody foresaw, and logs it with its stack."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:  # the client left before its body arrived: it needs no answer, and nothing failed
            log.debug("web.sender_gone", path=scope.get("path"))
        except Exception as error:
            log.error("web.unforeseen", path=scope.get("path"), exc_info=error)
            if started:  # half an answer cannot be taken back: the connection breaks instead
                raise
            await answer(500, "internal", "an error that we did not foresee; it is logged")(scope, receive, send)

"""The routes that take messages, answered without FastAPI's layers: those cost more than the rest of what the door does.

FastAPI has the same routes. It describes them, and answers whatever is unusual in a request: a query, a body that does not fit.
What an endpoint does is written once, and called from both.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from fastapi import Request, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replyline.app import App
from replyline.jobs import ChannelKind
from replyline.web import callbacks, messages
from replyline.web.auth import identify
from replyline.web.guards import JSON_BODY_BYTES, most_of
from replyline.web.limits import SMALL_BODY_BYTES, body_of
from replyline.web.problems import LastResort, answer_to
from replyline.web.widget import PREFIX, visitors
from replyline.web.widget import messages as widget_messages
from replyline.web.widget.limits import WidgetLimits
from replyline.web.widget.visitors import Guests
from replyline.web.widget.wire import MessageIn as WrittenIn

Body = TypeVar("Body", bound=BaseModel)
_JSON = "application/json"


class _Unusual(Exception):
    """FastAPI is to answer this request."""


_Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Hot:
    """Answers POST of the hot routes."""

    app: App
    guests: Guests
    limits: WidgetLimits

    def answer(self, path: str) -> _Answer | None:
        """What answers a POST to that path; None where FastAPI does."""
        if path == "/v1/messages":
            return self._message
        if path == f"{PREFIX}/messages":
            return self._of_visitor
        prefix, _, key = path.rpartition("/")
        kind = _CALLBACKS.get(prefix)
        return None if kind is None or not key else lambda request: self._callback(kind, key, request)

    async def _message(self, request: Request) -> Response:
        who = await identify(request)
        body_of(request).allow(most_of(messages.accept_message, JSON_BODY_BYTES), proven=True)
        body = await _read(request, messages.MessageIn)
        return _json(202, await messages.accept_message(body, self.app, who))

    async def _callback(self, kind: ChannelKind, key: str, request: Request) -> Response:
        body_of(request).allow(most_of(callbacks.whatsapp_cloud, SMALL_BODY_BYTES), proven=False)
        return _json(200, await callbacks.keep_callback(self.app, kind, key, request))

    async def _of_visitor(self, request: Request) -> Response:
        guest = await visitors.identify(request, self.guests)
        body_of(request).allow(most_of(widget_messages.write, JSON_BODY_BYTES), proven=True)
        body = await _read(request, WrittenIn)
        accepted, is_new = await widget_messages.keep(body, request, guest, self.app, self.limits)
        return Response(accepted.model_dump_json(), 202 if is_new else 200, media_type=_JSON)


_CALLBACKS: Mapping[str, ChannelKind] = {
    "/callbacks/whatsapp-cloud": "WHATSAPP_CLOUD",
    "/callbacks/whatsapp-qr": "WHATSAPP_QR",
}


class HotRoutes:
    """The ASGI application that answers them; `app` answers everything else."""

    def __init__(self, app: ASGIApp, *, replyline: App, guests: Guests, limits: WidgetLimits) -> None:
        self._app = app
        self._hot = _Hot(replyline, guests, limits)
        self._answered = LastResort(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI call."""
        is_hot = scope["type"] == "http" and scope["method"] == "POST" and not scope["query_string"]
        found = self._hot.answer(scope["path"]) if is_hot else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["hot"] = found
        await self._answered(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        found: _Answer = scope["hot"]
        try:
            response = await found(request)
        except _Unusual:
            await self._app(scope, _again(await request.body(), receive), send)
            return
        except Exception as error:
            response = await answer_to(request, error)
        await response(scope, receive, send)


async def _read(request: Request, kind: type[Body]) -> Body:
    """The body. Raises _Unusual: it is not plainly what it should be, and FastAPI has the words for that."""
    raw = await request.body()
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise _Unusual
    try:
        return kind.model_validate(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise _Unusual from error


def _json(status: int, said: Mapping[str, object]) -> Response:
    return Response(msgspec.json.encode(said), status, media_type=_JSON)


def _again(body: bytes, receive: Receive) -> Receive:
    """What was read already, to be read once more."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return waiting.pop() if waiting else await receive()

    return receiving

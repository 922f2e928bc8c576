"""A stand-in for an OpenAI-compatible model: answers at once or after a while, always the same to the same question."""

import asyncio
import secrets
import time
from typing import Annotated, Literal

import msgspec

from replyline.standins.faults import Fault
from replyline.standins.server import BadConfiguration, Reply, Request, Standin


class _Configuration(msgspec.Struct, forbid_unknown_fields=True):
    key: str | None = None
    model: str | None = None
    reply: str | None = None
    think_s: Annotated[float, msgspec.Meta(ge=0, le=600)] | None = None


class _Part(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None


class _Ask(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    stream: bool = False


class OpenAiStandin(Standin):
    """Chat completions; the default reply is `Echo: ` and the last user message."""

    name = "openai"

    def __init__(self) -> None:
        super().__init__()
        self._key: str | None = None
        self._model: str | None = None
        self._reply: str | None = None
        self._think_s = 0.0

    def configure(self, raw: bytes) -> None:
        """The key that is asked for, the one model there is, a fixed reply, and how long an answer takes."""
        try:
            given = msgspec.json.decode(raw, type=_Configuration)
        except msgspec.MsgspecError as error:
            raise BadConfiguration(str(error)) from error
        self._key = given.key if given.key is not None else self._key
        self._model = given.model if given.model is not None else self._model
        self._reply = given.reply if given.reply is not None else self._reply
        self._think_s = given.think_s if given.think_s is not None else self._think_s

    async def answer(self, request: Request) -> Reply:
        """`POST …/chat/completions`, checked as OpenAI checks it."""
        if not request.path.endswith("/chat/completions") or request.method != "POST":
            return _error(404, "invalid_request_error", f"unknown route {request.method} {request.path}")
        authorization = request.headers.get("Authorization", "")
        if self._key is not None and authorization != f"Bearer {self._key}":
            return _error(401, "invalid_request_error", "Incorrect API key provided", code="invalid_api_key")
        try:
            ask = msgspec.json.decode(request.raw, type=_Ask)
        except msgspec.MsgspecError as error:
            return _error(400, "invalid_request_error", str(error))
        if self._model is not None and ask.model != self._model:
            return _error(404, "invalid_request_error", f"no model {ask.model}", code="model_not_found")
        if ask.stream:
            return _error(400, "invalid_request_error", "this stand-in does not stream")
        if self._think_s:
            await asyncio.sleep(self._think_s)
        said = [_text(message) for message in ask.messages if message.role == "user"]
        text = self._reply if self._reply is not None else f"Echo: {said[-1] if said else ''}"
        prompt = sum(len(_text(message)) for message in ask.messages) // 4 + 3 * len(ask.messages)
        return Reply(200, _completion(ask.model, text, prompt))

    def error_reply(self, fault: Fault) -> Reply:
        """In OpenAI's own form."""
        kind = {429: "rate_limit_exceeded", 401: "invalid_api_key"}.get(fault.status, "server_error")
        body = fault.body or {"error": {"message": "told to fail", "type": kind, "param": None, "code": kind}}
        return Reply(fault.status, body, fault.headers)


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""


def _completion(model: str, text: str, prompt_tokens: int) -> dict[str, object]:
    completion_tokens = len(text) // 4 + 1
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def _error(status: int, kind: str, message: str, *, code: str | None = None) -> Reply:
    return Reply(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})

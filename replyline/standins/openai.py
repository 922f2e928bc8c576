"""A stand-in for an OpenAI-compatible model: answers at once or after a while, always the same to the same question."""

import asyncio
import secrets
import time
from typing import Annotated, ClassVar, Literal

import msgspec

from replyline.standins.faults import Error
from replyline.standins.server import BadControl, Reply, Request, Standin, read_control

_CHARS_A_TOKEN = 4
# What OpenAI calls its errors: status, type (developers.openai.com, "Error codes").
_ERRORS: dict[str, tuple[int, str]] = {
    "invalid_api_key": (401, "invalid_request_error"),
    "model_not_found": (404, "invalid_request_error"),
    "context_length_exceeded": (400, "invalid_request_error"),
    "content_filter": (400, "invalid_request_error"),
    "rate_limit_exceeded": (429, "requests"),
    "insufficient_quota": (429, "insufficient_quota"),
    "server_error": (500, "server_error"),
    "server_is_overloaded": (503, "service_unavailable_error"),
}
_BY_STATUS = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded", 503: "server_is_overloaded"}


class _Configuration(msgspec.Struct, forbid_unknown_fields=True):
    key: str | None = None
    model: str | None = None
    reply: str | None = None
    think_s: Annotated[float, msgspec.Meta(ge=0, le=600)] | None = None


class _Part(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None

    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


_Tokens = Annotated[int, msgspec.Meta(ge=1)]


class _Ask(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    stream: bool | None = None


class OpenAiStandin(Standin):
    """Chat completions; the default reply is `Echo: ` and the last user message."""

    name: ClassVar[str] = "openai"

    def __init__(self) -> None:
        super().__init__()
        self._key: str | None = None
        self._model: str | None = None
        self._reply: str | None = None
        self._think_s = 0.0
        self._decoder = msgspec.json.Decoder(_Ask)

    def configure(self, raw: bytes) -> None:
        """The key that is asked for, the one model there is, a fixed reply, and how long an answer takes."""
        given = read_control(raw, _Configuration)
        self._key = given.key if given.key is not None else self._key
        self._model = given.model if given.model is not None else self._model
        self._reply = given.reply if given.reply is not None else self._reply
        self._think_s = given.think_s if given.think_s is not None else self._think_s

    async def answer(self, request: Request) -> Reply:
        """`POST …/chat/completions`, checked as OpenAI checks it."""
        if not request.path.endswith("/chat/completions") or request.method != "POST":
            return _error(404, "invalid_request_error", None, f"Unknown request URL: {request.method} {request.path}")
        if self._key is not None and request.bearer() != self._key:
            return _error(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided")
        try:
            ask = self._decoder.decode(request.raw)
        except msgspec.MsgspecError as error:
            return _error(400, "invalid_request_error", None, str(error))
        if self._model is not None and ask.model != self._model:
            said = f"The model {ask.model} does not exist or you do not have access to it"
            return _error(404, "invalid_request_error", "model_not_found", said)
        if ask.stream:
            return _error(400, "invalid_request_error", None, "this stand-in does not stream")
        if self._think_s:
            await asyncio.sleep(self._think_s)
        return _completion(ask, self._reply)

    def error_reply(self, fault: Error) -> Reply:
        """In OpenAI's own form; a status alone has the code that goes with it."""
        if fault.code is None:
            status = fault.status or 500
            code = _BY_STATUS.get(status, "server_error" if status >= 500 else None)
            return _error(status, _ERRORS[code][1] if code else "invalid_request_error", code, "told to fail")
        if fault.code not in _ERRORS:
            raise BadControl(f"code is one of {', '.join(sorted(_ERRORS))}; any other error is told with `body`")
        usual, kind = _ERRORS[str(fault.code)]
        return _error(fault.status or usual, kind, str(fault.code), "told to fail")


def _completion(ask: _Ask, fixed: str | None) -> Reply:
    last = next((message.text() for message in reversed(ask.messages) if message.role == "user"), "")
    text = fixed if fixed is not None else f"Echo: {last}"
    most = ask.max_completion_tokens or ask.max_tokens
    finish = "stop"
    if most is not None and _tokens(text) > most:
        text, finish = text[: most * _CHARS_A_TOKEN], "length"
    # A message costs a few tokens beside its text (OpenAI cookbook, "How to count tokens").
    prompt_tokens = sum(3 + _tokens(message.text()) for message in ask.messages) + 3
    completion_tokens = _tokens(text)
    body = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": ask.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "finish_reason": finish,
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
    return Reply(200, body, {"x-request-id": f"req_{secrets.token_hex(8)}"})


def _tokens(text: str) -> int:
    """About as many as the real ones count."""
    return -(-len(text) // _CHARS_A_TOKEN)


def _error(status: int, kind: str, code: str | None, message: str) -> Reply:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Reply(status, {"error": error}, {"x-request-id": f"req_{secrets.token_hex(8)}"})

"""A stand-in for an OpenAI-compatible model: answers whole or in a stream, always the same to the same question."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, ClassVar, Literal

import msgspec

from replyline.standins.faults import (
    CALL_FAULTS,
    STREAM_FAULTS,
    CutMidStream,
    Error,
    ErrorMidStream,
    Fault,
    StreamFault,
)
from replyline.standins.openai_quotes import helpful_answer
from replyline.standins.server import BadControl, CutHere, Reply, Request, Standin, read_control

_CHARS_A_TOKEN = 4
_PIECE = re.compile(r"\s*\S{1,12}|\s+")
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
    reply: str | msgspec.UnsetType | None = msgspec.UNSET
    think_s: Annotated[float, msgspec.Meta(ge=0, le=600)] | None = None
    tokens_per_s: Annotated[float, msgspec.Meta(ge=0, le=100_000)] | None = None
    quote: bool | None = None


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


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Ask(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is said to one question."""

    ask: _Ask
    text: str
    finish: str

    def usage(self) -> dict[str, object]:
        """Its tokens: a message costs a few beside its text (OpenAI cookbook, "How to count tokens")."""
        asked = sum(3 + _tokens(message.text()) for message in self.ask.messages) + 3
        said = _tokens(self.text)
        return {
            "prompt_tokens": asked,
            "completion_tokens": said,
            "total_tokens": asked + said,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


_BETWEEN_MESSAGES = "\n\n"


class OpenAiStandin(Standin):
    """Chat completions; the default reply is `Echo: ` and what the user said last: the last paragraph, as several messages in a
    row come as one, with an empty line between."""

    name: ClassVar[str] = "openai"
    takes = (*CALL_FAULTS, *STREAM_FAULTS)

    def __init__(self) -> None:
        super().__init__()
        self._key: str | None = None
        self._model: str | None = None
        self._reply: str | None = None
        self._think_s = 0.0
        self._tokens_per_s = 0.0
        self._quotes = False
        self._decoder = msgspec.json.Decoder(_Ask)

    def configure(self, raw: bytes) -> None:
        """The key that is asked for, the one model there is, what it says, and how long an answer takes."""
        given = read_control(raw, _Configuration)
        self._key = given.key if given.key is not None else self._key
        self._model = given.model if given.model is not None else self._model
        if not isinstance(given.reply, msgspec.UnsetType):
            self._reply = given.reply  # null: the default again
        self._think_s = given.think_s if given.think_s is not None else self._think_s
        self._tokens_per_s = given.tokens_per_s if given.tokens_per_s is not None else self._tokens_per_s
        self._quotes = given.quote if given.quote is not None else self._quotes

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
        if ask.stream_options is not None and not ask.stream:
            said = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
            return _error(400, "invalid_request_error", None, said, param="stream_options")
        if self._think_s:
            await asyncio.sleep(self._think_s)
        answer = _cut_to_measure(ask, self._text(ask))
        if not ask.stream:
            return _completion(answer)
        fault = self.faults.pick(request.path, request.raw, STREAM_FAULTS) if self.faults else None
        return Reply(200, _stream(answer, self._tokens_per_s, fault), _headers("text/event-stream; charset=utf-8"))

    def _text(self, ask: _Ask) -> str:
        if self._reply is not None:
            return self._reply
        if self._quotes:
            return helpful_answer(_instructions(ask), "\n".join(_unanswered(ask)))
        said = next((message.text() for message in reversed(ask.messages) if message.role == "user"), "")
        return f"Echo: {said.rpartition(_BETWEEN_MESSAGES)[2]}"

    def _check(self, fault: Fault) -> None:
        super()._check(fault)
        if isinstance(fault, ErrorMidStream):
            _error_of(fault)

    def error_reply(self, fault: Error) -> Reply:
        """In OpenAI's own form; a status alone has the code that goes with it."""
        if fault.code is None:
            status = fault.status or 500
            code = _BY_STATUS.get(status, "server_error" if status >= 500 else None)
            return _error(status, _ERRORS[code][1] if code else "invalid_request_error", code, "told to fail")
        usual, kind = _known(fault.code)
        return _error(fault.status or usual, kind, str(fault.code), "told to fail")


def _unanswered(ask: _Ask) -> list[str]:
    """The last messages of the user, in their order: all that nobody has answered."""
    last = list(takewhile(lambda message: message.role == "user", reversed(ask.messages)))
    return [message.text() for message in reversed(last)]


def _instructions(ask: _Ask) -> str:
    return "\n\n".join(message.text() for message in ask.messages if message.role in {"system", "developer"})


def _cut_to_measure(ask: _Ask, text: str) -> _Answer:
    most = ask.max_completion_tokens or ask.max_tokens
    if most is not None and _tokens(text) > most:
        return _Answer(ask, text[: most * _CHARS_A_TOKEN], "length")
    return _Answer(ask, text, "stop")


def _completion(answer: _Answer) -> Reply:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    body = {
        **_same_in_all("chat.completion", answer),
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish, "logprobs": None}],
        "usage": answer.usage(),
    }
    return Reply(200, body, _headers("application/json"))


async def _stream(answer: _Answer, tokens_per_s: float, fault: StreamFault | None) -> AsyncIterator[bytes]:
    """As OpenAI streams: who speaks, what is said, why it ends, what it used, and that nothing more comes."""
    counted = answer.ask.stream_options is not None and answer.ask.stream_options.include_usage
    same = {**_same_in_all("chat.completion.chunk", answer), **({"usage": None} if counted else {})}
    at_once = bytearray(_chunk(same, {"role": "assistant", "content": "", "refusal": None}))
    pieces = _PIECE.findall(answer.text)
    said = pieces if fault is None else pieces[: fault.after_chunks]
    for piece in said:
        at_once += _chunk(same, {"content": piece})
        if tokens_per_s:
            yield bytes(at_once)
            at_once.clear()
            await asyncio.sleep(_tokens(piece) / tokens_per_s)
    match fault:
        case CutMidStream():
            yield bytes(at_once)
            raise CutHere
        case ErrorMidStream():
            yield bytes(at_once) + _event({"error": _error_of(fault)})
            return
    at_once += _chunk(same, {}, answer.finish)
    if counted:
        at_once += _event({**same, "choices": [], "usage": answer.usage()})
    yield bytes(at_once) + b"data: [DONE]\n\n"


def _same_in_all(kind: str, answer: _Answer) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": answer.ask.model,
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _chunk(same: dict[str, object], delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event({**same, "choices": [choice]})


def _event(data: dict[str, object]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(data)


def _tokens(text: str) -> int:
    """About as many as the real ones count."""
    return -(-len(text) // _CHARS_A_TOKEN)


def _headers(kind: str) -> dict[str, str]:
    return {"Content-Type": kind, "x-request-id": f"req_{secrets.token_hex(8)}"}


def _error_of(fault: ErrorMidStream) -> dict[str, object]:
    """OpenAI's own by its name; a number is a status, as OpenRouter has it. Raises BadControl if there is no such name."""
    if isinstance(fault.code, int):
        return {"code": fault.code, "message": "told to fail"}
    return _error_body(_known(fault.code)[1], fault.code, "told to fail")


def _known(code: int | str) -> tuple[int, str]:
    if code not in _ERRORS:
        raise BadControl(f"code is one of {', '.join(sorted(_ERRORS))}; any other error is told with `body`")
    return _ERRORS[str(code)]


def _error(status: int, kind: str, code: str | None, message: str, *, param: str | None = None) -> Reply:
    return Reply(status, {"error": _error_body(kind, code, message, param)}, _headers("application/json"))


def _error_body(kind: str, code: str | None, message: str, param: str | None = None) -> dict[str, object]:
    return {"message": message, "type": kind, "param": param, "code": code}

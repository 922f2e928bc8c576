"""A streamed chat completion, read piece by piece (server-sent events; OpenAI, "Streaming"; contracts §5.1).

A line of data is an event: nobody in this dialect spreads one over several. What is no data (comments such as
`: OPENROUTER PROCESSING`, names of events, empty lines) is passed over.
"""

import msgspec

from replyline.errors import Temporary
from replyline.providers.contract import ProviderAccount, Reply
from replyline.providers.openai_answer import (
    MAX_ANSWER_BYTES,
    UNREADABLE,
    Content,
    Usage,
    XGroq,
    failure_of,
    is_filtered,
    read_answer,
    read_usage,
    refused,
    reply_of,
    unreadable,
    words_of,
)
from replyline.providers.openai_errors import error_from
from replyline.providers.reasoning import SpokenStream

MAX_LINE_BYTES = 1_000_000
MAX_STREAM_BYTES = 16 * MAX_ANSWER_BYTES
"""Of all that comes: each few characters of text have some 250 bytes around them."""


class _Delta(msgspec.Struct):
    content: Content = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = msgspec.Raw()


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    x_groq: XGroq | None = None
    error: object = None
    object: str | None = None


_decoder = msgspec.json.Decoder(_Chunk)


class StreamedAnswer:
    """The body so far. `feed` it as it comes, `end` it when nothing more does, then ask for the `reply`."""

    def __init__(self, account: ProviderAccount, *, begins_with_reasoning: bool = False) -> None:
        """With `begins_with_reasoning`, nothing is told until a closing tag of reasoning comes, or the end."""
        self.is_done = False
        """Whether the server said that nothing more comes."""
        self.is_whole = False
        """Whether the model came to its end; there may be counts to come."""
        self._account = account
        self._line = bytearray()
        self._begun = False
        self._plain: bytearray | None = None
        self._read = 0
        self._size = 0
        self._text: list[str] = []
        self._model: str | None = None
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._spoken = SpokenStream(begins_with_reasoning=begins_with_reasoning)
        self._plain_reply: Reply | None = None

    def feed(self, data: bytes) -> str:
        """The text that these bytes bring; they may be cut anywhere.

        Raises:
            JobError: they say what went wrong, cannot be read, or are too many.
        """
        self._read += len(data)
        if not self._begun:
            data = self._begin(data)
        if self._plain is not None:
            if self._read > MAX_ANSWER_BYTES:
                raise unreadable()
            self._plain += data
            return ""
        if self._read > MAX_STREAM_BYTES:
            raise unreadable()
        return self._lines(data)

    def end(self) -> str:
        """The text that was held back until nothing more comes.

        Raises:
            JobError: as of `feed`, or the answer was cut off.
        """
        if self._plain is not None:
            self._plain_reply = read_answer(bytes(self._plain), self._account)
            return self._plain_reply.text
        text = self._last_line()
        if not self.is_whole and not self.is_done:
            raise cut()
        rest = self._spoken.end()
        self._text.append(rest)
        return text + rest

    def reply(self) -> Reply:
        """The whole. Raises Temporary or Permanent where it has no text, see `reply_of`."""
        if self._plain_reply is not None:
            return self._plain_reply
        return reply_of("".join(self._text), self._model, self._usage, self._account, finish=self._finish)

    def _begin(self, data: bytes) -> bytes:
        """A body that begins with a brace is a whole answer, whatever it calls itself: the server does not stream."""
        start = data.lstrip()
        if start:
            self._begun = True
            self._plain = bytearray() if start.startswith(b"{") else None
        return start

    def _lines(self, data: bytes) -> str:
        end = data.rfind(b"\n")
        if end < 0:
            self._line += data
            lines = []
        else:
            self._line += data[:end]
            lines = self._line.split(b"\n")
            self._line = bytearray(data[end + 1 :])
        if len(self._line) > MAX_LINE_BYTES:
            raise unreadable()
        return "".join([self._event(line) for line in lines if line.startswith(b"data:")])

    def _last_line(self) -> str:
        """What nothing ended may be a whole event all the same; half of one is none."""
        try:
            return self._lines(b"\n")
        except Temporary as error:
            if error.reason != UNREADABLE:
                raise
            return ""

    def _event(self, line: bytearray) -> str:
        data = line[5:].strip()
        if self.is_done or not data:
            return ""
        if data.startswith(b"[DONE]"):
            self.is_done = True
            return ""
        if len(data) > MAX_LINE_BYTES:
            raise unreadable()
        try:
            chunk = _decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise unreadable() from error
        if chunk.error or chunk.object == "error":  # vLLM before 0.10 sent the error flat, then `[DONE]`
            raise error_from(200, bytes(data), {}, secret=self._account.key)
        self._model = chunk.model or self._model
        if chunk.usage or chunk.x_groq:
            self._usage = self._newer(read_usage(chunk.usage, chunk.x_groq))
        return self._said(chunk.choices[0]) if chunk.choices else ""

    def _newer(self, usage: Usage) -> Usage | None:
        return usage if usage.prompt_tokens is not None or usage.completion_tokens is not None else self._usage

    def _said(self, choice: _Choice) -> str:
        delta = choice.delta or _Delta()
        if delta.refusal or is_filtered(choice.finish_reason):
            raise refused()
        if (failure := failure_of(choice.finish_reason, bytes(choice.error), self._account)) is not None:
            raise failure
        if choice.finish_reason:
            self.is_whole = True
            self._finish = choice.finish_reason
        text = words_of(delta.content)
        self._size += len(text)
        if self._size > MAX_ANSWER_BYTES:
            raise unreadable()
        text = self._spoken.feed(text) if text else ""
        self._text.append(text)
        return text


def cut() -> Temporary:
    """The answer broke off in the middle."""
    return Temporary("the provider's answer broke off", reason="provider_cut")

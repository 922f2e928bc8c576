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
    Usage,
    read_answer,
    refused,
    reply_of,
    shown,
    unreadable,
)
from replyline.providers.openai_errors import error_from

MAX_LINE_BYTES = 1_000_000
MAX_STREAM_BYTES = 16 * MAX_ANSWER_BYTES
"""Of all that comes: each few characters of text have some 250 bytes around them."""


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: Usage | None = None
    error: object = None


_decoder = msgspec.json.Decoder(_Chunk)


class StreamedAnswer:
    """The body so far. `feed` it as it comes, `end` it when nothing more does, then ask for the `reply`."""

    def __init__(self, account: ProviderAccount) -> None:
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
        return text

    def reply(self) -> Reply:
        """The whole. Raises Temporary where it has no text."""
        if self._plain_reply is not None:
            return self._plain_reply
        return reply_of("".join(self._text), self._model, self._usage, self._account)

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
        if chunk.error:
            raise error_from(200, bytes(data), {}, secret=self._account.key)
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        return self._said(chunk.choices[0], data) if chunk.choices else ""

    def _said(self, choice: _Choice, data: bytearray) -> str:
        delta = choice.delta or _Delta()
        if delta.refusal or choice.finish_reason == "content_filter":
            raise refused()
        if choice.finish_reason == "error":  # OpenRouter's word for a failure in the middle
            raise error_from(200, bytes(data), {}, secret=self._account.key)
        if choice.finish_reason:
            self.is_whole = True
        if not delta.content:
            return ""
        text = shown(delta.content)
        self._size += len(text)
        if self._size > MAX_ANSWER_BYTES:
            raise unreadable()
        self._text.append(text)
        return text


def cut() -> Temporary:
    """The answer broke off in the middle."""
    return Temporary("the provider's answer broke off", reason="provider_cut")

"""A whole chat completion as a reply, and what whole and streamed answers have in common."""

from decimal import Decimal
from typing import TypeAlias

import msgspec

from replyline.errors import JobError, Permanent, Temporary
from replyline.providers.contract import ProviderAccount, Reply
from replyline.providers.openai_errors import error_from
from replyline.providers.reasoning import spoken

MAX_ANSWER_BYTES = 4_000_000
UNREADABLE = "provider_unreadable"

# DeepSeek's word for an answer that it broke off for lack of resources, and OpenRouter's for a failure in the middle.
_BROKEN_OFF = frozenset({"error", "insufficient_system_resource"})


class Part(msgspec.Struct):
    """A piece of content; one of reasoning has no text of its own (Mistral, "Reasoning")."""

    type: str = ""
    text: object = None


Content: TypeAlias = str | list[Part | str] | None


class _CachedTokens(msgspec.Struct):
    cached_tokens: float | None = None


class Usage(msgspec.Struct):
    """What an answer used, as far as it says. Gateways written in JavaScript or Lua send whole numbers as 18.0."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    prompt_tokens_details: _CachedTokens | None = None
    cost: Decimal | None = None
    """OpenRouter reports it, in US dollars."""


class XGroq(msgspec.Struct):
    """Groq's own part, which alone has the counts of a stream."""

    usage: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    content: Content = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = msgspec.Raw()


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    x_groq: XGroq | None = None


_decoder = msgspec.json.Decoder(_Answer)


def read_answer(raw: bytes, account: ProviderAccount) -> Reply:
    """The reply that this body is.

    Raises:
        JobError: it cannot be read, is empty or refused, or says what went wrong.
    """
    try:
        answer = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable() from error
    if not answer.choices:  # OpenRouter reports errors inside a 200 (contracts §5.1)
        raise error_from(200, raw, {}, secret=account.key)
    choice = answer.choices[0]
    message = choice.message or _Message()
    if is_filtered(choice.finish_reason) or message.refusal:
        raise refused()
    if (failure := failure_of(choice.finish_reason, bytes(choice.error), account)) is not None:
        raise failure
    usage = read_usage(answer.usage, answer.x_groq)
    return reply_of(spoken(words_of(message.content)), answer.model, usage, account, finish=choice.finish_reason)


def words_of(content: Content) -> str:
    """The text of a content, without the one character that Postgres cannot store."""
    if isinstance(content, str):
        text = content
    else:
        text = "".join([part if isinstance(part, str) else _text_of(part) for part in content or ()])
    return text.replace("\x00", "")


def _text_of(part: Part) -> str:
    return part.text if part.type in {"text", "output_text", ""} and isinstance(part.text, str) else ""


def is_filtered(finish: str | None) -> bool:
    """Whether the vendor stopped the answer for its content; Gemini says for what, after a colon."""
    return finish is not None and finish.startswith("content_filter")


def failure_of(finish: str | None, error: bytes, account: ProviderAccount) -> JobError | None:
    """Why half an answer came, where one did: `error` is the JSON that says it, and may be empty."""
    told = error not in {b"", b"null"}
    if not told and finish not in _BROKEN_OFF:
        return None
    body = b'{"error":' + error + b"}" if told else f'{{"error":"the answer broke off ({finish})"}}'.encode()
    return error_from(200, body, {}, secret=account.key)


def read_usage(usage: msgspec.Raw, groq: XGroq | None) -> Usage:
    """The counts; what cannot be read counts as not reported, because the answer is worth more than its counts."""
    for raw in (usage, groq.usage if groq is not None else msgspec.Raw()):
        if bytes(raw) in {b"", b"null"}:
            continue
        try:
            return msgspec.json.decode(raw, type=Usage)
        except (msgspec.MsgspecError, RecursionError):
            continue
    return Usage()


def reply_of(
    text: str, model: str | None, usage: Usage | None, account: ProviderAccount, *, finish: str | None = None
) -> Reply:
    """The reply with this text. Raises Temporary or Permanent if there is none, see `empty`."""
    text = text.strip()
    if not text:
        raise empty(finish)
    usage = usage or Usage()
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    return Reply(
        text=text,
        model=model or account.model or "",
        input_tokens=_count(usage.prompt_tokens),
        output_tokens=_count(usage.completion_tokens),
        cached_tokens=_count(cached),
        cost=usage.cost,
    )


def _count(number: float | None) -> int | None:
    return None if number is None or not 0 <= number < 2**31 else round(number)


def empty(finish: str | None) -> JobError:
    """An answer without text: permanent if reasoning used up the tokens, because it would again."""
    if finish == "length":
        return Permanent(
            "the model used up its output tokens before it answered: give it more, or less reasoning",
            reason="provider_no_room",
        )
    return Temporary("the provider's answer is empty", reason="provider_empty_answer")


def unreadable() -> Temporary:
    """What came is no answer."""
    return Temporary("the provider's answer cannot be read", reason=UNREADABLE)


def refused() -> Permanent:
    """The provider will not say this."""
    return Permanent("the provider refused the content", reason="content_filter")

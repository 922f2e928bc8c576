"""A whole chat completion as a reply, and what whole and streamed answers have in common."""

from decimal import Decimal

import msgspec

from replyline.errors import Permanent, Temporary
from replyline.providers.contract import ProviderAccount, Reply
from replyline.providers.openai_errors import error_from

MAX_ANSWER_BYTES = 4_000_000
UNREADABLE = "provider_unreadable"


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """What an answer used, as far as it says."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None
    cost: Decimal | None = None
    """OpenRouter reports it, in US dollars."""


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: Usage | None = None


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
    if choice.finish_reason == "content_filter" or choice.message.refusal:
        raise refused()
    return reply_of(shown(choice.message.content or ""), answer.model, answer.usage, account)


def reply_of(text: str, model: str | None, usage: Usage | None, account: ProviderAccount) -> Reply:
    """The reply with this text. Raises Temporary where there is none."""
    text = text.strip()
    if not text:
        raise Temporary("the provider's answer is empty", reason="provider_empty_answer")
    usage = usage or Usage()
    return Reply(
        text=text,
        model=model or account.model or "",
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_tokens=usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
        cost=usage.cost,
    )


def shown(text: str) -> str:
    """Without the one character that Postgres cannot store."""
    return text.replace("\x00", "")


def unreadable() -> Temporary:
    """What came is no answer."""
    return Temporary("the provider's answer cannot be read", reason=UNREADABLE)


def refused() -> Permanent:
    """The provider will not say this."""
    return Permanent("the provider refused the content", reason="content_filter")

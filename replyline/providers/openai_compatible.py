"""Chat completions over plain HTTP: OpenAI, and every server that speaks its dialect (vLLM, Ollama, Groq, OpenRouter …)."""

import base64
from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar

import aiohttp
import msgspec

from replyline.errors import Permanent, Temporary
from replyline.providers.contract import Picture, ProviderAccount, Question, Reply
from replyline.providers.openai_errors import error_from
from replyline.providers.prompt import conversation, system_text
from replyline.webhooks import read_at_most

_MAX_ANSWER_BYTES = 4_000_000


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None
    cost: Decimal | None = None
    """OpenRouter reports it, in US dollars."""


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Usage | None = None


_decoder = msgspec.json.Decoder(_Answer)


class OpenAiCompatible:
    """The provider `openai_compatible`: a tenth of an SDK's CPU for the same call."""

    name: ClassVar[str] = "openai_compatible"

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s` is for a whole call, in seconds; the queue is the only one who tries again."""
        self._timeout_s = timeout_s
        self._http: aiohttp.ClientSession | None = None

    async def complete(self, account: ProviderAccount, question: Question) -> Reply:
        """Ask `{base_url}/chat/completions`."""
        if not account.base_url or not account.model:
            raise Permanent("the chatbot has no provider base URL or no model", reason="provider_misconfigured")
        system = system_text(question)
        messages: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
        messages += [{"role": said.role, "content": said.text} for said in conversation(question)]
        if question.pictures and messages:
            messages[-1]["content"] = _with_pictures(str(messages[-1]["content"]), question.pictures)
        body = {"model": account.model, "messages": messages, "max_tokens": account.max_output_tokens}
        headers = {"Content-Type": "application/json"}
        if account.key:
            headers["Authorization"] = f"Bearer {account.key}"
        try:
            async with self._session().post(
                f"{account.base_url.rstrip('/')}/chat/completions",
                data=msgspec.json.encode(body),
                headers=headers,
                allow_redirects=False,
            ) as response:
                answer = await read_at_most(response, _MAX_ANSWER_BYTES)
                if response.status != 200:
                    raise error_from(response.status, answer, response.headers, secret=account.key)
        except TimeoutError as error:
            raise Temporary("the provider did not answer in time", reason="provider_timeout") from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise Permanent("the provider's base URL is not a URL", reason="provider_misconfigured") from error
        except aiohttp.ClientError as error:
            raise Temporary(
                f"the provider cannot be reached: {type(error).__name__}", reason="provider_connection"
            ) from error
        return _reply(answer, account)

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(5.0, self._timeout_s)),
                connector=aiohttp.TCPConnector(limit=2000),  # the AI queue may hold thousands of slow calls
            )
        return self._http


def _with_pictures(text: str, pictures: Sequence[Picture]) -> list[dict[str, object]]:
    """The last message's words and its pictures, as data URLs (OpenAI, "Images and vision": Chat Completions)."""
    parts: list[dict[str, object]] = [{"type": "text", "text": text}]
    for picture in pictures:
        data = base64.b64encode(picture.data).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:{picture.mime_type};base64,{data}"}})
    return parts


def _reply(raw: bytes, account: ProviderAccount) -> Reply:
    try:
        answer = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Temporary("the provider's answer cannot be read", reason="provider_unreadable") from error
    if not answer.choices:  # OpenRouter reports errors inside a 200 (contracts §5.1)
        raise error_from(200, raw, {}, secret=account.key)
    choice = answer.choices[0]
    if choice.finish_reason == "content_filter" or choice.message.refusal:
        raise Permanent("the provider refused the content", reason="content_filter")
    text = (choice.message.content or "").replace("\x00", "").strip()
    if not text:
        raise Temporary("the provider's answer is empty", reason="provider_empty_answer")
    usage = answer.usage or _Usage()
    return Reply(
        text=text,
        model=answer.model or account.model or "",
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_tokens=usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
        cost=usage.cost,
    )

"""Chat completions over plain HTTP: OpenAI, and every server that speaks its dialect (vLLM, Ollama, Groq, OpenRouter …)."""

import asyncio
import base64
import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from replyline.errors import Permanent, Temporary
from replyline.providers.contract import Picture, ProviderAccount, Question, Reply, Say
from replyline.providers.openai_answer import MAX_ANSWER_BYTES, read_answer
from replyline.providers.openai_errors import error_from
from replyline.providers.openai_stream import StreamedAnswer, cut
from replyline.providers.prompt import conversation, system_text
from replyline.providers.reasoning import ReasoningShown
from replyline.webhooks import read_at_most

# How a stream is asked for, the most first. Some servers refuse what they do not know (Mistral, Azure), and OpenAI itself
# streams some models to verified organizations only.
_STREAMS: tuple[dict[str, object], ...] = (
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True},
    {},
)
_NO_STREAM = len(_STREAMS) - 1
_NAMES_OPTIONS = re.compile(rb"stream_options|include_usage")
_NAMES_STREAM = re.compile(rb"\bstream(ing)?\b", re.IGNORECASE)
_NAMES_COMPLETION_TOKENS = re.compile(rb"max_completion_tokens")
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com")
_REMEMBERED = 4096
_LAST_BYTES_S = 0.1


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a server wants to be asked, as far as its refusals have told."""

    stream: int = 0
    """Which of `_STREAMS`."""
    limit: str = "max_tokens"
    """OpenAI's reasoning models know only `max_completion_tokens`; most other servers only `max_tokens`."""
    begins_with_reasoning: bool = False


@dataclass(frozen=True, slots=True)
class _Request:
    """What is posted where."""

    url: str
    body: Mapping[str, object]
    headers: Mapping[str, str]
    most_tokens: int

    def packed(self, manner: _Manner) -> bytes:
        """The body, asked in this manner."""
        return msgspec.json.encode({**self.body, manner.limit: self.most_tokens, **_STREAMS[manner.stream]})


class OpenAiCompatible:
    """The provider `openai_compatible`: a tenth of an SDK's CPU for the same call."""

    name: ClassVar[str] = "openai_compatible"

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s` is for a whole call, in seconds; the queue is the only one who tries again."""
        self._timeout_s = timeout_s
        self._http: aiohttp.ClientSession | None = None
        self._manners: dict[int, _Manner] = {}

    async def complete(self, account: ProviderAccount, question: Question, *, say: Say | None = None) -> Reply:
        """Ask `{base_url}/chat/completions`; with `say`, for a stream."""
        request = _request(account, question)
        try:
            async with asyncio.timeout(self._timeout_s):  # all its tries together
                return await self._ask(request, account, say)
        except TimeoutError as error:
            raise Temporary("the provider did not answer in time", reason="provider_timeout") from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise Permanent("the provider's base URL is not a URL", reason="provider_misconfigured") from error
        except aiohttp.ClientError as error:
            raise Temporary(
                f"the provider cannot be reached: {type(error).__name__}", reason="provider_connection"
            ) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()

    async def _ask(self, request: _Request, account: ProviderAccount, say: Say | None) -> Reply:
        """Where a server refuses the manner of asking, it is asked in another, and from then on."""
        whom = hash((account.base_url, account.model, account.key))
        known = self._manners.get(whom, _Manner())
        manner = known if say is not None else replace(known, stream=_NO_STREAM)
        # What packs a stream holds it back.
        headers = request.headers if say is None else {**request.headers, "Accept-Encoding": "identity"}
        while True:
            async with self._session().post(
                request.url, data=request.packed(manner), headers=headers, allow_redirects=False
            ) as response:
                if response.status == 200:
                    self._remember(whom, manner if say is not None else replace(manner, stream=known.stream))
                    if say is None:
                        return read_answer(await read_at_most(response, MAX_ANSWER_BYTES), account)
                    try:
                        return await _read_stream(response, account, manner, say)
                    except ReasoningShown:
                        self._remember(whom, replace(manner, begins_with_reasoning=True))
                        raise
                answer = await read_at_most(response, MAX_ANSWER_BYTES)
                other = _other_manner(manner, response.status, answer)
                if other is None:
                    raise error_from(response.status, answer, response.headers, secret=account.key)
            manner = other

    def _remember(self, whom: int, manner: _Manner) -> None:
        if self._manners.get(whom, _Manner()) == manner:
            return
        if len(self._manners) >= _REMEMBERED:
            self._manners.pop(next(iter(self._manners)))
        self._manners[whom] = manner

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(5.0, self._timeout_s)),
                connector=aiohttp.TCPConnector(limit=2000),  # the AI queue may hold thousands of slow calls
                cookie_jar=aiohttp.DummyCookieJar(),  # a cookie of one account is nothing to the next
            )
        return self._http


def _request(account: ProviderAccount, question: Question) -> _Request:
    if not account.base_url or not account.model:
        raise Permanent("the chatbot has no provider base URL or no model", reason="provider_misconfigured")
    system = system_text(question)
    messages: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
    messages += [{"role": said.role, "content": said.text} for said in conversation(question)]
    if question.pictures and messages:
        messages[-1]["content"] = _with_pictures(str(messages[-1]["content"]), question.pictures)
    return _Request(
        _address(account.base_url),
        {"model": account.model, "messages": messages},
        {"Content-Type": "application/json", **_key_header(account.base_url, account.key)},
        account.max_output_tokens,
    )


def _address(base_url: str) -> str:
    """The path goes before a query: Azure's classic addresses end with `?api-version=…`."""
    base, mark, query = base_url.partition("?")
    return f"{base.rstrip('/')}/chat/completions{mark}{query}"


def _key_header(base_url: str, key: str | None) -> dict[str, str]:
    """Azure takes a key as `api-key` (Azure OpenAI, REST API reference, "Authentication"), everybody else as a bearer's token."""
    if not key:
        return {}
    parts = urlsplit(base_url)
    is_azure = (parts.hostname or "").endswith(_AZURE_HOSTS) or "api-version=" in parts.query
    return {"api-key": key} if is_azure else {"Authorization": f"Bearer {key}"}


def _with_pictures(text: str, pictures: Sequence[Picture]) -> list[dict[str, object]]:
    """The last message's words and its pictures, as data URLs (OpenAI, "Images and vision": Chat Completions)."""
    parts: list[dict[str, object]] = [{"type": "text", "text": text}]
    for picture in pictures:
        data = base64.b64encode(picture.data).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:{picture.mime_type};base64,{data}"}})
    return parts


def _other_manner(manner: _Manner, status: int, answer: bytes) -> _Manner | None:
    """How to ask after this refusal; None where it is about something else."""
    if status not in {400, 422}:
        return None
    if manner.limit == "max_tokens" and _NAMES_COMPLETION_TOKENS.search(answer):
        return replace(manner, limit="max_completion_tokens")
    if manner.stream == 0 and _NAMES_OPTIONS.search(answer):
        return replace(manner, stream=1)
    if manner.stream < _NO_STREAM and _NAMES_STREAM.search(answer):
        return replace(manner, stream=_NO_STREAM)
    return None


async def _read_stream(response: aiohttp.ClientResponse, account: ProviderAccount, manner: _Manner, say: Say) -> Reply:
    answer = StreamedAnswer(account, begins_with_reasoning=manner.begins_with_reasoning)
    try:
        while not answer.is_done and (data := await response.content.readany()):
            if piece := answer.feed(data):
                say(piece)
    except aiohttp.ClientError as error:
        if isinstance(error, TimeoutError):
            raise
        if not answer.is_whole:
            raise cut() from error
    if piece := answer.end():
        say(piece)
    if answer.is_done:
        await _let_it_end(response)
    return answer.reply()


async def _let_it_end(response: aiohttp.ClientResponse) -> None:
    """Take the end of the body, which follows at once: a connection is used again only then."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_LAST_BYTES_S):
            await response.content.readany()

"""Chat completions over plain HTTP: OpenAI, and every server that speaks its dialect (vLLM, Ollama, Groq, OpenRouter …)."""

import asyncio
import base64
import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import aiohttp
import msgspec

from replyline.errors import Permanent, Temporary
from replyline.providers.contract import Picture, ProviderAccount, Question, Reply, Say
from replyline.providers.openai_answer import MAX_ANSWER_BYTES, read_answer
from replyline.providers.openai_errors import error_from
from replyline.providers.openai_stream import StreamedAnswer, cut
from replyline.providers.prompt import conversation, system_text
from replyline.webhooks import read_at_most

# How a stream is asked for, the most first. Some servers refuse what they do not know (Mistral, Azure), and OpenAI itself
# streams some models to verified organizations only.
_WAYS: tuple[dict[str, object], ...] = (
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True},
    {},
)
_NAMES_OPTIONS = re.compile(rb"stream_options|include_usage")
_NAMES_STREAM = re.compile(rb"\bstream(ing)?\b", re.IGNORECASE)
_REMEMBERED = 4096
_LAST_BYTES_S = 0.1


@dataclass(frozen=True, slots=True)
class _Request:
    """What is posted where."""

    url: str
    body: Mapping[str, object]
    headers: Mapping[str, str]


class OpenAiCompatible:
    """The provider `openai_compatible`: a tenth of an SDK's CPU for the same call."""

    name: ClassVar[str] = "openai_compatible"

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s` is for a whole call, in seconds; the queue is the only one who tries again."""
        self._timeout_s = timeout_s
        self._http: aiohttp.ClientSession | None = None
        self._ways: dict[int, int] = {}

    async def complete(self, account: ProviderAccount, question: Question, *, say: Say | None = None) -> Reply:
        """Ask `{base_url}/chat/completions`; with `say`, for a stream."""
        request = _request(account, question)
        try:
            if say is None:
                return read_answer(await self._ask(request, account), account)
            async with asyncio.timeout(self._timeout_s):  # all its tries together
                return await self._ask_for_stream(request, account, say)
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

    async def _ask(self, request: _Request, account: ProviderAccount) -> bytes:
        async with self._session().post(
            request.url, data=msgspec.json.encode(request.body), headers=request.headers, allow_redirects=False
        ) as response:
            answer = await read_at_most(response, MAX_ANSWER_BYTES)
            if response.status != 200:
                raise error_from(response.status, answer, response.headers, secret=account.key)
            return answer

    async def _ask_for_stream(self, request: _Request, account: ProviderAccount, say: Say) -> Reply:
        """Where a server refuses to stream, or to count in a stream, it is asked again without, and from then on."""
        whom = hash((account.base_url, account.model, account.key))
        headers = {**request.headers, "Accept-Encoding": "identity"}  # what packs a stream holds it back
        first = self._ways.get(whom, 0)
        way = first
        while True:
            body = {**request.body, **_WAYS[way]}
            async with self._session().post(
                request.url, data=msgspec.json.encode(body), headers=headers, allow_redirects=False
            ) as response:
                if response.status == 200:
                    if way != first:
                        self._remember(whom, way)
                    return await _read_stream(response, account, say)
                answer = await read_at_most(response, MAX_ANSWER_BYTES)
                less = _asking_less(way, response.status, answer)
                if less is None:
                    raise error_from(response.status, answer, response.headers, secret=account.key)
            way = less

    def _remember(self, whom: int, way: int) -> None:
        if len(self._ways) >= _REMEMBERED:
            self._ways.pop(next(iter(self._ways)))
        self._ways[whom] = way

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(5.0, self._timeout_s)),
                connector=aiohttp.TCPConnector(limit=2000),  # the AI queue may hold thousands of slow calls
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
    headers = {"Content-Type": "application/json"}
    if account.key:
        headers["Authorization"] = f"Bearer {account.key}"
    return _Request(
        f"{account.base_url.rstrip('/')}/chat/completions",
        {"model": account.model, "messages": messages, "max_tokens": account.max_output_tokens},
        headers,
    )


def _with_pictures(text: str, pictures: Sequence[Picture]) -> list[dict[str, object]]:
    """The last message's words and its pictures, as data URLs (OpenAI, "Images and vision": Chat Completions)."""
    parts: list[dict[str, object]] = [{"type": "text", "text": text}]
    for picture in pictures:
        data = base64.b64encode(picture.data).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:{picture.mime_type};base64,{data}"}})
    return parts


def _asking_less(way: int, status: int, answer: bytes) -> int | None:
    """The way to ask after this refusal; None where it is about something else."""
    if status not in {400, 422}:
        return None
    if way == 0 and _NAMES_OPTIONS.search(answer):
        return 1
    if way < len(_WAYS) - 1 and _NAMES_STREAM.search(answer):
        return len(_WAYS) - 1
    return None


async def _read_stream(response: aiohttp.ClientResponse, account: ProviderAccount, say: Say) -> Reply:
    answer = StreamedAnswer(account)
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

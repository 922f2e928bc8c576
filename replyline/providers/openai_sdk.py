"""OpenAI through its own SDK, behind `pydantic-ai-slim`'s direct model requests: the optional extra `replyline[openai]`."""

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.providers.contract import ProviderAccount, Question, Reply, Say
from replyline.providers.openai_answer import empty
from replyline.providers.openai_errors import bounded, classify
from replyline.providers.prompt import conversation, system_text
from replyline.providers.reasoning import spoken

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from pydantic_ai.exceptions import AgentRunError
    from pydantic_ai.messages import ModelMessage, ModelResponse

_CLIENTS_KEPT = 256


class OpenAiSdk:
    """The provider `openai`. Its packages take about a second to import, so that happens at the first use."""

    name: ClassVar[str] = "openai"

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s` is for a whole call, in seconds. Raises Permanent where the extra is not installed."""
        try:
            import pydantic_ai.models.openai as models  # noqa: PLC0415  see the class
        except ImportError as error:
            raise Permanent(
                'the provider `openai` needs its packages: pip install "replyline[openai]"',
                reason="provider_not_installed",
            ) from error
        self._models = models
        self._timeout_s = timeout_s
        self._clients: dict[tuple[str | None, str], AsyncOpenAI] = {}

    async def complete(self, account: ProviderAccount, question: Question, *, say: Say | None = None) -> Reply:
        """Ask for a chat completion; the queue is the only one who tries again. It does not stream: `say` is told nothing."""
        from pydantic_ai import exceptions  # noqa: PLC0415  see the class
        from pydantic_ai.direct import model_request  # noqa: PLC0415
        from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415

        if not account.model or not account.key:
            raise Permanent("the chatbot has no model or no provider key", reason="provider_misconfigured")
        client = self._client(account.base_url, account.key)
        model = self._models.OpenAIChatModel(account.model, provider=OpenAIProvider(openai_client=client))
        try:
            async with asyncio.timeout(
                self._timeout_s
            ):  # the SDK's own timeout is for each read, not for the whole call
                response = await model_request(
                    model, _messages(question), model_settings={"max_tokens": account.max_output_tokens}
                )
        except (TimeoutError, exceptions.ModelTimeoutError, exceptions.ModelRequestTimeout) as error:
            raise Temporary("the provider did not answer in time", reason="provider_timeout") from error
        except exceptions.AgentRunError as error:
            raise _in_our_words(error, str(error).replace(account.key, "[redacted]")) from error
        except RecursionError as error:  # the SDK reads JSON as deep as it comes
            raise Temporary("the provider's answer cannot be read", reason="provider_unreadable") from error
        return _reply(response, account.model)

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.close()

    def _client(self, base_url: str | None, key: str) -> "AsyncOpenAI":
        from openai import AsyncOpenAI  # noqa: PLC0415  see the class

        known = self._clients.get((base_url, key))
        if known is None:
            if len(self._clients) >= _CLIENTS_KEPT:  # its calls in flight end by themselves, then it is collected
                self._clients.pop(next(iter(self._clients)))
            known = AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=self._timeout_s)
            self._clients[base_url, key] = known
        return known


def _messages(question: Question) -> "list[ModelMessage]":
    from pydantic_ai.messages import (  # noqa: PLC0415  see the class
        ModelRequest,
        ModelResponse,
        SystemPromptPart,
        TextPart,
        UserPromptPart,
    )

    messages: list[ModelMessage] = []
    if system := system_text(question):
        messages.append(ModelRequest(parts=[SystemPromptPart(content=system)]))
    for said in conversation(question):
        if said.role == "user":
            messages.append(ModelRequest(parts=[UserPromptPart(content=said.text)]))
        else:
            messages.append(ModelResponse(parts=[TextPart(content=said.text)]))
    return messages


def _reply(response: "ModelResponse", asked_model: str) -> Reply:
    if response.finish_reason == "content_filter":
        raise Permanent("the provider refused the content", reason="content_filter")
    text = spoken((response.text or "").replace("\x00", "")).strip()
    if not text:
        raise empty(response.finish_reason)
    usage = response.usage
    measured = not usage.unmeasured_requests and bool(usage.input_tokens or usage.output_tokens)
    return Reply(
        text=text,
        model=response.model_name or asked_model,
        input_tokens=usage.input_tokens if measured else None,
        output_tokens=usage.output_tokens if measured else None,
        cached_tokens=usage.cache_read_tokens if measured else None,
        cost=usage.cost if isinstance(usage.cost, Decimal) else None,
    )


def _in_our_words(error: "AgentRunError", said: str) -> JobError:
    """The most telling category first: an HTTP error of `pydantic-ai` belongs to one of the others as well."""
    from pydantic_ai import exceptions  # noqa: PLC0415  see the class

    match error:
        case exceptions.ContentFilterError():
            return Permanent("the provider refused the content", reason="content_filter")
        case exceptions.ModelQuotaExceededError():
            return Permanent(said, reason="provider_quota")
        case exceptions.ModelContextWindowExceededError():
            return Permanent(said, reason="context_too_long")
        case exceptions.ModelRateLimitError():
            return RateLimited(said, after=bounded(error.retry_after), reason="provider_rate_limited")
        case exceptions.ModelHTTPError():
            named = {str(error.provider_error_code), str(error.provider_error_type)}
            return classify(error.status_code, named, said, error.retry_after)
        case exceptions.ModelConnectionError():
            return Temporary(said, reason="provider_connection")
        case _:
            return Temporary(said, reason="provider_unreadable")

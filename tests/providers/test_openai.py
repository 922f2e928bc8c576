"""Both providers that speak the OpenAI dialect: our thin client, and the vendor's SDK."""

from dataclasses import replace
from decimal import Decimal
from typing import ClassVar

import msgspec
import pytest

from replyline.errors import Permanent, RateLimited, Temporary
from replyline.providers import ProviderAccount
from tests.channels.far_end import Call, FarEnd, Say
from tests.providers.contract_suite import KEY, QUESTION, ProviderContract, ask


class _Message(msgspec.Struct):
    role: str
    content: str


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


def completion(text: str | None, *, finish: str = "stop", usage: dict[str, object] | None = None) -> dict[str, object]:
    """A chat completion as OpenAI answers it."""
    answer: dict[str, object] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1764000000,
        "model": "gpt-test-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
    }
    return answer if usage is None else answer | {"usage": usage}


class _OpenAiDialect(ProviderContract):
    def account(self, url: str) -> ProviderAccount:
        return ProviderAccount(self.name, "gpt-test", base_url=f"{url}/v1", key=KEY, max_output_tokens=321)

    def answered(self, text: str, *, finish: str = "stop", usage: dict[str, object] | None = None) -> Say:
        return Say(200, completion(text, finish=finish, usage=usage), {"Content-Type": "application/json"})

    def full_usage(self) -> dict[str, object]:
        return {
            "prompt_tokens": 1200,
            "completion_tokens": 34,
            "total_tokens": 1234,
            "prompt_tokens_details": {"cached_tokens": 1000},
        }

    def failed(self, status: int, code: str, **headers: str) -> Say:
        body = {"error": {"message": "It failed", "type": code, "param": None, "code": code}}
        return Say(status, body, {"Content-Type": "application/json", **headers})

    def prompt_of(self, call: Call) -> list[tuple[str, str]]:
        request = msgspec.json.decode(call.body, type=_Request)
        return [(message.role, message.content) for message in request.messages]

    def most_tokens_of(self, call: Call) -> int:
        request = msgspec.json.decode(call.body, type=_Request)
        return request.max_tokens or request.max_completion_tokens or 0


class TestOpenAiCompatible(_OpenAiDialect):
    """The suite, over our own client."""

    name: ClassVar[str] = "openai_compatible"
    streams: ClassVar[bool] = True

    async def test_a_server_without_a_key_gets_none(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered("Closed.")]
        await ask(self.name, replace(self.account(far_end.url), key=None))
        assert "authorization" not in far_end.calls[0].headers

    async def test_a_chatbot_without_a_base_url_is_misconfigured(self, far_end: FarEnd) -> None:
        with pytest.raises(Permanent) as raised:
            await ask(self.name, replace(self.account(far_end.url), base_url=None))
        assert raised.value.reason == "provider_misconfigured"

    @pytest.mark.parametrize("url", ["not a url", "ftp://127.0.0.1", "http://"])
    async def test_a_base_url_that_is_none_is_misconfigured(self, url: str) -> None:
        with pytest.raises(Permanent) as raised:
            await ask(self.name, replace(self.account(""), base_url=url))
        assert raised.value.reason == "provider_misconfigured"

    async def test_a_slash_at_the_end_of_the_base_url_does_no_harm(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered("Closed.")]
        await ask(self.name, replace(self.account(far_end.url), base_url=f"{far_end.url}/v1/"))
        assert far_end.calls[0].path == "/v1/chat/completions"

    async def test_a_cost_that_the_provider_reports_is_exact(self, far_end: FarEnd) -> None:
        usage = self.full_usage() | {"cost": 0.00014}
        far_end.then = [self.answered("Closed.", usage=usage)]
        assert (await ask(self.name, self.account(far_end.url))).cost == Decimal("0.00014")

    @pytest.mark.parametrize(
        ("code", "kind"), [(429, RateLimited), (402, Permanent), (403, Permanent), (502, Temporary), ("odd", Temporary)]
    )
    async def test_an_error_inside_a_good_answer_is_an_error(
        self, code: int | str, kind: type[Exception], far_end: FarEnd
    ) -> None:
        far_end.then = [Say(200, {"error": {"code": code, "message": "It failed"}})]
        with pytest.raises(kind, match="It failed"):
            await ask(self.name, self.account(far_end.url))

    async def test_a_refusal_is_permanent(self, far_end: FarEnd) -> None:
        message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
        far_end.then = [Say(200, {"choices": [{"message": message, "finish_reason": "stop"}]})]
        with pytest.raises(Permanent) as raised:
            await ask(self.name, self.account(far_end.url))
        assert raised.value.reason == "content_filter"

    async def test_a_wait_in_milliseconds_wins_over_one_in_seconds(self, far_end: FarEnd) -> None:
        far_end.then = [self.failed(429, "rate_limit_exceeded", **{"Retry-After": "7", "Retry-After-Ms": "250"})]
        with pytest.raises(RateLimited) as raised:
            await ask(self.name, self.account(far_end.url))
        assert raised.value.after == 0.25

    async def test_the_dialect_without_optional_fields_is_enough(self, far_end: FarEnd) -> None:
        far_end.then = [Say(200, {"choices": [{"message": {"content": "Closed."}}]})]
        reply = await ask(self.name, self.account(far_end.url), QUESTION)
        assert (reply.text, reply.model) == ("Closed.", "gpt-test")


class TestOpenAiSdk(_OpenAiDialect):
    """The suite, over the vendor's SDK."""

    name: ClassVar[str] = "openai"
    streams: ClassVar[bool] = False

    async def test_a_chatbot_without_a_key_is_misconfigured(self, far_end: FarEnd) -> None:
        with pytest.raises(Permanent) as raised:
            await ask(self.name, replace(self.account(far_end.url), key=None))
        assert raised.value.reason == "provider_misconfigured"

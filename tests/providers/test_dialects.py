"""How other servers of the OpenAI dialect answer, refuse, and want to be asked."""

from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.providers import ProviderAccount, Question, Utterance
from replyline.providers.openai_compatible import OpenAiCompatible
from replyline.providers.openai_errors import error_from
from replyline.providers.prompt import conversation
from tests.channels.far_end import FarEnd, Say
from tests.providers.contract_suite import KEY, QUESTION
from tests.providers.sse import DONE, chunk, dripping, event
from tests.providers.test_openai import completion


@pytest.fixture
async def provider() -> AsyncIterator[OpenAiCompatible]:
    """Our own client."""
    opened = OpenAiCompatible(5.0)
    yield opened
    await opened.close()


def account(url: str) -> ProviderAccount:
    """An account at this server."""
    return ProviderAccount("openai_compatible", "m", base_url=url, key=KEY)


def refused(status: int, body: object, **headers: str) -> JobError:
    """What this refusal means to us."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return error_from(status, raw, headers, secret=KEY)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (503, {"object": "error", "message": "Request waiting timeout reached.", "code": 503}, "waiting timeout"),
        (401, {"detail": "Unauthorized"}, "Unauthorized"),
        (422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}, "Field required"),
        (503, [{"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}], "Overloaded"),
        (500, {"error": "the runner has stopped"}, "the runner has stopped"),
        (404, b"404 page not found", "404 page not found"),
        (
            400,
            {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"Bad order"}}'}}},
            "Bad order",
        ),
        (429, {"error": {"message": "Provider returned error", "metadata": {"raw": "limited upstream"}}}, "limited up"),
        (403, b"<!DOCTYPE html><html>Just a moment</html>", "no reason"),
        (500, b"\xff\xfe", "500"),
    ],
)
def test_the_operator_reads_the_words_of_the_server(status: int, body: object, words: str) -> None:
    assert words in str(refused(status, body))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"object": "error", "message": "This model's maximum context length is 32768 tokens."}),
        (400, {"error": {"message": "too many", "type": "exceed_context_size_error"}}),
        (400, [{"error": {"message": "The input token count (1234567) exceeds the maximum number of tokens"}}]),
        (413, {"error": {"message": "Request too large for model", "code": "rate_limit_exceeded"}}),
        (422, {"error": {"message": "`inputs` tokens + `max_new_tokens` must be <= 8193"}}),
    ],
)
def test_a_context_that_is_too_long_is_recognised_whoever_says_it(status: int, body: object) -> None:
    error = refused(status, body)
    assert (type(error), error.reason) == (Permanent, "context_too_long")


@pytest.mark.parametrize(
    ("status", "body", "headers", "after_s"),
    [
        (429, [{"error": {"details": [{"@type": "RetryInfo", "retryDelay": "34s"}]}}], {}, 34),
        (429, {"error": {"metadata": {"retry_after_seconds": 20}}}, {}, 20),
        (429, {"error": {"message": "Please try again in 7m30.5s."}}, {}, 450.5),
        (429, {"error": {"message": "Please try again in 250ms."}}, {}, 0.25),
        (429, {"error": {"message": "Please retry after 26 seconds."}}, {}, 26),
        (429, {"error": {"metadata": {"headers": {"X-RateLimit-Reset": "4102444800000"}}}}, {}, 600),
        (429, {"error": {"message": "Try again in 9s"}}, {"Retry-After": "2"}, 2),
        (429, {"error": {"message": "Slow down"}}, {}, 5),
        (503, {"error": {"message": "The engine is overloaded"}}, {"Retry-After": "30"}, 30),
    ],
)
def test_a_wait_is_honoured_wherever_it_is_said(
    status: int, body: object, headers: dict[str, str], after_s: float
) -> None:
    error = refused(status, body, **headers)
    assert isinstance(error, RateLimited)
    assert error.after == after_s


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, {"error": {"message": "Your input was flagged for violence", "code": 403}}, "content_filter"),
        (403, {"error": "Your team has used all available credits"}, "provider_quota"),
        (403, {"error": {"message": "No access"}}, "provider_auth"),
        (400, [{"error": {"message": "API key not valid. Please pass a valid API key."}}], "provider_auth"),
        (400, {"error": {"message": "It is gone", "code": "model_decommissioned"}}, "unknown_model"),
        (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, "provider_misconfigured"),
    ],
)
def test_what_cannot_change_is_permanent_under_its_own_reason(status: int, body: object, reason: str) -> None:
    error = refused(status, body)
    assert (type(error), error.reason) == (Permanent, reason)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "model called a tool", "code": "tool_use_failed"}}),
        (424, {"error": "Request failed during generation"}),
    ],
)
def test_what_happens_by_chance_is_tried_again(status: int, body: object) -> None:
    assert isinstance(refused(status, body), Temporary)


def test_a_hostile_refusal_is_read_in_bounds() -> None:
    deep = b'{"error":' * 90_000 + b"1" + b"}" * 90_000
    wide = {"error": [{"message": "x" * 100_000}] * 200}
    assert str(refused(400, deep)).startswith("the provider answered 400")
    assert len(str(refused(400, wide))) < 3000


async def test_a_model_that_refuses_max_tokens_is_asked_with_its_own_word_from_then_on(
    provider: OpenAiCompatible, far_end: FarEnd
) -> None:
    told = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    answer = Say(200, completion("Hi"))
    far_end.then = [Say(400, {"error": {"message": told, "code": "unsupported_parameter"}}), answer, answer]
    for _ in range(2):
        assert (await provider.complete(account(f"{far_end.url}/v1"), QUESTION)).text == "Hi"
    asked = [{name for name in call.json() if name.startswith("max")} for call in far_end.calls]
    assert asked == [{"max_tokens"}, {"max_completion_tokens"}, {"max_completion_tokens"}]


async def test_an_azure_address_keeps_its_version_and_gets_the_key_in_its_own_header(
    provider: OpenAiCompatible, far_end: FarEnd
) -> None:
    far_end.then = [Say(200, completion("Hi"))]
    await provider.complete(account(f"{far_end.url}/openai/deployments/d?api-version=2024-10-21"), QUESTION)
    (call,) = far_end.calls
    assert call.path.startswith("/openai/deployments/d/chat/completions")
    assert call.headers["api-key"] == KEY
    assert "authorization" not in call.headers


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": "The price"}, "finish_reason": "insufficient_system_resource"},
        {"message": {"content": "The price"}, "finish_reason": "error", "error": {"code": 502, "message": "gone"}},
    ],
)
async def test_half_an_answer_is_not_taken_for_a_whole_one(
    choice: dict[str, object], provider: OpenAiCompatible, far_end: FarEnd
) -> None:
    far_end.then = [Say(200, {"choices": [choice]})]
    with pytest.raises(Temporary):
        await provider.complete(account(f"{far_end.url}/v1"), QUESTION)


@pytest.mark.parametrize(
    "last",
    [
        chunk("", finish="insufficient_system_resource"),
        event({"object": "error", "message": "Internal server error", "code": 500}),
        event({"error": "CUDA out of memory", "error_type": "generation"}),
    ],
)
async def test_half_a_stream_is_not_taken_for_a_whole_one(last: bytes, provider: OpenAiCompatible) -> None:
    async with dripping(chunk("The price"), last, DONE) as (url, _):
        with pytest.raises(Temporary):
            await provider.complete(account(url), QUESTION, say=lambda _: None)


async def test_content_in_parts_is_read_without_its_reasoning(provider: OpenAiCompatible, far_end: FarEnd) -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": "Bonjour."}]
    far_end.then = [Say(200, {"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]})]
    assert (await provider.complete(account(f"{far_end.url}/v1"), QUESTION)).text == "Bonjour."


async def test_odd_counts_cost_no_answer(provider: OpenAiCompatible, far_end: FarEnd) -> None:
    choices = [{"message": {"content": "Hi"}, "finish_reason": "stop"}]
    far_end.then = [
        Say(200, {"choices": choices, "usage": {"prompt_tokens": 18.0, "completion_tokens": 5.0}}),
        Say(200, {"choices": choices, "usage": "none"}),
        Say(200, {"choices": choices, "x_groq": {"usage": {"prompt_tokens": 18, "completion_tokens": 5}}}),
    ]
    replies = [await provider.complete(account(f"{far_end.url}/v1"), QUESTION) for _ in range(3)]
    assert [reply.input_tokens for reply in replies] == [18, None, 18]
    assert {reply.text for reply in replies} == {"Hi"}


async def test_a_model_that_reasons_without_a_mark_is_held_back_the_next_time(provider: OpenAiCompatible) -> None:
    told: list[str] = []
    async with dripping(chunk("The margin is"), chunk(" 40 %</think>Hello", finish="stop"), DONE) as (url, _):
        with pytest.raises(Temporary) as raised:
            await provider.complete(account(url), QUESTION, say=told.append)
        assert raised.value.reason == "provider_reasoning"
        told.clear()
        reply = await provider.complete(account(url), QUESTION, say=told.append)
    assert ("".join(told), reply.text) == ("Hello", "Hello")


def test_neighbours_of_one_role_are_one_utterance() -> None:
    history = (Utterance("assistant", "Hello"), Utterance("assistant", "How can I help?"), Utterance("user", "Open?"))
    said = conversation(replace(QUESTION, history=history, asked=("Today?", "Or Sunday?")))
    assert [(one.role, one.text) for one in said] == [
        ("assistant", "Hello\n\nHow can I help?"),
        ("user", "Open?\n\nToday?\n\nOr Sunday?"),
    ]
    assert [one.text for one in conversation(Question("", (), ("Hi",)))] == ["Hi"]


async def test_a_cookie_of_one_account_is_not_sent_with_the_next_ones_call(
    far_end: FarEnd, provider: OpenAiCompatible
) -> None:
    far_end.then = [Say(body=completion("Hello"), headers={"Set-Cookie": "session=one; Path=/"})]
    url = far_end.url.replace("127.0.0.1", "localhost")  # cookies are only kept of names
    for key in ("one", "two"):
        await provider.complete(replace(account(url), key=key), QUESTION)

    assert ["cookie" in call.headers for call in far_end.calls] == [False, False]

"""The stand-in for an AI vendor answers as OpenAI's chat completions do."""

import asyncio

import msgspec
import pytest

from tests.standins.side import Said, Side


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Message(msgspec.Struct):
    role: str
    content: str


class _Choice(msgspec.Struct):
    index: int
    message: _Message
    finish_reason: str


class _Completion(msgspec.Struct):
    id: str
    object: str
    model: str
    choices: list[_Choice]
    usage: _Usage


async def _ask(openai: Side, *said: str, **more: object) -> Said:
    messages = [{"role": "system", "content": "Be kind."}, *({"role": "user", "content": text} for text in said)]
    return await openai.call(
        "POST",
        "/v1/chat/completions",
        {"model": "test-1", "messages": messages, **more},
        headers={"Authorization": "Bearer sk-1"},
    )


def _completion(said: Said) -> _Completion:
    assert said.status == 200, said.raw
    return msgspec.json.decode(said.raw, type=_Completion)


async def test_the_last_thing_the_person_said_is_echoed(openai: Side) -> None:
    said = await _ask(openai, "Hello", "Are you open?")
    completion = _completion(said)
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Echo: Are you open?")
    assert (completion.object, completion.model, choice.finish_reason) == ("chat.completion", "test-1", "stop")
    assert said.headers["x-request-id"].startswith("req_")


async def test_content_in_parts_is_read(openai: Side) -> None:
    parts = [{"type": "text", "text": "Are you "}, {"type": "text", "text": "open?"}]
    said = await _ask(openai, messages=[{"role": "user", "content": parts}])
    assert _completion(said).choices[0].message.content == "Echo: Are you open?"


async def test_tokens_are_counted(openai: Side) -> None:
    usage = _completion(await _ask(openai, "a" * 400)).usage
    assert usage.completion_tokens == 102
    assert 100 < usage.prompt_tokens < 130
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_an_answer_is_cut_at_the_most_tokens_asked_for(openai: Side) -> None:
    (choice,) = _completion(await _ask(openai, "a" * 400, max_completion_tokens=10)).choices
    assert (choice.finish_reason, len(choice.message.content)) == ("length", 40)


async def test_the_answer_can_be_fixed(openai: Side) -> None:
    await openai.tell("/_configure", {"reply": "We open at 8."})
    assert _completion(await _ask(openai, "Hi")).choices[0].message.content == "We open at 8."


async def test_an_answer_can_take_a_while(openai: Side) -> None:
    await openai.tell("/_configure", {"think_s": 0.3})
    before = asyncio.get_running_loop().time()
    _completion(await _ask(openai, "Hi"))
    assert asyncio.get_running_loop().time() - before >= 0.3


async def test_a_wrong_key_is_refused(openai: Side) -> None:
    await openai.tell("/_configure", {"key": "sk-2"})
    said = await _ask(openai, "Hi")
    assert (said.status, said.error()["code"]) == (401, "invalid_api_key")


async def test_another_model_is_not_found(openai: Side) -> None:
    await openai.tell("/_configure", {"model": "test-2"})
    said = await _ask(openai, "Hi")
    assert (said.status, said.error()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": None}, "$.model"),
        ({"model": ""}, "$.model"),
        ({"messages": []}, "$.messages"),
        ({"messages": [{"content": "Hi"}]}, "role"),
        ({"messages": [{"role": "bot", "content": "Hi"}]}, "$.messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "$.messages[0].content"),
        ({"temperature": 3}, "$.temperature"),
        ({"max_tokens": 0}, "$.max_tokens"),
        ({"stream": True}, "does not stream"),
    ],
    ids=str,
)
async def test_a_question_that_openai_refuses_is_refused(openai: Side, change: dict[str, object], named: str) -> None:
    said = await _ask(openai, "Hi", **change)
    assert (said.status, said.error()["type"]) == (400, "invalid_request_error")
    assert named in str(said.error()["message"])


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/chat/completions"), ("POST", "/v1/images")])
async def test_a_route_that_is_not_there_is_said_so(openai: Side, method: str, path: str) -> None:
    said = await openai.call(method, path, {})
    assert (said.status, said.error()["type"]) == (404, "invalid_request_error")

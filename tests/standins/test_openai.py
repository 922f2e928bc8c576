"""The stand-in for an AI vendor answers as OpenAI's chat completions do."""

import asyncio
from collections.abc import Sequence

import aiohttp
import msgspec
import pytest

from replyline.providers import Passage, Question
from replyline.providers.prompt import system_text
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
        ({"stream": 1}, "$.stream"),
        ({"stream_options": {"include_usage": True}}, "only allowed when 'stream' is enabled"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "include_usage"),
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


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None


class _Part(msgspec.Struct):
    index: int
    delta: _Delta
    finish_reason: str | None


class _Chunk(msgspec.Struct):
    id: str
    object: str
    model: str
    choices: list[_Part]
    usage: _Usage | msgspec.UnsetType | None = msgspec.UNSET


def _events(raw: bytes) -> list[bytes]:
    """The data of every event."""
    *events, rest = raw.split(b"\n\n")
    assert rest == b""
    assert all(event.startswith(b"data: ") for event in events)
    return [event.removeprefix(b"data: ") for event in events]


def _chunks(said: Said) -> list[_Chunk]:
    """Every chunk of a stream that came to its end."""
    assert (said.status, said.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    *events, done = _events(said.raw)
    assert done == b"[DONE]"
    return [msgspec.json.decode(event, type=_Chunk) for event in events]


def _text(chunks: Sequence[_Chunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_a_stream_is_as_openai_streams(openai: Side) -> None:
    said = await _ask(openai, "Are you open?", stream=True)
    assert said.headers["x-request-id"].startswith("req_")
    chunks = _chunks(said)
    assert len({chunk.id for chunk in chunks}) == 1
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("chat.completion.chunk", "test-1")}
    first, *middle, last = [chunk.choices[0] for chunk in chunks]
    assert (first.delta.role, first.delta.content, first.finish_reason) == ("assistant", "", None)
    assert [part.delta.content for part in middle] == ["Echo:", " Are", " you", " open?"]
    assert (last.delta.content, last.finish_reason) == (None, "stop")
    assert all(chunk.usage is msgspec.UNSET for chunk in chunks)


async def test_a_stream_counts_in_a_chunk_of_its_own_where_that_is_asked_for(openai: Side) -> None:
    counted = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = _chunks(await _ask(openai, "Are you open?", **counted))
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage == _completion(await _ask(openai, "Are you open?")).usage


async def test_a_stream_says_what_a_whole_answer_says(openai: Side) -> None:
    for text in ("", " \n two  spaces\n", "🥐 Grüezi " * 50, "a" * 400):
        whole = _completion(await _ask(openai, text, max_tokens=60)).choices[0]
        chunks = _chunks(await _ask(openai, text, max_tokens=60, stream=True))
        assert (_text(chunks), chunks[-1].choices[0].finish_reason) == (whole.message.content, whole.finish_reason)


async def test_a_stream_has_the_pace_it_is_told(openai: Side) -> None:
    await openai.tell("/_configure", {"reply": "We are open from Tuesday to Saturday.", "tokens_per_s": 40})
    before = asyncio.get_running_loop().time()
    assert _text(_chunks(await _ask(openai, "Hi", stream=True))) == "We are open from Tuesday to Saturday."
    assert asyncio.get_running_loop().time() - before >= 0.25
    before = asyncio.get_running_loop().time()
    _completion(await _ask(openai, "Hi"))
    assert asyncio.get_running_loop().time() - before < 0.25


async def test_a_stream_is_recorded(openai: Side) -> None:
    await _ask(openai, "Hi", stream=True)
    (call,) = (await openai.calls()).calls
    assert (call.path, call.status) == ("/v1/chat/completions", 200)


async def test_a_stream_can_be_cut_in_the_middle(openai: Side) -> None:
    await openai.fault("cut_mid_stream", after_chunks=2, times=1)
    async with openai.http.post(f"{openai.url}/v1/chat/completions", data=_streaming("Are you open?")) as response:
        came = await response.content.readany()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert _text([msgspec.json.decode(event, type=_Chunk) for event in _events(came)]) == "Echo: Are"
    assert [call.status for call in (await openai.calls()).calls] == [None]
    assert _text(_chunks(await _ask(openai, "Hi", stream=True))) == "Echo: Hi"


async def test_a_stream_is_cut_before_its_end_at_the_latest(openai: Side) -> None:
    await openai.fault("cut_mid_stream", after_chunks=1000)
    with pytest.raises(aiohttp.ClientPayloadError):
        await _ask(openai, "Are you open?", stream=True)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("server_error", {"message": "told to fail", "type": "server_error", "param": None, "code": "server_error"}),
        (429, {"message": "told to fail", "code": 429}),
    ],
)
async def test_a_stream_can_end_with_an_error(openai: Side, code: object, error: dict[str, object]) -> None:
    await openai.fault("error_mid_stream", after_chunks=1, code=code)
    said = await _ask(openai, "Are you open?", stream=True)
    *events, last = _events(said.raw)
    assert _text([msgspec.json.decode(event, type=_Chunk) for event in events]) == "Echo:"
    assert msgspec.json.decode(last) == {"error": error}


async def test_a_fault_of_streams_does_not_touch_whole_answers(openai: Side) -> None:
    await openai.fault("cut_mid_stream", times=1)
    assert _completion(await _ask(openai, "Hi")).choices[0].message.content == "Echo: Hi"
    assert len(msgspec.json.decode((await openai.call("GET", "/_faults")).raw, type=list[object])) == 1


@pytest.mark.parametrize(
    "fault", [{"kind": "error_mid_stream", "code": "no_such"}, {"kind": "cut_mid_stream", "after_chunks": -1}]
)
async def test_a_fault_of_streams_that_cannot_be_is_refused(openai: Side, fault: dict[str, object]) -> None:
    assert (await openai.call("POST", "/_faults", fault)).status == 400


async def test_only_openai_streams(customer: Side) -> None:
    assert (await customer.call("POST", "/_faults", {"kind": "cut_mid_stream"})).status == 400


async def test_who_stops_listening_to_a_stream_does_no_harm(openai: Side) -> None:
    await openai.tell("/_configure", {"reply": "word " * 200, "tokens_per_s": 200})
    async with openai.http.post(f"{openai.url}/v1/chat/completions", data=_streaming("Hi")) as response:
        await response.content.readany()
    for _ in range(100):
        if [call.status for call in (await openai.calls()).calls] == [None]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the call was never recorded")


def _streaming(text: str) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}], "stream": True})


_BAKERY = (
    Passage(
        "Opening hours",
        "Opening hours: What are our opening hours? We are open from Tuesday to Saturday, 7 am to 6 pm. "
        "On Sundays and Mondays we are closed, and on public holidays too.",
    ),
    Passage(
        "Delivery",
        "We deliver bread and cakes within 10 km, from Tuesday to Saturday, for 5 dollars; free from 50 dollars. "
        "Orders until 4 pm are delivered the next morning. We do not deliver on Sundays.",
    ),
    Passage(
        "Allergens",
        "# Allergens\n\nAll our bread contains gluten. We have two gluten-free loaves on Thursdays\n"
        "* Nuts are used in the bakery",
    ),
)
_HOURS = "We are open from Tuesday to Saturday, 7 am to 6 pm. On Sundays and Mondays we are closed, and on public holidays too."
_ALLERGENS = "All our bread contains gluten. We have two gluten-free loaves on Thursdays. Nuts are used in the bakery."


async def _quote(openai: Side, *asked: str, passages: tuple[Passage, ...] = _BAKERY, **more: object) -> Said:
    await openai.tell("/_configure", {"quote": True})
    system = system_text(Question("You are the assistant of a bakery.", (), asked, passages))
    messages = [{"role": "system", "content": system}, *({"role": "user", "content": text} for text in asked)]
    return await _ask(openai, messages=messages, **more)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("What are your opening hours?", _HOURS),
        ("when do you open", _HOURS),
        ("Are you open on Sundays?", _HOURS),
        ("Hi, are you open on Saturday?", "We are open from Tuesday to Saturday, 7 am to 6 pm."),
        (
            "Do you deliver on Sundays?",
            "I am afraid we do not deliver on Sundays. We deliver bread and cakes within 10 km, from Tuesday to Saturday, "
            "for 5 dollars; free from 50 dollars.",
        ),
        ("Is there gluten free bread?", _ALLERGENS),
        ("My son has allergies", _ALLERGENS),
        ("Hello!", "How can I help you today?"),
        ("Thank you!", "You are very welcome!"),
        ("What is the capital of France?", "I am happy to pass your question on"),
        ("??", "I am happy to pass your question on"),
    ],
)
async def test_told_to_quote_it_answers_as_a_kind_person_who_knows(openai: Side, asked: str, answer: str) -> None:
    said = _completion(await _quote(openai, asked)).choices[0].message.content
    assert answer in said
    assert "?" not in answer or said.count("?") == 1
    assert "What are our opening hours" not in said
    assert said == _text(_chunks(await _quote(openai, asked, stream=True)))


async def test_told_to_quote_it_hears_all_that_was_asked(openai: Side) -> None:
    said = _completion(await _quote(openai, "Do you deliver", "on Sundays?")).choices[0].message.content
    assert said.startswith("I am afraid we do not deliver on Sundays.")


async def test_without_reference_it_does_not_know(openai: Side) -> None:
    said = _completion(await _quote(openai, "What are your opening hours?", passages=())).choices[0].message.content
    assert said.startswith("I am sorry, I do not know that.")


async def test_a_passage_of_questions_alone_is_no_answer(openai: Side) -> None:
    passages = (Passage("Hours", "When are we open?"),)
    said = _completion(await _quote(openai, "When are you open?", passages=passages)).choices[0].message.content
    assert said.startswith("I am sorry, I do not know that.")


async def test_a_long_passage_is_said_up_to_a_length_in_whole_sentences(openai: Side) -> None:
    passages = (Passage("Cakes", "Our cakes are made by hand every morning. " * 40),)
    said = _completion(await _quote(openai, "Tell me about cakes", passages=passages)).choices[0].message.content
    assert said.endswith("every morning.")
    assert len(said) < 600


async def test_a_fixed_answer_wins_over_quoting(openai: Side) -> None:
    await openai.tell("/_configure", {"reply": "We open at 8."})
    assert _completion(await _quote(openai, "Hi")).choices[0].message.content == "We open at 8."

"""Streams over real HTTP: servers as they are, servers that do not stream, and connections that break."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import msgspec
import pytest

from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.providers import PROVIDERS, ProviderAccount, Reply
from replyline.standins import Standins
from tests.channels.far_end import FarEnd, Say
from tests.providers.contract_suite import IMPATIENT_S, KEY, QUESTION, ask, opened
from tests.providers.sse import DONE, chunk, counted, dripping, event, streamed

_JSON = {"Content-Type": "application/json"}
_SSE = {"Content-Type": "text/event-stream; charset=utf-8"}
_PLAIN = Say(200, {"choices": [{"message": {"content": "Closed."}, "finish_reason": "stop"}]}, _JSON)
_STREAMED = Say(200, streamed("We are", " closed."), _SSE)


def account_at(base_url: str) -> ProviderAccount:
    """A chatbot whose model is there."""
    return ProviderAccount("openai_compatible", "gpt-test", base_url=base_url, key=KEY, max_output_tokens=321)


async def told(base_url: str, *, timeout_s: float = 30.0) -> tuple[Reply, list[str]]:
    """The reply, and the pieces that were told before."""
    pieces: list[str] = []
    reply = await ask("openai_compatible", account_at(base_url), timeout_s=timeout_s, say=pieces.append)
    return reply, pieces


async def failed(base_url: str, *, timeout_s: float = 30.0) -> tuple[JobError, list[str]]:
    """The failure, and the pieces that were told before: nothing is told after it."""
    pieces: list[str] = []
    with pytest.raises(JobError) as raised:
        await ask("openai_compatible", account_at(base_url), timeout_s=timeout_s, say=pieces.append)
    before = list(pieces)
    await asyncio.sleep(0.05)
    assert pieces == before
    return raised.value, pieces


def asked_for(far_end: FarEnd) -> list[tuple[object, object]]:
    """What each call asked for."""
    return [(call.json().get("stream"), call.json().get("stream_options")) for call in far_end.calls]


async def test_pieces_are_told_as_they_come() -> None:
    parts = [chunk("", role="assistant"), chunk("We"), chunk(" are"), chunk(" closed."), chunk(finish="stop")]
    async with dripping(*parts, counted(), DONE) as (url, _):
        reply, pieces = await told(url)
    assert (reply.text, pieces) == ("We are closed.", ["We", " are", " closed."])
    assert (reply.model, reply.input_tokens, reply.cached_tokens, reply.output_tokens) == (
        "gpt-test-2026",
        1200,
        1000,
        34,
    )


async def test_a_stream_and_its_counts_are_asked_for_unpacked(far_end: FarEnd) -> None:
    far_end.then = [_STREAMED]
    reply, pieces = await told(f"{far_end.url}/v1")
    assert (reply.text, "".join(pieces)) == ("We are closed.", "We are closed.")
    assert asked_for(far_end) == [(True, {"include_usage": True})]
    assert far_end.calls[0].headers["accept-encoding"] == "identity"


async def test_pieces_may_be_cut_inside_a_character() -> None:
    body = streamed("Grüezi", " 🥐")
    at = body.index("ü".encode()) + 1
    async with dripping(body[:at], body[at:-30], body[-30:]) as (url, _):
        reply, pieces = await told(url)
    assert (reply.text, "".join(pieces)) == ("Grüezi 🥐", "Grüezi 🥐")


async def test_a_connection_is_used_again_after_a_stream() -> None:
    body = streamed("Closed.")
    async with dripping(body, every_s=0.005) as (url, peers), opened("openai_compatible") as provider:
        for _ in range(3):
            await provider.complete(account_at(url), QUESTION, say=lambda _: None)
        assert len(set(peers)) == 1


async def test_a_server_that_never_closes_its_stream_does_not_hold_the_answer_back() -> None:
    async with dripping(streamed("Closed."), then_hang=True) as (url, _):
        reply, _ = await told(url, timeout_s=5.0)
    assert reply.text == "Closed."


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/event-stream"])
async def test_a_server_that_does_not_stream_is_told_of_at_once(kind: str, far_end: FarEnd) -> None:
    far_end.then = [replace(_PLAIN, headers={"Content-Type": kind})]
    reply, pieces = await told(f"{far_end.url}/v1")
    assert (reply.text, pieces) == ("Closed.", ["Closed."])
    assert len(far_end.calls) == 1


async def test_a_stream_that_calls_itself_json_is_read(far_end: FarEnd) -> None:
    far_end.then = [replace(_STREAMED, headers=_JSON)]
    assert (await told(f"{far_end.url}/v1"))[0].text == "We are closed."


_REFUSES_OPTIONS = Say(
    422,
    {
        "object": "error",
        "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"]}]},
        "code": None,
    },
    _JSON,
)
_REFUSES_OPTIONS_AS_AZURE = Say(
    400, {"error": {"message": "Unknown parameter: 'stream_options'.", "code": None}}, _JSON
)
_REFUSES_TO_STREAM = Say(
    400,
    {
        "error": {
            "message": "Your organization must be verified to stream this model.",
            "type": "invalid_request_error",
            "param": "stream",
            "code": "unsupported_value",
        }
    },
    _JSON,
)


@pytest.mark.parametrize("refusal", [_REFUSES_OPTIONS, _REFUSES_OPTIONS_AS_AZURE])
async def test_a_server_that_refuses_to_count_is_asked_again_without_and_from_then_on(
    refusal: Say, far_end: FarEnd
) -> None:
    far_end.then = [refusal, Say(200, chunk("Closed.", finish="stop") + DONE, _SSE)]
    async with opened("openai_compatible") as provider:
        for _ in range(2):
            pieces: list[str] = []
            reply = await provider.complete(account_at(f"{far_end.url}/v1"), QUESTION, say=pieces.append)
            assert (reply.text, pieces, reply.input_tokens) == ("Closed.", ["Closed."], None)
    assert asked_for(far_end) == [(True, {"include_usage": True}), (True, None), (True, None)]


async def test_a_server_that_refuses_to_stream_is_asked_for_the_whole_from_then_on(far_end: FarEnd) -> None:
    far_end.then = [_REFUSES_TO_STREAM, _PLAIN]
    async with opened("openai_compatible") as provider:
        for _ in range(2):
            pieces: list[str] = []
            reply = await provider.complete(account_at(f"{far_end.url}/v1"), QUESTION, say=pieces.append)
            assert (reply.text, pieces) == ("Closed.", ["Closed."])
    assert asked_for(far_end) == [(True, {"include_usage": True}), (None, None), (None, None)]


async def test_one_refusal_after_the_other_is_heard(far_end: FarEnd) -> None:
    far_end.then = [_REFUSES_OPTIONS, _REFUSES_TO_STREAM, _PLAIN]
    assert (await told(f"{far_end.url}/v1"))[0].text == "Closed."
    assert [stream for stream, _ in asked_for(far_end)] == [True, True, None]


async def test_what_one_customer_is_refused_is_not_remembered_of_another(far_end: FarEnd) -> None:
    far_end.then = [_REFUSES_TO_STREAM, _PLAIN, _STREAMED]
    account = account_at(f"{far_end.url}/v1")
    async with opened("openai_compatible") as provider:
        for one in (account, replace(account, key="sk-of-another"), replace(account, model="gpt-other")):
            await provider.complete(one, QUESTION, say=lambda _: None)
    assert [stream for stream, _ in asked_for(far_end)] == [True, None, True, True]


async def test_a_server_that_refuses_whatever_way_it_is_asked_has_the_last_word(far_end: FarEnd) -> None:
    far_end.then = [_REFUSES_TO_STREAM]
    error, pieces = await failed(f"{far_end.url}/v1")
    assert (type(error), error.reason, pieces) == (Permanent, "provider_refused", [])
    assert len(far_end.calls) == 2


async def test_a_refusal_that_did_not_help_is_not_remembered(far_end: FarEnd) -> None:
    far_end.then = [_REFUSES_OPTIONS_AS_AZURE, Say(500, b""), _STREAMED]
    async with opened("openai_compatible") as provider:
        with pytest.raises(Temporary):
            await provider.complete(account_at(f"{far_end.url}/v1"), QUESTION, say=lambda _: None)
        await provider.complete(account_at(f"{far_end.url}/v1"), QUESTION, say=lambda _: None)
    assert asked_for(far_end)[-1] == (True, {"include_usage": True})


async def test_any_other_refusal_is_not_asked_again(far_end: FarEnd) -> None:
    far_end.then = [Say(400, {"error": {"message": "upstreams are many", "code": "context_length_exceeded"}}, _JSON)]
    error, _ = await failed(f"{far_end.url}/v1")
    assert error.reason == "context_too_long"
    assert len(far_end.calls) == 1


async def test_many_servers_that_refuse_do_not_fill_the_memory(
    far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replyline.providers.openai_compatible._REMEMBERED", 2)
    account = account_at(f"{far_end.url}/v1")
    async with opened("openai_compatible") as provider:
        for number in range(3):
            far_end.then = [_REFUSES_OPTIONS, _STREAMED]
            await provider.complete(replace(account, key=f"sk-{number}"), QUESTION, say=lambda _: None)
        far_end.calls.clear()
        for number in (1, 2, 0):
            await provider.complete(replace(account, key=f"sk-{number}"), QUESTION, say=lambda _: None)
    assert [options for _, options in asked_for(far_end)] == [None, None, {"include_usage": True}]


async def test_all_tries_of_a_call_together_have_its_time() -> None:
    parts = [chunk("We"), chunk(" are"), *[b": OPENROUTER PROCESSING\n\n"] * 200]
    async with dripping(*parts) as (url, _):
        before = asyncio.get_running_loop().time()
        error, pieces = await failed(url, timeout_s=IMPATIENT_S)
        assert asyncio.get_running_loop().time() - before < IMPATIENT_S + 1
    assert (type(error), error.reason) == (Temporary, "provider_timeout")
    assert pieces == ["We", " are"]


@pytest.mark.parametrize("cut", [True, False])
async def test_a_stream_that_breaks_off_is_tried_again(cut: bool) -> None:
    async with dripping(chunk("We"), chunk(" are"), cut=cut) as (url, _):
        error, pieces = await failed(url)
    assert (type(error), error.reason) == (Temporary, "provider_cut")
    assert pieces == ["We", " are"]


async def test_an_answer_that_was_whole_when_its_connection_broke_is_kept() -> None:
    async with dripping(chunk("Closed."), chunk(finish="stop"), cut=True) as (url, _):
        reply, _ = await told(url)
    assert (reply.text, reply.input_tokens) == ("Closed.", None)


async def test_an_error_in_the_middle_has_its_fate() -> None:
    error_event = event({"error": {"code": 429, "message": "slow down"}, "choices": []})
    async with dripping(chunk("We are"), error_event, chunk(" closed."), DONE) as (url, _):
        error, pieces = await failed(url)
    assert (type(error), error.reason, pieces) == (RateLimited, "provider_rate_limited", ["We are"])


async def test_a_listener_that_raises_does_not_leave_the_connection_open() -> None:
    def fail(_: str) -> None:
        raise LookupError("a bug of the listener")

    async with dripping(*[chunk("We are")] * 100) as (url, _), opened("openai_compatible") as provider:
        with pytest.raises(LookupError):
            await provider.complete(account_at(url), QUESTION, say=fail)


@pytest.fixture
async def standin() -> AsyncIterator[str]:
    """Where the stand-in for OpenAI is."""
    async with Standins() as running:
        yield running.urls["openai"]


async def _tell(standin: str, route: str, body: object) -> None:
    raw = msgspec.json.encode(body)
    async with aiohttp.ClientSession() as http, http.post(f"{standin}{route}", data=raw) as said:
        assert said.status == 200, await said.text()


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("listens", [True, False])
async def test_every_provider_tells_its_text_or_nothing(name: str, listens: bool, standin: str) -> None:
    await _tell(standin, "/_configure", {"tokens_per_s": 500})
    pieces: list[str] = []
    account = replace(account_at(f"{standin}/v1"), provider=name)
    reply = await ask(name, account, say=pieces.append if listens else None)
    streams = listens and name != "openai"
    assert "".join(pieces).strip() == (reply.text if streams else "")
    assert reply.text
    assert reply.output_tokens is not None


async def test_a_slow_stream_is_told_while_it_comes(standin: str) -> None:
    await _tell(standin, "/_configure", {"tokens_per_s": 50, "reply": "We are open from Tuesday to Saturday."})
    times: list[float] = []
    before = asyncio.get_running_loop().time()
    reply = await ask(
        "openai_compatible", account_at(f"{standin}/v1"), say=lambda _: times.append(asyncio.get_running_loop().time())
    )
    took_s = asyncio.get_running_loop().time() - before
    assert reply.text == "We are open from Tuesday to Saturday."
    assert len(times) == 7
    assert times[0] - before < took_s / 2
    assert took_s > 0.15


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ({"kind": "cut_mid_stream", "after_chunks": 2}, Temporary, "provider_cut"),
        ({"kind": "error_mid_stream", "after_chunks": 2}, Temporary, "provider_server_error"),
        ({"kind": "error_mid_stream", "after_chunks": 2, "code": "insufficient_quota"}, Permanent, "provider_quota"),
        ({"kind": "error_mid_stream", "after_chunks": 2, "code": 429}, RateLimited, "provider_rate_limited"),
    ],
    ids=str,
)
async def test_a_fault_in_the_middle_has_its_fate_and_the_next_try_works(
    fault: dict[str, object], kind: type[JobError], reason: str, standin: str
) -> None:
    await _tell(standin, "/_configure", {"tokens_per_s": 500, "reply": "We are open."})
    await _tell(standin, "/_faults", {**fault, "times": 1})
    error, pieces = await failed(f"{standin}/v1")
    assert (type(error), error.reason) == (kind, reason)
    assert "".join(pieces) == "We are"
    assert (await told(f"{standin}/v1"))[0].text == "We are open."

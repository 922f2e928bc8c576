"""Reading a streamed answer: pure, whatever the network does to it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.providers import ProviderAccount, Reply
from replyline.providers.openai_answer import MAX_ANSWER_BYTES
from replyline.providers.openai_stream import MAX_LINE_BYTES, MAX_STREAM_BYTES, StreamedAnswer
from tests.providers.sse import DONE, chunk, counted, event, streamed

KEY = "sk-test-key-that-nobody-may-see"
ACCOUNT = ProviderAccount("openai_compatible", "gpt-test", base_url="http://localhost/v1", key=KEY)
_PLAIN = msgspec.json.encode(
    {"choices": [{"message": {"content": " Closed. "}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 7}}
)
_TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=12)
_NOISE = st.sampled_from(
    [b"", b": OPENROUTER PROCESSING\n\n", b"event: message\n", b"\n", b"id: 7\n", b"retry: 10\n", b"data:\n"]
)


def read(*parts: bytes) -> tuple[str, Reply]:
    """What was told of a body that came in these parts, and the reply."""
    answer = StreamedAnswer(ACCOUNT)
    told = "".join([answer.feed(part) for part in parts]) + answer.end()
    return told, answer.reply()


def failure(*parts: bytes) -> JobError:
    """How reading these parts fails."""
    with pytest.raises(JobError) as raised:
        read(*parts)
    return raised.value


def parts_of(body: bytes, cuts: list[float]) -> list[bytes]:
    """The body cut at these shares of its length."""
    at = sorted({int(cut * len(body)) for cut in cuts})
    return [body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True)]


def outcome(*parts: bytes) -> object:
    """The reply, or how it failed; the same body must have the same."""
    try:
        told, reply = read(*parts)
    except JobError as error:
        return type(error), error.reason, str(error)
    assert told.strip() == reply.text
    return reply


@given(texts=_TEXTS, cuts=st.lists(st.floats(0, 1)), noise=st.lists(_NOISE, min_size=1, max_size=4), crlf=st.booleans())
def test_wherever_it_is_cut_the_text_is_the_same(
    texts: list[str], cuts: list[float], noise: list[bytes], crlf: bool
) -> None:
    events = [chunk("", role="assistant"), *map(chunk, texts), chunk(finish="stop"), counted(), DONE]
    body = b"".join(noise[number % len(noise)] + one for number, one in enumerate(events))
    if crlf:
        body = body.replace(b"\n", b"\r\n")
    wanted = "".join(texts).replace("\x00", "").strip()
    if not wanted:
        assert failure(*parts_of(body, cuts)).reason == "provider_empty_answer"
        return
    told, reply = read(*parts_of(body, cuts))
    assert told.lstrip() == "".join(texts).replace("\x00", "").lstrip()  # what it begins with is no word yet
    assert (reply.text, reply.model) == (wanted, "gpt-test-2026")
    assert (reply.input_tokens, reply.cached_tokens, reply.output_tokens) == (1200, 1000, 34)


@given(
    body=st.one_of(st.binary(max_size=300), st.sampled_from([streamed("é", "ü"), _PLAIN])),
    cuts=st.lists(st.floats(0, 1)),
)
def test_wherever_it_is_cut_any_body_has_the_same_outcome(body: bytes, cuts: list[float]) -> None:
    assert outcome(*parts_of(body, cuts)) == outcome(body)


@given(length=st.integers(0, 2000))
def test_a_stream_that_ends_anywhere_is_whole_or_cut_but_never_half(length: int) -> None:
    whole = streamed("Grüezi, ", "we are ", "closed.")
    result = outcome(whole[:length])
    if isinstance(result, Reply):
        assert result.text == "Grüezi, we are closed."
        assert b'"finish_reason":"stop"' in whole[:length]
    else:
        assert result == (Temporary, "provider_cut", "the provider's answer broke off")


def test_one_byte_at_a_time_is_read_too() -> None:
    body = streamed("Wir öffnen ", "um 7 🥐")
    assert read(*(body[at : at + 1] for at in range(len(body))))[0] == "Wir öffnen um 7 🥐"


def test_each_piece_is_told_as_soon_as_its_line_ends() -> None:
    answer = StreamedAnswer(ACCOUNT)
    line = chunk("We are ")
    assert (answer.feed(line[:-2]), answer.feed(line[-2:-1]), answer.feed(line[-1:])) == ("", "We are ", "")
    assert answer.feed(chunk(" open") + chunk(".")) == " open."


def test_a_body_that_is_no_stream_is_told_at_its_end() -> None:
    answer = StreamedAnswer(ACCOUNT)
    assert "".join(answer.feed(part) for part in (b" \n\n", _PLAIN[:9], _PLAIN[9:])) == ""
    assert answer.end() == "Closed."
    assert (answer.reply().text, answer.reply().input_tokens, answer.reply().output_tokens) == ("Closed.", 7, None)


def test_without_counts_they_are_unknown() -> None:
    reply = read(chunk("Closed.", finish="stop") + DONE)[1]
    assert (reply.input_tokens, reply.output_tokens, reply.cached_tokens, reply.cost) == (None, None, None, None)


def test_counts_that_come_with_every_chunk_are_not_added_up() -> None:
    counts: list[dict[str, object]] = [{"prompt_tokens": 9, "completion_tokens": number} for number in (1, 2, 3)]
    reply = read(chunk("Closed."), *map(counted, counts), chunk(finish="stop"), DONE)[1]
    assert (reply.input_tokens, reply.output_tokens) == (9, 3)


@pytest.mark.parametrize(
    "body",
    [
        chunk("Closed.") + DONE,
        chunk("Closed.") + b"data: [DONE]",
        chunk("Closed.", finish="stop"),
        chunk("Closed.", finish="length"),
        chunk("Closed.", finish="stop").rstrip(),
        chunk("Closed.", finish="stop") + b'data: {"choi',
        b'data:{"choices":[{"delta":{"content":"Closed."},"finish_reason":"stop"}]}\n',
        event({"choices": [], "prompt_filter_results": []}) + event({"choices": None}) + chunk("Closed.") + DONE,
        chunk("Closed.") + event({"choices": [{"delta": None, "finish_reason": "stop"}]}),
        chunk("Closed.") + DONE + chunk("and more") + b"data: }\n",
        chunk(None, reasoning_content="Hm.") + chunk("Closed.", error=None) + DONE,
    ],
    ids=str,
)
def test_the_dialects_of_servers_are_read(body: bytes) -> None:
    assert read(body)[1].text == "Closed."


@pytest.mark.parametrize("body", [b"", b"\n", b"<html>", b"null", b"[1]", b"\xff\xfe", b": OPENROUTER PROCESSING\n\n"])
def test_a_body_without_an_answer_was_cut_off(body: bytes) -> None:
    assert failure(body).reason == "provider_cut"


@pytest.mark.parametrize(
    "line",
    [b"data: }\n", b"data: \xff\n", b"data: [1]\n", b"data: " + b"[" * 100_000 + b"\n", b'data: {"choices": 1}\n'],
)
def test_a_line_that_is_no_chunk_cannot_be_read(line: bytes) -> None:
    error = failure(chunk("We are"), line, DONE)
    assert (type(error), error.reason) == (Temporary, "provider_unreadable")


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        ({"code": 429, "message": "slow down"}, RateLimited, "provider_rate_limited"),
        ({"code": 402, "message": "no credits"}, Permanent, "provider_quota"),
        ({"code": 403, "message": "moderated"}, Permanent, "provider_auth"),
        ({"code": 502, "message": "model down"}, Temporary, "provider_server_error"),
        ({"code": "server_error", "message": "Provider disconnected"}, Temporary, "provider_server_error"),
        ({"type": "insufficient_quota", "message": "no more"}, Permanent, "provider_quota"),
        ("just text", Temporary, "provider_server_error"),
    ],
    ids=str,
)
def test_an_error_in_the_middle_has_its_fate(error: object, kind: type[JobError], reason: str) -> None:
    choices = [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]
    for body in (event({"error": error}), event({"error": error, "choices": choices})):
        raised = failure(chunk("We are"), body, DONE)
        assert (type(raised), raised.reason) == (kind, reason)


def test_a_key_that_an_error_quotes_is_not_told() -> None:
    raised = failure(event({"error": {"code": 401, "message": f"Incorrect API key provided: {KEY}"}}))
    assert "Incorrect API key" in str(raised)
    assert KEY not in str(raised)


@pytest.mark.parametrize(
    "last", [chunk(finish="content_filter"), chunk(None, refusal="I cannot"), chunk("", refusal="No")]
)
def test_what_is_filtered_or_refused_is_permanent(last: bytes) -> None:
    error = failure(chunk("We are"), last, DONE)
    assert (type(error), error.reason) == (Permanent, "content_filter")


@pytest.mark.parametrize(("finish", "reason"), [("stop", "provider_empty_answer"), ("length", "provider_no_room")])
def test_an_answer_without_words_is_empty(finish: str, reason: str) -> None:
    assert failure(chunk(" \n"), chunk("\x00", finish=finish), DONE).reason == reason


def test_nobody_can_fill_the_memory_with_one_line() -> None:
    assert failure(*[b"data: " + b"x" * 65_536] * (MAX_LINE_BYTES // 65_536 + 1)).reason == "provider_unreadable"
    assert failure(b"data: " + b"x" * MAX_LINE_BYTES + b"y\n").reason == "provider_unreadable"


def test_nobody_can_fill_the_memory_with_a_whole_answer() -> None:
    assert failure(b"{", *[b" " * 65_536] * (MAX_ANSWER_BYTES // 65_536 + 1)).reason == "provider_unreadable"


def test_nobody_can_fill_the_memory_with_text() -> None:
    long = chunk("x" * 500_000)
    assert failure(*[long] * (MAX_ANSWER_BYTES // 500_000), long, DONE).reason == "provider_unreadable"


def test_a_stream_without_end_has_one() -> None:
    comments = b": OPENROUTER PROCESSING\n\n" * 100_000
    assert failure(*[comments] * (MAX_STREAM_BYTES // len(comments) + 1), DONE).reason == "provider_unreadable"

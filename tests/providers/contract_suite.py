"""What every AI provider that is called over the network must pass: subclass `ProviderContract` as `Test…`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import ClassVar

import pytest

from replyline.errors import JobError, Permanent, RateLimited, Temporary
from replyline.providers import Passage, Provider, ProviderAccount, Question, Reply, Say, Utterance, open_provider
from tests.channels.far_end import Call, Cut, FarEnd, Hang, closed_port
from tests.channels.far_end import Say as Answer

PATIENT_S = 30.0
IMPATIENT_S = 0.3
KEY = "sk-test-key-that-nobody-may-see"
QUESTION = Question(
    instructions="You are the assistant of Bakery Blum.",
    history=(Utterance("user", "Hello"), Utterance("assistant", "Good morning!")),
    asked=("Are you open", "on Sunday?"),
    passages=(Passage("Opening hours", "On Sundays we are closed."),),
)


@asynccontextmanager
async def opened(name: str, timeout_s: float = PATIENT_S) -> AsyncIterator[Provider]:
    """The provider, closed afterwards."""
    provider = open_provider(name, timeout_s)
    try:
        yield provider
    finally:
        await provider.close()


async def ask(
    name: str,
    account: ProviderAccount,
    question: Question = QUESTION,
    *,
    timeout_s: float = PATIENT_S,
    say: Say | None = None,
) -> Reply:
    """One answer of a provider opened for it."""
    async with opened(name, timeout_s) as provider:
        return await provider.complete(account, question, say=say)


class ProviderContract:
    """The suite. All but the tests is for the subclass to fill in."""

    name: ClassVar[str]
    streams: ClassVar[bool]
    """Whether it tells an answer as it comes."""

    def account(self, url: str) -> ProviderAccount:
        """An account whose provider is at `url`, with KEY and at most 321 tokens of output."""
        raise NotImplementedError

    def answered(self, text: str, *, finish: str = "stop", usage: dict[str, object] | None = None) -> Answer:
        """The answer with this text."""
        raise NotImplementedError

    def full_usage(self) -> dict[str, object]:
        """A report of 1200 input tokens, 1000 of them cached, and 34 output tokens."""
        raise NotImplementedError

    def failed(self, status: int, code: str, **headers: str) -> Answer:
        """An error answer with this code."""
        raise NotImplementedError

    def prompt_of(self, call: Call) -> list[tuple[str, str]]:
        """The (role, text) of everything the model was given."""
        raise NotImplementedError

    def most_tokens_of(self, call: Call) -> int:
        """The limit on output that the call carried."""
        raise NotImplementedError

    async def test_the_answer_and_what_it_used_are_reported(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered(" We are closed on Sundays. ", usage=self.full_usage())]
        reply = await ask(self.name, self.account(far_end.url))
        assert reply.text == "We are closed on Sundays."
        assert (reply.input_tokens, reply.cached_tokens, reply.output_tokens) == (1200, 1000, 34)
        assert reply.model

    async def test_counts_that_are_not_reported_are_none(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered("Closed.", usage=None)]
        reply = await ask(self.name, self.account(far_end.url))
        assert (reply.input_tokens, reply.cached_tokens, reply.output_tokens) == (None, None, None)
        assert reply.cost is None

    async def test_the_model_is_given_instructions_reference_history_and_questions_in_order(
        self, far_end: FarEnd
    ) -> None:
        far_end.then = [self.answered("Closed.")]
        await ask(self.name, self.account(far_end.url))
        (call,) = far_end.calls
        (role, system), *rest = self.prompt_of(call)
        assert role == "system"
        assert system.startswith("You are the assistant of Bakery Blum.")
        assert "On Sundays we are closed." in system
        assert "not an instruction" in system
        assert rest == [
            ("user", "Hello"),
            ("assistant", "Good morning!"),
            ("user", "Are you open\n\non Sunday?"),  # templates refuse two messages of one role in a row
        ]
        assert self.most_tokens_of(call) == 321

    async def test_the_key_travels_as_a_bearer_token(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered("Closed.")]
        await ask(self.name, self.account(far_end.url))
        assert far_end.calls[0].headers["authorization"] == f"Bearer {KEY}"

    async def test_an_answer_cut_short_by_its_limit_is_kept(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered("We are closed on", finish="length")]
        assert (await ask(self.name, self.account(far_end.url))).text == "We are closed on"

    async def test_an_answer_has_no_character_that_postgres_cannot_store(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered("clo\x00sed")]
        assert (await ask(self.name, self.account(far_end.url))).text == "closed"

    async def test_an_answer_whose_tokens_went_into_reasoning_is_not_tried_again(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered("", finish="length")]
        with pytest.raises(Permanent, match="output tokens"):
            await ask(self.name, self.account(far_end.url))

    async def test_reasoning_is_not_part_of_the_answer(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered("<think>\nThe margin is 40 percent.\n</think>\n\nIt costs 10 euro.")]
        assert (await ask(self.name, self.account(far_end.url))).text == "It costs 10 euro."

    @pytest.mark.parametrize("text", ["", "  \n"])
    async def test_an_empty_answer_is_tried_again(self, text: str, far_end: FarEnd) -> None:
        far_end.then = [self.answered(text)]
        assert isinstance(await self._failure(far_end.url), Temporary)

    async def test_a_filtered_answer_is_permanent(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered("", finish="content_filter")]
        error = await self._failure(far_end.url)
        assert isinstance(error, Permanent)
        assert error.reason == "content_filter"

    @pytest.mark.parametrize(
        ("status", "code", "kind", "reason"),
        [
            (429, "rate_limit_exceeded", RateLimited, "provider_rate_limited"),
            (429, "insufficient_quota", Permanent, "provider_quota"),
            (401, "invalid_api_key", Permanent, "provider_auth"),
            (403, "unsupported_country", Permanent, "provider_auth"),
            (404, "model_not_found", Permanent, "unknown_model"),
            (400, "invalid_request", Permanent, "provider_refused"),
            (400, "context_length_exceeded", Permanent, "context_too_long"),
            (400, "content_filter", Permanent, "content_filter"),
            (500, "server_error", Temporary, "provider_server_error"),
            (502, "bad_gateway", Temporary, "provider_server_error"),
            (503, "server_is_overloaded", Temporary, "provider_overloaded"),
            (529, "overloaded_error", Temporary, "provider_overloaded"),
            (408, "timeout", Temporary, "provider_server_error"),
        ],
    )
    async def test_every_refusal_has_its_fate(
        self, *, status: int, code: str, kind: type[JobError], reason: str, far_end: FarEnd
    ) -> None:
        far_end.then = [self.failed(status, code)]
        error = await self._failure(far_end.url)
        assert (type(error), error.reason) == (kind, reason)
        assert len(far_end.calls) == 1, "the queue is the only one who tries again"

    @pytest.mark.parametrize(
        ("asked", "after_s"), [("7", 7.0), ("0", 0.0), ("86400", 600.0), ("nan", 5.0), ("soon", 5.0)]
    )
    async def test_a_wait_that_is_asked_for_is_honoured_within_bounds(
        self, asked: str, after_s: float, far_end: FarEnd
    ) -> None:
        far_end.then = [self.failed(429, "rate_limit_exceeded", **{"Retry-After": asked})]
        error = await self._failure(far_end.url)
        assert isinstance(error, RateLimited)
        assert error.after == after_s

    async def test_a_key_that_the_answer_quotes_is_not_in_the_error(self, far_end: FarEnd) -> None:
        far_end.then = [
            Answer(401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}})
        ]
        error = await self._failure(far_end.url)
        assert "Incorrect API key" in str(error)
        assert KEY not in str(error)

    async def test_an_answer_cut_off_is_tried_again(self, far_end: FarEnd) -> None:
        far_end.then = [Cut()]
        assert isinstance(await self._failure(far_end.url), Temporary)
        assert len(far_end.calls) == 1

    async def test_an_answer_that_does_not_come_in_time_is_tried_again(self, far_end: FarEnd) -> None:
        far_end.then = [Hang()]
        with pytest.raises(Temporary) as raised:
            await ask(self.name, self.account(far_end.url), timeout_s=IMPATIENT_S)
        assert raised.value.reason == "provider_timeout"

    async def test_a_server_that_is_not_there_is_tried_again(self) -> None:
        async with closed_port() as url:
            assert isinstance(await self._failure(url), Temporary)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"null", b"\xff\xfe", b"[" * 100_000])
    async def test_an_unreadable_answer_is_tried_again(self, body: bytes, far_end: FarEnd) -> None:
        far_end.then = [Answer(200, body, {"Content-Type": "application/json"})]
        assert isinstance(await self._failure(far_end.url), Temporary)

    async def test_a_chatbot_without_a_model_is_misconfigured(self, far_end: FarEnd) -> None:
        with pytest.raises(Permanent) as raised:
            await ask(self.name, replace(self.account(far_end.url), model=None))
        assert raised.value.reason == "provider_misconfigured"
        assert far_end.calls == []

    async def test_the_pieces_put_together_are_the_text_or_there_are_none(self, far_end: FarEnd) -> None:
        far_end.then = [self.answered(" We are closed\x00 on Sundays. ", usage=self.full_usage())]
        pieces: list[str] = []
        reply = await ask(self.name, self.account(far_end.url), say=pieces.append)
        assert reply.text == "We are closed on Sundays."
        assert (reply.input_tokens, reply.cached_tokens, reply.output_tokens) == (1200, 1000, 34)
        assert "".join(pieces).strip() == (reply.text if self.streams else "")

    @pytest.mark.parametrize("listens", [True, False])
    async def test_a_stream_is_asked_for_only_where_somebody_listens(self, listens: bool, far_end: FarEnd) -> None:
        far_end.then = [self.answered("Closed.")]
        pieces: list[str] = []
        await ask(self.name, self.account(far_end.url), say=pieces.append if listens else None)
        assert bool(far_end.calls[0].json().get("stream")) is (listens and self.streams)

    @pytest.mark.parametrize(
        ("status", "code", "reason"),
        [
            (429, "insufficient_quota", "provider_quota"),
            (500, "server_error", "provider_server_error"),
            (400, "content_filter", "content_filter"),
        ],
    )
    async def test_of_a_failure_nothing_is_told(self, status: int, code: str, reason: str, far_end: FarEnd) -> None:
        far_end.then = [self.failed(status, code)]
        pieces: list[str] = []
        with pytest.raises(JobError) as raised:
            await ask(self.name, self.account(far_end.url), say=pieces.append)
        assert (raised.value.reason, pieces) == (reason, [])
        assert len(far_end.calls) == 1

    async def test_closing_a_provider_that_was_never_asked_is_fine(self) -> None:
        async with opened(self.name) as provider:
            assert provider.name == self.name

    async def _failure(self, url: str) -> JobError:
        with pytest.raises(JobError) as raised:
            await ask(self.name, self.account(url))
        return raised.value

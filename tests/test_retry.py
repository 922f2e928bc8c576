"""What happens to a job that fails, decided without clock, store or queue."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replyline.errors import Permanent, RateLimited, Temporary
from replyline.queues import SPECS, QueueSpec
from replyline.retry import GiveUp, PostponeFor, RetryAfter, decide

SPEC = QueueSpec("incoming-messages", jitter=0)


@pytest.mark.parametrize(("attempt", "wait_s"), [(1, 1.0), (2, 2.0), (3, 4.0)])
def test_the_first_three_failures_are_retried_after_one_two_and_four_seconds(attempt: int, wait_s: float) -> None:
    assert decide(Temporary("x"), attempt=attempt, postponed_s=0, spec=SPEC) == RetryAfter(wait_s)


def test_the_fourth_failure_gives_the_job_up() -> None:
    assert decide(Temporary("x"), attempt=4, postponed_s=0, spec=SPEC) == GiveUp("attempts_exhausted")


def test_an_unforeseen_error_is_retried_like_a_temporary_one() -> None:
    assert decide(ZeroDivisionError(), attempt=1, postponed_s=0, spec=SPEC) == RetryAfter(1.0)


def test_a_permanent_error_gives_up_at_once_with_its_own_reason() -> None:
    assert decide(Permanent("x", reason="unknown_recipient"), attempt=1, postponed_s=0, spec=SPEC) == GiveUp(
        "unknown_recipient"
    )


def test_a_rate_limit_postpones_for_as_long_as_it_says() -> None:
    assert decide(RateLimited("x", after=7.5), attempt=4, postponed_s=0, spec=SPEC) == PostponeFor(7.5)


def test_a_job_postponed_beyond_the_patience_of_its_queue_is_given_up() -> None:
    spec = QueueSpec("incoming-messages", patience_s=60)
    assert decide(RateLimited("x", after=10), attempt=1, postponed_s=51, spec=spec) == GiveUp("patience_exhausted")


@given(st.integers(0, 2**32), st.integers(1, 3), st.floats(0, 1))
def test_a_wait_stays_within_its_jitter(seed: int, attempt: int, jitter: float) -> None:
    spec = QueueSpec("incoming-messages", jitter=jitter)
    decision = decide(Temporary("x"), attempt=attempt, postponed_s=0, spec=spec, rng=random.Random(seed))
    assert isinstance(decision, RetryAfter)
    wait = spec.waits_s[attempt - 1]
    assert wait * (1 - jitter) - 1e-9 <= decision.seconds <= wait * (1 + jitter) + 1e-9


def test_webhooks_are_tried_for_more_than_three_days() -> None:
    spec = SPECS["webhook-delivery"]
    assert sum(spec.waits_s) > 3 * 86400
    assert spec.patience_s > 3 * 86400

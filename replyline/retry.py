"""What to do when a job fails: whether to try again, and when. Pure: no clock, no store, no queue."""

import random
from dataclasses import dataclass

from replyline.errors import Permanent, RateLimited, Temporary
from replyline.queues import QueueSpec


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Run the job again in `seconds`; an attempt was used."""

    seconds: float


@dataclass(frozen=True, slots=True)
class PostponeFor:
    """Run the job again in `seconds`; no attempt was used."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job becomes a dead letter, with this reason."""

    reason: str


Decision = RetryAfter | PostponeFor | GiveUp

_SHORTEST_POSTPONEMENT_S = 0.01


def decide(
    error: BaseException,
    *,
    attempt: int,
    postponed_s: float,
    spec: QueueSpec,
    rng: random.Random | None = None,
) -> Decision:
    """Decide the fate of a job whose try number `attempt` (1 or more) ended in `error`.

    `postponed_s` is how long the job has already been put off without using an attempt, in seconds. The wait after try n is
    `spec.waits_s[n - 1]`, spread by ± `spec.jitter`; a job whose waits have run out is given up.
    """
    match error:
        case Permanent():
            return GiveUp(error.reason)
        case RateLimited():
            if postponed_s + error.after > spec.patience_s:
                return GiveUp("patience_exhausted")
            return PostponeFor(max(error.after, _SHORTEST_POSTPONEMENT_S))
        case _:
            tries = spec.tries if not isinstance(error, Temporary) else min(spec.tries, error.tries or spec.tries)
            if attempt >= tries:
                return GiveUp("attempts_exhausted")
            return RetryAfter(_spread(spec.waits_s[attempt - 1], spec.jitter, rng))


def _spread(wait_s: float, jitter: float, rng: random.Random | None) -> float:
    draw = (rng or random).uniform(-jitter, jitter)
    return max(0.0, wait_s * (1 + draw))

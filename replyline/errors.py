"""The three ways a job can fail; the border translates every foreign error into one of them.

JobError
├── Temporary      try again after the queue's waits
├── RateLimited    wait, without using up an attempt
└── Permanent      give up at once
    └── ChannelDown    the channel as a whole fails: its messages are held until it works again

An exception that is none of these is a bug or an unforeseen failure: it is logged with its stack and treated as Temporary.
"""

from typing import Literal


class JobError(Exception):
    """A job did not succeed. `reason` is a short snake_case word that operators group by."""

    outcome_unknown = False
    """Whether a send may have been carried out, by this run or an earlier one, although no answer came."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Temporary(JobError):
    """Timeout, lost connection, 5xx, 408 or 425: trying again may help."""

    def __init__(
        self, message: str, *, reason: str = "temporary", outcome_unknown: bool = False, tries: int | None = None
    ) -> None:
        """`tries`: no more than so many."""
        super().__init__(message, reason=reason)
        self.outcome_unknown = outcome_unknown
        self.tries = tries


Scope = Literal["job", "recipient", "account"]
"""Whom a limit is about: this job alone, everything to the same recipient, or everything of the same account."""


class RateLimited(JobError):
    """Somebody asks us to wait, or our own limit does: postponed by `after` seconds, no attempt used."""

    def __init__(
        self,
        message: str,
        *,
        after: float,
        reason: str = "rate_limited",
        scope: Scope = "job",
        growth: float = 1.0,
        outcome_unknown: bool = False,
    ) -> None:
        """`growth`: each time in a row that the other side says so, the wait of the whole `scope` is so many times as long."""
        super().__init__(message, reason=reason)
        self.after = after
        self.outcome_unknown = outcome_unknown
        self.scope = scope
        self.growth = growth


class Permanent(JobError):
    """Trying again cannot help: wrong credentials, unknown recipient, refused content, unreadable payload."""

    def __init__(self, message: str, *, reason: str = "permanent") -> None:
        super().__init__(message, reason=reason)


class ChannelDown(Permanent):
    """The channel cannot send at all (its token, number, account or session): nothing of it is tried until that is mended."""

    def __init__(self, message: str, *, reason: str, retry_after: float = 0.0) -> None:
        """`retry_after`: seconds to wait before the first check whether it works again."""
        super().__init__(message, reason=reason)
        self.retry_after = retry_after

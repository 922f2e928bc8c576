"""The three ways a job can fail; the border translates every foreign error into one of them.

JobError
├── Temporary      try again after the queue's waits
├── RateLimited    wait, without using up an attempt
└── Permanent      give up at once

An exception that is none of these is a bug or an unforeseen failure: it is logged with its stack and treated as Temporary.
"""


class JobError(Exception):
    """A job did not succeed. `reason` is a short snake_case word that operators group by."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Temporary(JobError):
    """Timeout, lost connection, 5xx, 408 or 425: trying again may help."""

    def __init__(self, message: str, *, reason: str = "temporary", outcome_unknown: bool = False) -> None:
        """`outcome_unknown` is set by a send that may have been carried out although no answer came."""
        super().__init__(message, reason=reason)
        self.outcome_unknown = outcome_unknown


class RateLimited(JobError):
    """Somebody asks us to wait, or our own limit does: postponed by `after` seconds, no attempt used."""

    def __init__(self, message: str, *, after: float, reason: str = "rate_limited") -> None:
        super().__init__(message, reason=reason)
        self.after = after


class Permanent(JobError):
    """Trying again cannot help: wrong credentials, unknown recipient, refused content, unreadable payload."""

    def __init__(self, message: str, *, reason: str = "permanent") -> None:
        super().__init__(message, reason=reason)

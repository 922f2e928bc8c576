"""Faults that a stand-in can be told: which calls, what goes wrong with them, how often."""

import random
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0, le=600)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Chunks = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
MAX_RULES = 100


class Match(msgspec.Struct, forbid_unknown_fields=True):
    """Which calls: those whose path (of a callback: its URL) and whose body contain these texts."""

    path: str = ""
    contains: str = ""


class Rule(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all faults have. `times` is how many calls it is for (all otherwise), `rate` the share it hits, drawn with `seed`."""

    match: Match = msgspec.field(default_factory=Match)
    times: Positive | None = None
    rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    seed: int = 0


class Slow(Rule, kw_only=True, tag="slow"):
    """Carry it out and answer after `seconds`."""

    seconds: Seconds


class Error(Rule, kw_only=True, tag="error"):
    """Carry nothing out and answer this; without `body`, in the form of the service."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    code: int | str | None = None
    """What the service calls this error: 130429 (Meta), "paced" (gateway), "insufficient_quota" (OpenAI)."""
    body: object = msgspec.UNSET
    headers: dict[str, str] = {}
    seconds: Seconds = 0.0


class CutBefore(Rule, kw_only=True, tag="cut_before"):
    """Carry nothing out and drop the connection."""

    seconds: Seconds = 0.0


class CutAfterAccept(Rule, kw_only=True, tag="cut_after_accept"):
    """Carry it out, with all that follows, and drop the connection instead of answering."""

    seconds: Seconds = 0.0


class StatusFailed(Rule, kw_only=True, tag="status_failed"):
    """Accept the send; what follows is the status `failed`, and nobody sees the message."""

    code: int = 131026


class StatusFirst(Rule, kw_only=True, tag="status_first"):
    """Post what follows a send, and have it answered, before the send itself is answered."""


class CutMidStream(Rule, kw_only=True, tag="cut_mid_stream"):
    """Drop the connection after so many pieces of a streamed answer, before its end at the latest."""

    after_chunks: Chunks = 3


class ErrorMidStream(Rule, kw_only=True, tag="error_mid_stream"):
    """End a streamed answer with an error after so many pieces, before its end at the latest."""

    after_chunks: Chunks = 3
    code: int | str = "server_error"
    """One of OpenAI's, or an HTTP status, as OpenRouter has it."""


class CallbackRepeat(Rule, kw_only=True, tag="callback_repeat"):
    """Post the callback `repeat` times at once."""

    repeat: Annotated[int, msgspec.Meta(ge=2, le=100)] = 5


class CallbackReorder(Rule, kw_only=True, tag="callback_reorder"):
    """Hold callbacks until there are `size` or `within_s` has passed, and post the last first."""

    size: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 10
    within_s: Seconds = 0.2


class CallbackBatch(Rule, kw_only=True, tag="callback_batch"):
    """Hold callbacks until there are `size` or `within_s` has passed, and post all in one."""

    size: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 10
    within_s: Seconds = 0.2


class CallbackDelay(Rule, kw_only=True, tag="callback_delay"):
    """Post the callback `seconds` later; others overtake it."""

    seconds: Seconds


class CallbackDrop(Rule, kw_only=True, tag="callback_drop"):
    """Never post the callback."""


CallFault = Slow | Error | CutBefore | CutAfterAccept
CallbackFault = CallbackRepeat | CallbackReorder | CallbackBatch | CallbackDelay | CallbackDrop
StreamFault = CutMidStream | ErrorMidStream
Fault = CallFault | StatusFailed | StatusFirst | StreamFault | CallbackFault

CALL_FAULTS: tuple[type[CallFault], ...] = (Slow, Error, CutBefore, CutAfterAccept)
STREAM_FAULTS: tuple[type[StreamFault], ...] = (CutMidStream, ErrorMidStream)
CALLBACK_FAULTS: tuple[type[CallbackFault], ...] = (
    CallbackRepeat,
    CallbackReorder,
    CallbackBatch,
    CallbackDelay,
    CallbackDrop,
)

_decoder = msgspec.json.Decoder(list[Fault] | Fault)
_Kind = TypeVar("_Kind", bound=Rule)


def read_faults(raw: bytes) -> list[Fault]:
    """One fault, or a list of them.

    Raises:
        ValueError: they are none; the message says what is wrong.
    """
    try:
        given = _decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a fault: {error}") from error
    return given if isinstance(given, list) else [given]


def kind_of(fault: Fault) -> str:
    """Its name on the wire."""
    return str(fault.__struct_config__.tag)


@dataclass(frozen=True, slots=True)
class _Armed:
    rule: Fault
    path: str
    contains: bytes
    dice: random.Random


class Faults:
    """The rules of one stand-in, tried in order; the first that fits a call decides."""

    def __init__(self) -> None:
        self._rules: list[_Armed] = []

    def __bool__(self) -> bool:
        """Whether there is any rule: without one, a call need not be looked at."""
        return bool(self._rules)

    def add(self, faults: list[Fault]) -> None:
        """Add them after those that are there. Raises ValueError where they are too many."""
        if len(self._rules) + len(faults) > MAX_RULES:
            raise ValueError(f"at most {MAX_RULES} faults at a time; DELETE /_faults removes them")
        self._rules += [
            _Armed(fault, fault.match.path, fault.match.contains.encode(), random.Random(fault.seed))
            for fault in faults
        ]

    def clear(self) -> None:
        """Remove every rule."""
        self._rules.clear()

    def listed(self) -> list[Fault]:
        """The rules that are left; `times` is how many calls each is still for."""
        return [armed.rule for armed in self._rules]

    def pick(self, path: str, body: bytes, kinds: tuple[type[_Kind], ...]) -> _Kind | None:
        """The rule of one of these kinds for this call, which counts as used."""
        for armed in self._rules:
            rule = armed.rule
            if not isinstance(rule, kinds) or armed.path not in path or armed.contains not in body:
                continue
            if rule.rate < 1 and armed.dice.random() >= rule.rate:
                continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times == 0:
                    self._rules = [other for other in self._rules if other is not armed]
            return rule
        return None

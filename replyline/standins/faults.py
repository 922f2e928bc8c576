"""Faults that a stand-in can be told: which calls, what goes wrong with them, how often."""

import random
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0, le=600)]
CALL_KINDS = ("slow", "error", "cut_before", "cut_after_accept")
CALLBACK_KINDS = ("callback_repeat", "callback_reorder", "callback_batch", "callback_delay", "callback_drop")
MAX_RULES = 100


class Match(msgspec.Struct, forbid_unknown_fields=True):
    """Which calls: those whose path and whose body contain these texts."""

    path: str = ""
    contains: str = ""


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One rule. `times` is how many calls it is for (all otherwise), `rate` the share of them it hits, drawn with `seed`."""

    kind: Literal[
        "slow",
        "error",
        "cut_before",
        "cut_after_accept",
        "callback_repeat",
        "callback_reorder",
        "callback_batch",
        "callback_delay",
        "callback_drop",
    ]
    match: Match = msgspec.field(default_factory=Match)
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    seed: int = 0
    seconds: Seconds = 0.0
    """slow, callback_delay: how long. callback_reorder, callback_batch: within how long."""
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 500
    code: int | None = None
    """whatsapp_cloud: a Graph error code, answered in Meta's own form."""
    body: object = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    repeat: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    """callback_repeat: how often each is posted."""
    size: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    """callback_batch: so many in one post."""


class Faults:
    """The rules of one stand-in, tried in order; the first that fits a call decides."""

    def __init__(self) -> None:
        self._rules: list[tuple[Fault, random.Random]] = []

    def add(self, raw: bytes) -> None:
        """Add one rule or a list of them.

        Raises:
            ValueError: they are not rules, or too many; the message says what is wrong.
        """
        try:
            given = msgspec.json.decode(raw, type=list[Fault] | Fault)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a fault: {error}") from error
        rules = given if isinstance(given, list) else [given]
        if len(self._rules) + len(rules) > MAX_RULES:
            raise ValueError(f"at most {MAX_RULES} faults at a time; DELETE /_faults removes them")
        self._rules += [(rule, random.Random(rule.seed)) for rule in rules]

    def clear(self) -> None:
        """Remove every rule."""
        self._rules.clear()

    def listed(self) -> Sequence[Fault]:
        """The rules that are left."""
        return [rule for rule, _ in self._rules]

    def pick(self, path: str, body: bytes, kinds: Sequence[str]) -> Fault | None:
        """The rule for this call, which counts as used."""
        if not self._rules:
            return None
        for rule, rng in self._rules:
            if rule.kind not in kinds or rule.match.path not in path or rule.match.contains.encode() not in body:
                continue
            if rule.rate < 1 and rng.random() >= rule.rate:
                continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times == 0:
                    self._rules = [entry for entry in self._rules if entry[0] is not rule]
            return rule
        return None

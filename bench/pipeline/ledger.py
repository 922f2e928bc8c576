"""What was asked and what was answered, contact by contact, as the people on their telephones see it."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# What a contact writes names the contact and counts its messages; the model repeats it, so the answer says what it answers.
_NAMED = re.compile(r"question (\d+) of (\d+)")


def question(contact: str, number: int) -> str:
    """The text of a contact's message; numbers count from 1."""
    return f"Do you open on Sundays, and may I bring my dog along? This is question {number} of {contact}."


def named_in(text: str) -> tuple[str, int] | None:
    """The contact and the number of the last question in a text."""
    found = _NAMED.findall(text)
    return (found[-1][1], int(found[-1][0])) if found else None


@dataclass(slots=True)
class _Contact:
    asked: int = 0
    waiting: dict[int, float] = field(default_factory=dict)
    """When each unanswered question was posted, in their order."""
    thought_s: dict[int, float] = field(default_factory=dict)
    model_since: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class Errors:
    """What must not happen, counted."""

    doubled: int = 0
    out_of_order: int = 0
    unknown: int = 0
    """Sent to somebody who asked nothing, or naming no question."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.doubled + self.out_of_order + self.unknown


class Ledger:
    """Kept by the load and the stand-ins together, in one process, with one clock (`time.perf_counter`)."""

    def __init__(self) -> None:
        self.forget()
        self.on_sent: Callable[[str, float], None] = _ignore
        """Called with the contact and the added seconds of each answer: from post to send, without the model's time."""
        self.on_model: Callable[[int], None] = _ignore_change
        """Called with 1 when a question comes to the model, and with -1 when it leaves."""

    def forget(self) -> None:
        """Begin anew: nobody has asked anything."""
        self.errors = Errors()
        self.asked = 0
        self.answered = 0
        self.at_model = 0
        """How many questions the model thinks about now."""
        self.hooks = 0
        """Webhook events delivered."""
        self.given_up = False
        """Whether the load was ended on purpose before all was answered."""
        self._hooks: set[str] = set()
        self._contacts: dict[str, _Contact] = {}

    @property
    def lost(self) -> int:
        """Questions without an answer; those under way are among them."""
        return sum(len(contact.waiting) for contact in self._contacts.values())

    def ask(self, name: str) -> str:
        """The next question of a contact, which counts as posted now."""
        contact = self._contacts.setdefault(name, _Contact())
        contact.asked += 1
        contact.waiting[contact.asked] = time.perf_counter()
        self.asked += 1
        return question(name, contact.asked)

    def think(self, text: str) -> None:
        """The model is asked."""
        self.at_model += 1
        self.on_model(1)
        if (which := self._which(text)) is not None:
            contact, number = which
            contact.model_since[number] = time.perf_counter()

    def thought(self, text: str) -> None:
        """The model answers."""
        self.at_model -= 1
        self.on_model(-1)
        if (which := self._which(text)) is not None:
            contact, number = which
            since = contact.model_since.pop(number, None)
            if since is not None:
                contact.thought_s[number] = contact.thought_s.get(number, 0.0) + time.perf_counter() - since

    def sent(self, to: str, text: str) -> None:
        """A contact gets an answer."""
        named = named_in(text)
        contact = self._contacts.get(to)
        if named is None or contact is None or named[0] != to or not 1 <= named[1] <= contact.asked:
            self.errors.unknown += 1
            return
        number = named[1]
        if number not in contact.waiting:
            self.errors.doubled += 1
            return
        if number != next(iter(contact.waiting)):
            self.errors.out_of_order += 1
        posted = contact.waiting.pop(number)
        self.answered += 1
        added_s = time.perf_counter() - posted - contact.thought_s.pop(number, 0.0)
        self.on_sent(to, added_s)

    def delivered(self, event_id: str) -> None:
        """The customer's endpoint gets an event; one that comes again is the same event (Standard Webhooks, "webhook-id")."""
        if event_id not in self._hooks:
            self._hooks.add(event_id)
            self.hooks += 1

    def _which(self, text: str) -> tuple[_Contact, int] | None:
        named = named_in(text)
        contact = self._contacts.get(named[0]) if named else None
        return (contact, named[1]) if named and contact else None


def _ignore(_contact: str, _added_s: float) -> None:
    """Nobody listens."""


def _ignore_change(_change: int) -> None:
    """Nobody listens."""

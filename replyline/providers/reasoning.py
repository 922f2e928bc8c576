"""Keeping a model's reasoning from the person: `<think>…</think>` and its like, which some servers leave in the answer.

Reasoning stands at the beginning, between tags; where the chat template has the opening tag (DeepSeek-R1), only the closing one
comes. Ollama, LM Studio and vLLM without a reasoning parser pass both on.
"""

import re

from replyline.errors import Temporary

_NAMES = ("think", "thinking", "thought", "reasoning")
_OPENINGS = tuple(f"<{name}>" for name in _NAMES)
_CLOSINGS = tuple(f"</{name}>" for name in _NAMES)
_OPENING = re.compile(r"\s*<(think|thinking|thought|reasoning)>")
_LONGEST_TAG = max(map(len, _CLOSINGS))


class ReasoningShown(Temporary):
    """A stream turned out to have begun with reasoning; the next one is held back until that ends."""

    def __init__(self) -> None:
        super().__init__("the model's answer began with its reasoning, without a mark", reason="provider_reasoning")


def spoken(text: str) -> str:
    """What of a whole answer is meant for the person; "" where it is reasoning to its end."""
    at = 0
    while (opening := _OPENING.match(text, at)) is not None:
        closing = f"</{opening[1]}>"
        end = text.find(closing, opening.end())
        if end < 0:
            return ""
        at = end + len(closing)
    ends = [found + len(closing) for closing in _CLOSINGS if (found := text.rfind(closing, at)) >= 0]
    return text[max(ends, default=at) :]


class SpokenStream:
    """The same for an answer that comes in pieces.

    With `begins_with_reasoning`, everything is held back until a closing tag, or until the end if none comes.
    """

    def __init__(self, *, begins_with_reasoning: bool = False) -> None:
        self._text = ""
        self._closing: str | None = None
        self._held: list[str] | None = [] if begins_with_reasoning else None
        self._speaking = False

    def feed(self, piece: str) -> str:
        """What of this piece, and of what was held back before, the person may see.

        Raises:
            ReasoningShown: what the person saw was reasoning.
        """
        self._text += piece
        if self._held is not None:
            self._look_for_end_of_held(self._held)
        if not self._speaking and self._held is None:
            self._look_at_beginning()
        return self._speak() if self._speaking else ""

    def end(self) -> str:
        """What was held back and turned out not to be reasoning."""
        if self._held is not None:
            self._held.append(self._text)
            return spoken("".join(self._held))
        return "" if self._closing is not None else self._text

    def _look_for_end_of_held(self, held: list[str]) -> None:
        for closing in _CLOSINGS:
            at = self._text.find(closing)
            if at >= 0:
                self._text = self._text[at + len(closing) :]
                self._held = None
                return
        held.append(self._text[:-_LONGEST_TAG])
        self._text = self._text[-_LONGEST_TAG:]

    def _look_at_beginning(self) -> None:
        """Pass over the reasoning that stands here; what is left begins where it is not known yet how the text goes on.

        It is cut once: a text of many short thoughts would else be copied for each.
        """
        text, at = self._text, 0
        while True:
            if self._closing is not None:
                end = text.find(self._closing, at)
                if end < 0:
                    self._text = text[max(at, len(text) + 1 - len(self._closing)) :]
                    return
                at, self._closing = end + len(self._closing), None
            opening = _OPENING.match(text, at)
            if opening is None:
                break
            at, self._closing = opening.end(), f"</{opening[1]}>"
        self._text = start = text[at:].lstrip()
        self._speaking = bool(start) and not any(tag.startswith(start) for tag in _OPENINGS)

    def _speak(self) -> str:
        if any(closing in self._text for closing in _CLOSINGS):
            raise ReasoningShown
        text = self._text
        at = text.rfind("<", -_LONGEST_TAG)
        keep = at >= 0 and any(closing.startswith(text[at:]) for closing in _CLOSINGS)
        self._text = text[at:] if keep else ""
        return text[:at] if keep else text

"""Answers from the knowledge base alone: no model, no key, no network; what a new customer's bot starts with."""

from typing import ClassVar

from replyline.providers.contract import Passage, ProviderAccount, Question, Reply, Say

NOTHING_FOUND = "I could not find anything about that in our knowledge base."
_QUOTED = "Here is what our knowledge base says"
_MAX_CHARS = 1500


class KnowledgeOnly:
    """The provider `knowledge_only`."""

    name: ClassVar[str] = "knowledge_only"

    async def complete(self, account: ProviderAccount, question: Question, *, say: Say | None = None) -> Reply:
        """Quote the best passages, and say where they come from; without any, say so. It is all there at once."""
        room = min(
            _MAX_CHARS, account.max_output_tokens * 4
        )  # four characters a token is the usual estimate for English
        text = _quote(question.passages, room) if question.passages else NOTHING_FOUND
        if say is not None:
            say(text)
        return Reply(text=text, model=self.name, input_tokens=0, output_tokens=0, cached_tokens=0)

    async def close(self) -> None:
        """Nothing is open."""


def _quote(passages: tuple[Passage, ...], room: int) -> str:
    best = passages[0]
    lines = [f"{_QUOTED} ({best.title}):", best.text]
    for passage in passages[1:]:
        if sum(map(len, lines)) + len(passage.text) + len(passage.title) > room:
            break
        lines.append(passage.text if passage.title == best.title else f"{passage.title}: {passage.text}")
    return "\n\n".join(lines)[:room]

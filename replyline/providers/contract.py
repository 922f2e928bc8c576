"""What an AI provider must be able to do: answer a question, and say in our words what went wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Literal, Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class ProviderAccount:
    """How one chatbot reaches its provider."""

    provider: str
    model: str | None = None
    base_url: str | None = None
    key: str | None = field(default=None, repr=False)
    max_output_tokens: int = 800


@dataclass(frozen=True, slots=True)
class Utterance:
    """One earlier message of the conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of the chatbot's knowledge base that fits the question."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that the person sent."""

    mime_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Question:
    """One turn to be answered: all unanswered messages, what was said before, and what the knowledge base has on it."""

    instructions: str
    history: tuple[Utterance, ...]
    asked: tuple[str, ...]
    passages: tuple[Passage, ...] = ()
    pictures: tuple[Picture, ...] = ()
    """For a provider that can look; the others answer the words."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The provider's answer; counts it did not report are None, which is not zero."""

    text: str
    model: str
    input_tokens: int | None = None
    """Including cached tokens."""
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost: Decimal | None = None


Say: TypeAlias = Callable[[str], None]
"""Who is told each piece of an answer as it comes; called in the event loop, so it must neither block nor raise."""


class Provider(Protocol):
    """A kind of AI provider."""

    name: ClassVar[str]

    async def complete(self, account: ProviderAccount, question: Question, *, say: Say | None = None) -> Reply:
        """Answer the question.

        With `say`, a provider that can stream tells each piece of the answer as it comes: the pieces put together, without
        the white space at both ends, are the reply's text. One that cannot stream ignores it, or tells the text in one piece.
        Without `say`, no stream is asked for. Where an error is raised, the pieces that were told are void: it is for the
        caller to withdraw them, and the next try starts from nothing.

        Raises:
            Temporary: overloaded, server error, timeout.
            RateLimited: the provider asks us to wait.
            Permanent: bad credentials, used-up quota, refused content, unknown model.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...

"""The AI providers that can answer, by name.

To add a provider: one file here that offers a `Provider`, one line in `PROVIDERS`. Its test runs the contract suite in
`tests/providers/`.
"""

from collections.abc import Callable

from replyline.errors import Permanent
from replyline.providers.contract import Passage, Picture, Provider, ProviderAccount, Question, Reply, Say, Utterance
from replyline.providers.knowledge_only import KnowledgeOnly
from replyline.providers.openai_compatible import OpenAiCompatible
from replyline.providers.openai_sdk import OpenAiSdk

PROVIDERS: dict[str, Callable[[float], Provider]] = {
    KnowledgeOnly.name: lambda _timeout_s: KnowledgeOnly(),
    OpenAiCompatible.name: OpenAiCompatible,
    OpenAiSdk.name: OpenAiSdk,
}


def open_provider(name: str, timeout_s: float) -> Provider:
    """The provider of that name; a call of it may take `timeout_s` seconds.

    Raises:
        Permanent: there is no such provider, or its packages are not installed.
    """
    make = PROVIDERS.get(name)
    if make is None:
        raise Permanent(f"no such provider: {name}; there are {', '.join(PROVIDERS)}", reason="unknown_provider")
    return make(timeout_s)


__all__ = [
    "PROVIDERS",
    "KnowledgeOnly",
    "Passage",
    "Picture",
    "Provider",
    "ProviderAccount",
    "Question",
    "Reply",
    "Say",
    "Utterance",
    "open_provider",
]

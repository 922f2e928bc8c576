"""What the OpenAI stand-in says when it is told to quote: a kind answer out of the reference material it was given.

No model: it looks for the passage with most of the question's words, and says its sentences that fit. English only.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

_FENCED = re.compile(r"<<<reference\n(.*?)\n?reference>>>", re.DOTALL)
_TITLE = re.compile(r"(?:\A|\n\n)\[([^\n]*)\]\n")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"\w+")
_GREETING = re.compile(r"\W*(hi|hello|hey|hallo|good (morning|afternoon|evening|day))\b[^?]{0,20}", re.IGNORECASE)
_THANKS = re.compile(r"\W*(thanks|thank you|thx|cheers|great|perfect|ok|okay|bye|goodbye)\b[^?]{0,40}", re.IGNORECASE)
_SAYS_NO = re.compile(r"\b(no|not|cannot|never|closed|\w+n't)\b", re.IGNORECASE)
_MAY_BE_SMALL = re.compile(r"(We|On|In|At|The|There|Our|All|It|You|No|For|From)\b")
_MOST_CHARS = 500
_EMPTY = frozenset(
    _WORD.findall(
        "a about all am an and any anything are as at be been but by can could did do does for from get give had has have"
        " hello hey hi how i if in into is it its just know like may me might more much my need no not of off on one or our"
        " out please should so some tell than thank thanks that the their them then there these they this to up us want was"
        " we were what when where which who whom why will with would you your"
    )
)

GREETED = "Hello! It is nice to hear from you. How can I help you today?"
THANKED = "You are very welcome! Just write to me if there is anything else."
UNKNOWN = "I am sorry, I do not know that. I am happy to pass your question on to the team, so that somebody gets back to you."
_OPENERS = ("Happy to help!", "Of course!", "Sure!", "Good question!")
_MORE = "Is there anything else you would like to know?"


@dataclass(frozen=True, slots=True)
class _Passage:
    title: str
    text: str


def helpful_answer(system: str, asked: str) -> str:
    """What to say to `asked`, with what the system text has as reference."""
    if _GREETING.fullmatch(asked):
        return GREETED
    if _THANKS.fullmatch(asked):
        return THANKED
    words = _words(asked) - _EMPTY
    passages = _passages(system)
    best = max(passages, key=lambda passage: _fit(passage, words), default=None)
    if best is None or not _fit(best, words):
        return UNKNOWN
    chosen = _chosen(_sentences(best.text), words)
    return _kindly(chosen, asked) if chosen else UNKNOWN


def _passages(system: str) -> list[_Passage]:
    fenced = _FENCED.search(system)
    if fenced is None:
        return []
    parts = _TITLE.split(fenced[1])
    return [_Passage(title, text) for title, text in zip(parts[1::2], parts[2::2], strict=True)]


def _fit(passage: _Passage, words: frozenset[str]) -> float:
    """How many of the words it has; one in its title counts a little more."""
    title, text = _words(passage.title), _words(passage.text)
    return len(_shared(words, title | text)) + len(_shared(words, title)) / 4


def _sentences(text: str) -> list[str]:
    """What it states, in whole sentences: questions and headings are there to be found by."""
    stated = [part.strip(" \t-*•") for part in _SENTENCE.split(text)]
    return [part if part[-1] in ".!:" else f"{part}." for part in stated if part and part[-1] != "?" and part[0] != "#"]


def _chosen(sentences: Sequence[str], words: frozenset[str]) -> list[str]:
    """Those that have every word which any has, and what there is instead where they say no; else all, up to a length."""
    shared = [_shared(words, _words(sentence)) for sentence in sentences]
    known = frozenset().union(*shared)
    exact = [sentence for sentence, has in zip(sentences, shared, strict=True) if len(known) > 1 and has == known]
    if exact and all(_SAYS_NO.search(sentence) for sentence in exact):
        others = [pair for pair in zip(sentences, shared, strict=True) if pair[0] not in exact and pair[1]]
        exact += [max(others, key=lambda pair: len(pair[1]))[0]] if others else []
    return _as_many_as_fit(exact or sentences)


def _as_many_as_fit(sentences: Sequence[str]) -> list[str]:
    """The first always; none in half."""
    size = 0
    for count, sentence in enumerate(sentences):
        size += len(sentence) + 1
        if count and size > _MOST_CHARS:
            return list(sentences[:count])
    return list(sentences)


def _kindly(sentences: Sequence[str], asked: str) -> str:
    """As a person would say it; always the same to the same question."""
    first, *others = sentences
    if not _SAYS_NO.search(first):
        opener = _OPENERS[zlib.crc32(asked.encode()) % len(_OPENERS)]
        said = [opener, *sentences]
    elif _MAY_BE_SMALL.match(first):
        said = [f"I am afraid {first[0].lower()}{first[1:]}", *others]
    else:
        said = list(sentences)
    return " ".join(said if len(sentences) > 2 else (*said, _MORE))


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))


def _shared(words: frozenset[str], others: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in words if any(_alike(word, other) for other in others))


def _alike(one: str, other: str) -> bool:
    """Whether they are forms of one word: open and opening, allergies and allergens."""
    short, long = sorted((one, other), key=len)
    if long.startswith(short):
        return len(short) == len(long) or (len(short) > 2 and len(long) - len(short) <= min(4, len(short) - 1))
    stem = short[:6]
    return len(stem) == 6 and long.startswith(stem) and len(long) - 6 <= 4

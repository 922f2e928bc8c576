"""A model's reasoning never reaches the person, whole or streamed, wherever the stream is cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replyline.providers.reasoning import ReasoningShown, SpokenStream, spoken

_ANSWERS = [
    ("<think>\nsecret\n</think>\n\nIt costs 10 euro.", "It costs 10 euro."),
    ("  <thinking>a</thinking> <thought>b</thought>Yes.", "Yes."),
    ("<think></think>Hello", "Hello"),
    ("<think>never closed", ""),
    ("I <think> so: 3 < 4 </b>", "I <think> so: 3 < 4 </b>"),
    ("<thin ice>", "<thin ice>"),
    ("<", "<"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "shown"), _ANSWERS)
def test_a_whole_answer_is_shown_without_its_reasoning(text: str, shown: str) -> None:
    assert spoken(text).strip() == shown


def test_a_closing_tag_alone_ends_reasoning_that_the_template_began() -> None:
    assert spoken("The user greets me.\n</think>\n\nHello!").strip() == "Hello!"


@given(answer=st.sampled_from(_ANSWERS), cuts=st.lists(st.floats(0, 1), max_size=12))
def test_a_stream_shows_the_same_wherever_it_is_cut(answer: tuple[str, str], cuts: list[float]) -> None:
    text, shown = answer
    at = [0, *sorted(int(cut * len(text)) for cut in cuts), len(text)]
    stream = SpokenStream()
    told = "".join([stream.feed(text[start:end]) for start, end in itertools.pairwise(at)]) + stream.end()
    assert told.strip() == shown


@given(cuts=st.lists(st.floats(0, 1), max_size=12))
def test_a_stream_known_to_begin_with_reasoning_is_held_back_until_that_ends(cuts: list[float]) -> None:
    text = "The margin is secret.\n</think>\n\nIt costs 10 euro."
    at = [0, *sorted(int(cut * len(text)) for cut in cuts), len(text)]
    stream = SpokenStream(begins_with_reasoning=True)
    told = "".join([stream.feed(text[start:end]) for start, end in itertools.pairwise(at)]) + stream.end()
    assert told.strip() == "It costs 10 euro."


def test_a_stream_held_back_in_vain_is_told_at_its_end() -> None:
    stream = SpokenStream(begins_with_reasoning=True)
    assert stream.feed("Hello, ") + stream.feed("you!") + stream.end() == "Hello, you!"


def test_reasoning_that_was_already_shown_makes_the_stream_void() -> None:
    stream = SpokenStream()
    assert stream.feed("The margin is") == "The margin is"
    with pytest.raises(ReasoningShown):
        stream.feed(" secret.</think>Hello")

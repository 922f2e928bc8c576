"""What outsiders write is matched, cut and rendered in time that grows with its length, not with the square of it."""

import asyncio
import time
from collections.abc import Callable

import msgspec
import pytest

from replyline.answer_length import shorten
from replyline.channels import CHANNELS
from replyline.channels.whatsapp_qr.vcard import card_in
from replyline.channels.whatsapp_text import split_text, whatsapp_text
from replyline.evolution.content import said_in
from replyline.inbound_content import MAX_ANSWERS_CHARS, Form, InboundContent, Quoted, in_words, told
from replyline.plain_text import mend_json, without_nul
from replyline.processors.rendering import rendered
from replyline.providers import Question
from replyline.providers.openai_refusal import read_refusal
from replyline.providers.prompt import conversation, system_text
from replyline.providers.reasoning import SpokenStream, spoken
from replyline.redaction import redact
from replyline.store.knowledge import split
from replyline.web.widget.origins import Allowed
from replyline.webhooks import retry_after_s

_HOSTILE: dict[str, Callable[[int], str]] = {
    "words": lambda chars: "a" * chars,
    "dots": lambda chars: "a." * (chars // 2),
    "plus": lambda chars: "a+" * (chars // 2),
    "digits": lambda chars: "1" * chars + "x",
    "digits apart": lambda chars: "1 " * (chars // 2) + "x",
    "brackets of numbers": lambda chars: "1(" * (chars // 2) + "x",
    "schemes": lambda chars: "a://" * (chars // 4),
    "colons": lambda chars: "a://" + "b:" * (chars // 2),
    "tokens": lambda chars: "token " * (chars // 6),
    "keys": lambda chars: "sk-" * (chars // 3),
    "spaces": lambda chars: "token" + " " * chars,
    "ats": lambda chars: "a@" * (chars // 2),
    "open links": lambda chars: "[" * chars,
    "links": lambda chars: "[a](" * (chars // 4),
    "emphasis": lambda chars: "*a " * (chars // 3),
    "underscores": lambda chars: "_a __b " * (chars // 7),
    "ticks": lambda chars: "".join("`" * (number % 40 + 1) + " " for number in range(chars // 21)),
    "quotes": lambda chars: ">" * chars,
    "lists": lambda chars: "".join(" " * (2 * (number % 50)) + "- a\n" for number in range(chars // 54)),
    "strikes": lambda chars: "~~a " * (chars // 4),
    "images": lambda chars: "![" * (chars // 2),
    "lines": lambda chars: "\n" * chars,
    "table": lambda chars: "|" + "a|" * (chars // 16) + "\n|" + "-|" * (chars // 16) + "\n" + "a\n" * (chars // 4),
    "thoughts": lambda chars: "<think></think>" * (chars // 15),
    "opened thoughts": lambda chars: "<think>" * (chars // 7),
    "backslashes": lambda chars: "\\" * chars,
    "half emojis": lambda chars: r"\ud83d" * (chars // 6),
    "folded lines": lambda chars: "\r\n " * (chars // 3),
    "semicolons": lambda chars: ";waid=1" * (chars // 7),
    "numbers of cards": lambda chars: "TEL;waid=123456:+1\n" * (chars // 19),
    "sentences": lambda chars: "a. " * (chars // 3),
    "closed quotes": lambda chars: "." + "'" * chars,
    "braces": lambda chars: '{"error":' * (chars // 9),
    "brackets": lambda chars: "[" * chars,
    "retries": lambda chars: "try again in 1h" * (chars // 15),
    "addresses": lambda chars: "https://" + "a." * (chars // 2),
    "days": lambda chars: "Mon, " * (chars // 5),
}


def _streamed(text: str) -> str:
    """A model's words as they come: a word at a time, and then all at once."""
    by_words, at_once = SpokenStream(), SpokenStream()
    words = [] if "</" in text else [text[at : at + 8] for at in range(0, len(text), 8)]
    said = [by_words.feed(word) for word in words]
    return "".join([*said, by_words.end(), at_once.feed(text), at_once.end()])


def _asked(text: str) -> object:
    lines = tuple(text[at : at + 40] for at in range(0, len(text), 40))
    question = Question(instructions=text, history=(), asked=lines, passages=(), pictures=())
    return system_text(question), conversation(question)


def _evolution(text: str) -> object:
    flow = {"nativeFlowResponseMessage": {"name": "flow", "paramsJson": text}}
    return said_in({"conversation": text}), said_in({"interactiveResponseMessage": flow})


_READERS: dict[str, Callable[[str], object]] = {
    "long answer": lambda text: shorten(text, len(text) - 10),
    "knowledge": split,
    "reasoning": lambda text: spoken(text.replace("</think>", "", 1)),
    "whole thoughts": spoken,
    "streamed answer": _streamed,
    "prompt": _asked,
    "refusal": lambda text: read_refusal(text.encode()),
    "words of a refusal": lambda text: read_refusal(msgspec.json.encode({"error": {"message": text, "raw": text}})),
    "card": lambda text: card_in(text, None),
    "one line of a card": lambda text: card_in(f"TEL;{text}:{text}", None),
    "quoted message": lambda text: in_words(text, InboundContent(quoted=Quoted(text=text))),
    "message of Evolution's": _evolution,
    "broken JSON": lambda text: mend_json(text.encode()),
    "NULs": without_nul,
    "listed origins": Allowed,
    "origin": lambda text: text in Allowed("https://*.example.com " + text),
    "wait": lambda text: retry_after_s({"Retry-After": text}),
}


def _cpu_s(work: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(3):
        before = time.process_time()
        work(text)
        best = min(best, time.process_time() - before)
    return best


@pytest.mark.parametrize("kind", _HOSTILE)
@pytest.mark.parametrize(
    "work", [redact, whatsapp_text, lambda text: split_text(text, 500)], ids=["redact", "render", "split"]
)
def test_time_grows_with_the_length(work: Callable[[str], object], kind: str) -> None:
    make = _HOSTILE[kind]
    short, long = _cpu_s(work, make(2_000)), _cpu_s(work, make(16_000))
    # Eight times the length: 64 times as long would be the square. Below 20 ms nothing is to be told from noise.
    assert long < 0.02 or long < 24 * short


@pytest.mark.parametrize("reader", _READERS)
def test_what_is_read_takes_time_by_its_length(reader: str) -> None:
    slow = []
    for kind, make in _HOSTILE.items():
        short, long = (_cpu_s(_READERS[reader], make(chars)) for chars in (10_000, 100_000))
        # Ten times the length: the square would be a hundred times as long. Below 20 ms nothing is to be told from noise.
        if long > 0.02 and long > 35 * short:
            slow.append((kind, short, long))
    assert slow == []


def test_a_whole_thought_in_one_piece_is_passed_over_in_time() -> None:
    def feed(text: str) -> None:
        assert SpokenStream().feed(text + "the answer") == "the answer"

    assert _cpu_s(feed, "<think></think>" * 40_000) < 40 * max(_cpu_s(feed, "<think></think>" * 4_000), 0.001)


def test_a_flood_of_unanswered_messages_is_one_question_in_time() -> None:
    assert _cpu_s(_asked, "x" * 1_000_000) < 40 * max(_cpu_s(_asked, "x" * 100_000), 0.001)


def test_a_small_form_makes_no_large_message() -> None:
    answers: dict[str, object] = {"k" * 8_000: {str(number): number for number in range(1_000)}}
    assert len(told(InboundContent(form=Form(answers=answers)))) <= MAX_ANSWERS_CHARS


@pytest.mark.parametrize("inner", ["quoted", "edited", "form", "enveloped"])
def test_what_is_nested_very_deep_is_read_as_far_as_it_says_something(inner: str) -> None:
    message: dict[str, object] = {"conversation": "innermost"}
    for _ in range(400):
        match inner:
            case "quoted":
                context = {"stanzaId": "1", "quotedMessage": message}
                message = {"extendedTextMessage": {"text": "outermost", "contextInfo": context}}
            case "edited":
                message = {"protocolMessage": {"type": 14, "key": {"id": "1"}, "editedMessage": message}}
            case "enveloped":
                message = {"ephemeralMessage": {"message": message}}
            case _:
                message = {"a": message}
    if inner == "form":
        assert told(InboundContent(form=Form(answers={"first": "yes", **message}))) == "first: yes"
        return
    said = said_in(message)
    assert said is not None
    assert said.type == {"quoted": "text", "edited": "edit", "enveloped": "unknown"}[inner]


@pytest.mark.parametrize(
    "value",
    ["9" * 400, "Mon, 01 Jan 2024 00:00:00 +99999999999999999999", "Mon, 01 Jan 99999999999999999999 00:00 GMT"],
)
def test_a_wait_that_no_clock_has_is_none_or_the_longest(value: str) -> None:
    assert retry_after_s({"Retry-After": value}) in {None, 3600.0}
    assert read_refusal(b'{"error": {"message": "no", "retry_after_seconds": ' + b"9" * 400 + b"}}").wait_s is None


@pytest.mark.parametrize("kind", _HOSTILE)
def test_a_text_that_is_rendered_in_the_event_loop_holds_it_for_a_moment(kind: str) -> None:
    ordinary = _cpu_s(whatsapp_text, "Some *words* of an ordinary answer.\n" * 55)
    assert _cpu_s(whatsapp_text, _HOSTILE[kind](2_000)) < max(0.03, 20 * ordinary)


async def test_the_event_loop_goes_on_while_a_hostile_text_is_rendered() -> None:
    rendering = asyncio.create_task(rendered(CHANNELS["WHATSAPP_CLOUD"], _HOSTILE["lists"](90_000), within_s=60))
    turns = 0
    while not rendering.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 5
    assert all(0 < len(part) <= 4096 for part in rendering.result())


async def test_an_answer_that_takes_too_long_to_render_goes_as_it_was_written() -> None:
    text = "**Yes**, and more.\n" * 3_000
    sent = await rendered(CHANNELS["WHATSAPP_CLOUD"], text, within_s=0)
    assert sent[0].startswith("**Yes**")
    assert all(0 < len(part) <= 4096 for part in sent)
    assert "".join("".join(sent).split()) == "".join(text.split())
    assert (await rendered(CHANNELS["WHATSAPP_CLOUD"], text, within_s=60))[0].startswith("*Yes*")


def test_an_error_is_cut_before_it_is_searched() -> None:
    assert _cpu_s(redact, "a" * 16_000_000) < 50 * max(_cpu_s(redact, "a" * 8_000), 0.001)


def test_a_secret_that_the_cut_falls_into_does_not_stay() -> None:
    secret = "sk-" + "Q" * 500
    kept = redact(f"{'x ' * 100}{secret} {'y ' * 3_800}"[-9_000:])
    assert "Q" not in kept


def test_a_small_text_makes_no_large_table() -> None:
    table = "|" + "a|" * 125 + "\n|" + "-|" * 125 + "\n" + "a\n" * 500
    words = "Some *words* of an ordinary answer.\n" * (len(table) // 36)
    assert _cpu_s(whatsapp_text, table) < 40 * _cpu_s(whatsapp_text, words)


def test_a_table_with_too_many_cells_comes_through_as_it_is() -> None:
    wide = "|" + "a|" * 300 + "\n|" + "-|" * 300 + "\n" + "row\n" * 300
    assert "row" in whatsapp_text(wide)
    assert len(whatsapp_text(wide)) < 2 * len(wide)
    assert whatsapp_text("| day | from |\n|---|---|\n| Monday | 7 |") == "- day: Monday, from: 7"

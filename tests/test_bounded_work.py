"""What outsiders write is matched, cut and rendered in time that grows with its length, not with the square of it."""

import time
from collections.abc import Callable

import pytest

from replyline.channels.whatsapp_text import split_text, whatsapp_text
from replyline.redaction import redact

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

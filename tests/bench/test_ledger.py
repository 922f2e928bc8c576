"""What the benchmark counts at the receiving end: lost, doubled, out of order, and how long each message took."""

import time

from bench.pipeline.ledger import Ledger, question

_ANNA, _BEN = "49000000000001", "49000000000002"


def test_all_is_well_where_each_contact_gets_its_answers_in_order() -> None:
    ledger = Ledger()
    texts = [ledger.ask(_ANNA), ledger.ask(_BEN), ledger.ask(_ANNA)]
    for to, text in ((_BEN, texts[1]), (_ANNA, texts[0]), (_ANNA, texts[2])):
        ledger.sent(to, f"Echo: {text}")
    assert (ledger.errors.total, ledger.lost, ledger.answered) == (0, 0, 3)


def test_an_answer_that_comes_twice_is_doubled() -> None:
    ledger = Ledger()
    text = ledger.ask(_ANNA)
    ledger.sent(_ANNA, text)
    ledger.sent(_ANNA, text)
    assert (ledger.errors.doubled, ledger.answered, ledger.lost) == (1, 1, 0)


def test_an_answer_that_overtakes_an_earlier_one_is_out_of_order() -> None:
    ledger = Ledger()
    first, second = ledger.ask(_ANNA), ledger.ask(_ANNA)
    ledger.sent(_ANNA, second)
    ledger.sent(_ANNA, first)
    assert (ledger.errors.out_of_order, ledger.lost) == (1, 0)


def test_a_question_without_an_answer_is_lost() -> None:
    ledger = Ledger()
    ledger.sent(_ANNA, ledger.ask(_ANNA))
    ledger.ask(_ANNA)
    ledger.ask(_BEN)
    assert (ledger.lost, ledger.answered, ledger.asked) == (2, 1, 3)


def test_an_answer_to_somebody_else_or_to_nothing_is_unknown() -> None:
    ledger = Ledger()
    text = ledger.ask(_ANNA)
    ledger.ask(_BEN)
    ledger.sent(_BEN, text)
    ledger.sent(_ANNA, question(_ANNA, 2))
    ledger.sent(_ANNA, "Sorry, I cannot answer right now.")
    assert (ledger.errors.unknown, ledger.answered, ledger.lost) == (3, 0, 2)


def test_the_models_time_is_not_added_latency() -> None:
    ledger = Ledger()
    added: list[float] = []
    ledger.on_sent = lambda _contact, added_s: added.append(added_s)
    began = time.perf_counter()
    text = ledger.ask(_ANNA)
    ledger.think(text)
    thought_from = time.perf_counter()
    while time.perf_counter() < thought_from + 0.05:
        pass
    ledger.thought(text)
    ledger.sent(_ANNA, f"Echo: {text}")
    whole = time.perf_counter() - began
    assert 0 <= added[0] <= whole - 0.05


def test_the_same_webhook_twice_is_one_event() -> None:
    ledger = Ledger()
    for event in ("a", "b", "a"):
        ledger.delivered(event)
    assert ledger.hooks == 2

"""The provider that needs no model: it quotes the knowledge base, and says so."""

from dataclasses import replace

from replyline.providers import Passage, ProviderAccount, Question
from tests.providers.contract_suite import QUESTION, ask

ACCOUNT = ProviderAccount("knowledge_only")


async def test_the_answer_is_the_best_passage_and_says_where_it_is_from() -> None:
    reply = await ask("knowledge_only", ACCOUNT, QUESTION)
    assert "our knowledge base" in reply.text
    assert "Opening hours" in reply.text
    assert "On Sundays we are closed." in reply.text


async def test_without_a_passage_the_answer_says_so() -> None:
    reply = await ask("knowledge_only", ACCOUNT, replace(QUESTION, passages=()))
    assert "could not find anything" in reply.text


async def test_it_uses_no_tokens_which_is_known_and_zero() -> None:
    reply = await ask("knowledge_only", ACCOUNT, QUESTION)
    assert (reply.input_tokens, reply.output_tokens, reply.cached_tokens, reply.cost) == (0, 0, 0, None)


async def test_many_long_passages_still_make_one_message() -> None:
    passages = tuple(Passage(f"Page {number}", "word " * 160) for number in range(20))
    reply = await ask("knowledge_only", ACCOUNT, Question("", (), ("?",), passages))
    assert "Page 0" in reply.text
    assert len(reply.text) <= 1500


async def test_who_listens_is_told_the_text_at_once() -> None:
    pieces: list[str] = []
    reply = await ask("knowledge_only", ACCOUNT, QUESTION, say=pieces.append)
    assert pieces == [reply.text]

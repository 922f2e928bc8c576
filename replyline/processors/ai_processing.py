"""ai-processing: get the chatbot's answer to a turn, and hand it on for delivery."""

import time
import uuid
from datetime import UTC, datetime

import structlog

from replyline import metrics
from replyline.answer_length import shorten
from replyline.app import App
from replyline.channels import CHANNELS
from replyline.errors import RateLimited, Temporary
from replyline.jobs import AiProcessingJob
from replyline.processors.live_answer import live_answer
from replyline.processors.pictures import pictures_of
from replyline.processors.rendering import rendered
from replyline.processors.signs_of_life import signs_of_life
from replyline.providers import KnowledgeOnly, Passage, Picture, ProviderAccount, Question, Reply, Say, Utterance
from replyline.store import knowledge
from replyline.store.database import StoreBusy
from replyline.store.moves.answer import AiUse, Answer, Answered, call_fact
from replyline.store.moves.give_up import Consequence, TurnGivenUp
from replyline.store.moves.setbacks import Failure
from replyline.store.moves.work import Run
from replyline.store.persist import persist
from replyline.store.turns import OpenTurn, Turn

log = structlog.get_logger(__name__)

_COMMIT_FOR_S = 20.0
# Redis fires delays to the millisecond; what is left below this is the difference of two clocks, not a longer window.
_CLOSE_ENOUGH_S = 0.005


async def process(job: AiProcessingJob, run: Run, app: App) -> None:
    """Answer the turn, unless there is nothing to answer or it is not the bot's to answer."""
    turn = await app.reads.open_turn(OpenTurn(run.job_id, job))
    if turn is None:
        return
    if turn.due_in_s > _CLOSE_ENOUGH_S:
        raise RateLimited("the person is still writing", after=turn.due_in_s, reason="quiet_window")
    if turn.owner != "BOT" or not turn.asked:
        _used(await app.moves.answer(_answer(run, job, turn, (), None, None)))
        return
    pictures = await pictures_of(turn, app)
    passages, too_slow = await _passages(turn, run, app)
    async with live_answer(turn, app) as live:
        async with signs_of_life(turn, app):
            started = time.perf_counter()
            reply = await _ask(turn, pictures, passages, app, live.say)
            took_s = time.perf_counter() - started
        _observe(turn.provider, reply, took_s)
        use = _use(turn.provider, reply, took_s)
        with app.late_usage.unless_recorded(call_fact(run, use, turn, turn.conversation_id)):
            text, cut = _cut(reply.text, run, turn, app)
            texts, quotes = await rendered(CHANNELS[turn.channel], text), await _quoted(turn, app)
            await live.flush()
            notes = tuple(note for note in (too_slow, cut) if note is not None)
            answer = _answer(run, job, turn, texts, use, quotes, message_id=live.message_id, notes=notes)
            # It was paid for: asking again would be paid again.
            answered = await persist(app.moves.answer, answer, for_s=_COMMIT_FOR_S)
        if _used(answered) is Answered.COMMITTED:
            live.stands()


async def give_up(job: AiProcessingJob, run: Run, app: App) -> Consequence:
    """The person gets the chatbot's fallback text; messages that came meanwhile are the next turn."""
    turn = await app.reads.open_turn(OpenTurn(run.job_id, job))
    if turn is None:
        return Consequence(conversation_id=job.conversation_id)
    return Consequence(
        conversation_id=turn.conversation_id,
        turn=TurnGivenUp(turn.after_seq, turn.through_seq, say=turn.fallback_text),
    )


async def _quoted(turn: Turn, app: App) -> uuid.UUID | None:
    account = await app.account(turn.channel_id)
    return turn.last_message_id if account is not None and account.config.get("quote_replies") == "on" else None


async def _ask(
    turn: Turn, pictures: tuple[Picture, ...], passages: tuple[Passage, ...], app: App, say: Say | None
) -> Reply:
    account = ProviderAccount(
        provider=turn.provider,
        model=turn.model,
        base_url=turn.provider_base_url,
        key=None if turn.provider_key_sealed is None else app.vault.open(turn.provider_key_sealed),
        max_output_tokens=turn.max_output_tokens,
    )
    question = Question(
        instructions=turn.instructions,
        history=tuple(Utterance("user" if said.inbound else "assistant", said.text) for said in turn.history),
        asked=turn.asked,
        passages=passages,
        pictures=pictures,
    )
    provider = await app.provider(turn.provider)
    return await provider.complete(account, question, say=say)


async def _passages(turn: Turn, run: Run, app: App) -> tuple[tuple[Passage, ...], Failure | None]:
    """What the knowledge base has about it; and a note, where it could not be searched in time and the model must do without.

    Raises:
        Temporary: it could not be searched in time, and is tried again: a bot that answers from it alone always, others once.
    """
    if not turn.has_knowledge or not turn.knowledge_passages:
        return (), None
    try:
        found = await knowledge.passages(
            app.database, chatbot_id=turn.chatbot_id, query="\n".join(turn.asked), limit=turn.knowledge_passages
        )
    except StoreBusy as error:
        metrics.slow_knowledge_searches_total.inc()
        standing = await app.reads.standing(run.job_id)
        if turn.provider == KnowledgeOnly.name or standing is None or standing.attempts == 0:
            # An attempt is used up: a search that is always too slow must not be made again and again for ever.
            raise Temporary("the knowledge base could not be searched in time", reason="knowledge_slow") from error
        log.warning("answer.without_knowledge", job=str(run.job_id), conversation=str(turn.conversation_id))
        return (), _noted(
            run, "without_knowledge", "the knowledge base could not be searched in time: answered without it"
        )
    return tuple(Passage(title, text) for title, text in found), None


def _noted(run: Run, reason: str, told: str) -> Failure:
    """A line of the timeline that is no failure of the job."""
    now = datetime.now(UTC).isoformat()
    return Failure(at=now, attempt=0, worker=run.worker, reason=reason, message=told, stack="")


def _cut(text: str, run: Run, turn: Turn, app: App) -> tuple[str, Failure | None]:
    """The answer as long as it may be, and what the timeline says of it if it was longer."""
    most = app.settings.longest_answer_chars
    if len(text) <= most:
        return text, None
    short = shorten(text, most)
    told = f"the provider's answer had {len(text)} characters, of which the first {len(short)} were sent"
    log.warning(
        "answer.cut", job=str(run.job_id), conversation=str(turn.conversation_id), chars=len(text), sent=len(short)
    )
    return short, _noted(run, "answer_cut", told)


def _used(answered: Answered) -> Answered:
    """What became of an answer that was used, or needs not be.

    Raises:
        RateLimited: a newer message came, and the turn is to be asked again.
    """
    if answered is Answered.SUPERSEDED:
        raise RateLimited("a newer message came while this turn was answered", after=0, reason="superseded")
    return answered


def _answer(  # noqa: PLR0917  the parts of one answer
    run: Run,
    job: AiProcessingJob,
    turn: Turn,
    texts: tuple[str, ...],
    use: AiUse | None,
    quotes: uuid.UUID | None,
    message_id: uuid.UUID | None = None,
    notes: tuple[Failure, ...] = (),
) -> Answer:
    return Answer(
        run=run,
        job=job,
        conversation_id=turn.conversation_id,
        owner_epoch=turn.owner_epoch,
        after_seq=turn.after_seq,
        through_seq=turn.through_seq,
        amendments=turn.amendments,
        texts=texts,
        use=use,
        quotes=quotes,
        message_id=message_id,
        notes=notes,
    )


def _use(provider: str, reply: Reply, took_s: float) -> AiUse:
    return AiUse(
        provider=provider,
        model=reply.model,
        latency_ms=round(took_s * 1000),
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        cached_tokens=reply.cached_tokens,
        cost=reply.cost,
    )


def _observe(provider: str, reply: Reply, took_s: float) -> None:
    metrics.provider_seconds.labels(provider).observe(took_s)
    counts = {"input": reply.input_tokens, "output": reply.output_tokens, "cached": reply.cached_tokens}
    for kind, tokens in counts.items():
        if tokens is not None:
            metrics.provider_tokens_total.labels(provider, kind).inc(tokens)

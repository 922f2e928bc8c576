"""Streamed chat completions as servers send them, and a server that sends its body in the pieces it is told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

DONE = b"data: [DONE]\n\n"
USAGE: dict[str, object] = {
    "prompt_tokens": 1200,
    "completion_tokens": 34,
    "total_tokens": 1234,
    "prompt_tokens_details": {"cached_tokens": 1000},
}


def event(data: object) -> bytes:
    """One event."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def chunk(content: str | None = None, *, finish: str | None = None, **delta: object) -> bytes:
    """One chunk of an answer."""
    told = delta if content is None else {"content": content, **delta}
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1764000000,
            "model": "gpt-test-2026",
            "choices": [{"index": 0, "delta": told, "finish_reason": finish, "logprobs": None}],
            "usage": None,
        }
    )


def counted(usage: dict[str, object] | None = None) -> bytes:
    """The chunk that only counts."""
    return event({"model": "gpt-test-2026", "choices": [], "usage": USAGE if usage is None else usage})


def streamed(*texts: str) -> bytes:
    """A whole answer in these pieces, as OpenAI streams it."""
    first = chunk("", role="assistant", refusal=None)
    return first + b"".join(map(chunk, texts)) + chunk(finish="stop") + counted() + DONE


@asynccontextmanager
async def dripping(
    *pieces: bytes, every_s: float = 0.02, then_hang: bool = False, cut: bool = False, kind: str = "text/event-stream"
) -> AsyncIterator[tuple[str, Sequence[object]]]:
    """A server whose every answer is these pieces, one after the other; its base URL, and the connections it was asked over."""
    over = asyncio.Event()
    peers: list[object] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(every_s)
        if then_hang:
            await over.wait()
        if cut:
            request.transport.abort()
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", peers
    finally:
        over.set()
        await runner.cleanup()

"""A stand-in for the service that the NestJS consumer sends by: it counts every call by its idempotency key."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web


class _Post(msgspec.Struct):
    session: str
    to: str
    text: str
    job: str


class Provider:
    """Takes messages; one with a key that it has seen is answered as the first was, and sent no second time."""

    def __init__(self, takes_s: float) -> None:
        self.url = ""
        self.calls: Counter[str] = Counter()
        """How often it was called with each key."""
        self.jobs: dict[str, set[str]] = {}
        """The jobs that came with each key."""
        self.sent: list[tuple[str, str]] = []
        """To whom it sent what."""
        self._takes_s = takes_s

    async def post(self, request: web.Request) -> web.Response:
        """Take one message."""
        key = request.headers["idempotency-key"]
        post = msgspec.json.decode(await request.read(), type=_Post)
        self.calls[key] += 1
        self.jobs.setdefault(key, set()).add(post.job)
        if self.calls[key] == 1:
            self.sent.append((post.to, post.text))
        await asyncio.sleep(self._takes_s)
        return web.json_response({"id": f"3EB{key}"})


@asynccontextmanager
async def provider(*, takes_s: float) -> AsyncIterator[Provider]:
    """A provider on a free port, that takes so many seconds to answer."""
    found = Provider(takes_s)
    app = web.Application()
    app.router.add_post("/send", found.post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/send"
    try:
        yield found
    finally:
        await runner.cleanup()

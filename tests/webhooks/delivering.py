"""One attempt to deliver an event."""

import aiohttp

from replyline import webhooks
from replyline.webhooks import new_secret

SECRET = new_secret()
BODY = '{"type":"message.received","data":{"content":"Grüße 👋"}}'.encode()


async def deliver(session: aiohttp.ClientSession, url: str, *, allow_private: bool = True) -> webhooks.Outcome:
    """One attempt with the event `evt_1`."""
    return await webhooks.deliver(
        session, url=url, secret=SECRET, event_id="evt_1", body=BODY, allow_private=allow_private
    )

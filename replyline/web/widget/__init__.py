"""The widget on a customer's site: its routes are for browsers of strangers, so nothing here is done for a key.

sessions (a site key becomes a short token) · messages (writing, reading, typing) · events (the stream) · uploads · script
(`/widget.js`). Who may call is decided in origins and visitors; limits says how often; streams holds the open
pages, and listener is one of them.
"""

from fastapi import APIRouter

from replyline.web.widget import events, messages, script, sessions, uploads

PREFIX = "/widget/v1"

router = APIRouter()
for part in (sessions.router, messages.router, events.router, uploads.router):
    router.include_router(part, prefix=PREFIX, tags=["widget"])
router.include_router(script.router)

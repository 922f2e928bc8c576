"""The HTTP application: which routes there are, and what stands in front of them."""

from fastapi import Depends, FastAPI

import replyline
from replyline.app import App
from replyline.web import (
    callbacks,
    channels,
    chatbots,
    conversations,
    customers,
    dead_letters,
    demo,
    external_jobs,
    health,
    knowledge,
    media,
    messages,
    problems,
    queues,
    reference,
    sessions,
    usage,
    webhooks,
    widget,
)
from replyline.web.limits import Limits
from replyline.web.parameters import check_parameters
from replyline.web.scrapes import Scrapes
from replyline.web.widget.limits import WidgetLimits
from replyline.web.widget.origins import Cors
from replyline.web.widget.sites import Sites
from replyline.web.widget.streams import Streams
from replyline.web.widget.visitors import Guests

_ROUTERS = (
    messages.router,
    callbacks.router,
    widget.router,
    customers.router,
    chatbots.router,
    channels.router,
    sessions.router,
    media.router,
    knowledge.router,
    conversations.router,
    webhooks.router,
    usage.router,
    dead_letters.router,
    queues.router,
    external_jobs.router,
    health.router,
    reference.router,
    demo.router,
)


def create_app(app: App) -> FastAPI:
    """The HTTP surface of `app`, as an ASGI application.

    Whoever serves it opens and closes `app`, and calls `let_pages_go` before the server ends: it waits for what is answered.
    """
    api = FastAPI(
        title="Replyline",
        version=replyline.__version__,
        description="The message pipeline behind a multi-tenant AI chatbot.",
        # FastAPI's own pages load scripts from elsewhere; ours does not.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=problems.RESPONSES,
    )
    api.state.replyline = app
    api.state.sites = Sites(app)
    api.state.guests = Guests(app, api.state.sites)
    api.state.streams = Streams(app)
    api.state.scrapes = Scrapes(app)
    api.state.widget_limits = WidgetLimits(app)
    for router in _ROUTERS:
        api.include_router(router, dependencies=[Depends(check_parameters)])
    problems.install(api)
    # The last one added is the outermost.
    api.add_middleware(problems.LastResort)
    api.add_middleware(Limits, max_bytes=app.settings.max_body_bytes, trusted=app.settings.trusted_networks)
    api.add_middleware(Cors, replyline=app, prefix=widget.PREFIX)
    return api


async def let_pages_go(api: FastAPI) -> None:
    """End the streams of open pages, which would never end by themselves."""
    streams: Streams = api.state.streams
    await streams.close()

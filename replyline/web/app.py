"""The HTTP application: which routes there are, and what stands in front of them."""

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp

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
from replyline.web.hot_routes import HotRoutes
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


class _Api(FastAPI):
    """FastAPI, with ours in front of it: the last one is the outermost."""

    def build_middleware_stack(self) -> ASGIApp:
        """All that a request goes through."""
        replyline: App = self.state.replyline
        settings = replyline.settings
        stack: ASGIApp = HotRoutes(
            super().build_middleware_stack(),
            replyline=replyline,
            guests=self.state.guests,
            limits=self.state.widget_limits,
        )
        stack = Limits(stack, max_bytes=settings.max_body_bytes, trusted=settings.trusted_networks)
        return Cors(stack, replyline=replyline, prefix=widget.PREFIX)


def create_app(app: App) -> FastAPI:
    """The HTTP surface of `app`, as an ASGI application.

    Whoever serves it opens and closes `app`, and calls `let_pages_go` before the server ends: it waits for what is answered.
    """
    api = _Api(
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
    api.add_middleware(problems.LastResort)
    return api


async def let_pages_go(api: FastAPI) -> None:
    """End the streams of open pages, which would never end by themselves."""
    streams: Streams = api.state.streams
    await streams.close()

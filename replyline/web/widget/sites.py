"""The sites that show a widget: found by their public key or by the session of a visitor, as they were at most 5 seconds ago."""

import uuid

from fastapi import Request

from replyline.app import App
from replyline.store import channels
from replyline.store.channels import Channel
from replyline.store.recently import Recently
from replyline.web.problems import Problem, not_found


class Sites:
    """Finds widgets' channels."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._by_key: Recently[str, Channel] = Recently(changes=app.changes)
        self._by_id: Recently[uuid.UUID, Channel] = Recently(changes=app.changes)

    async def by_key(self, site_key: str) -> Channel:
        """The widget that a page names.

        Raises:
            Problem: 404, there is none or it is switched off.
        """

        async def read() -> Channel | None:
            return await channels.find_widget(self._app.database, site_key)

        return _open(await self._by_key.get(site_key, read))

    async def by_id(self, channel_id: uuid.UUID) -> Channel:
        """The widget that a session is of.

        Raises:
            Problem: 404, there is none (any more) or it is switched off.
        """

        async def read() -> Channel | None:
            return await channels.find(self._app.database, channel_id)

        return _open(await self._by_id.get(channel_id, read))

    def secret(self, site: Channel, name: str) -> str | None:
        """One of the site's secrets, in clear; None where it has none such."""
        return site.open_secrets(self._app.vault).get(name)


def _open(found: Channel | None) -> Channel:
    if found is None or not found.enabled or found.kind != "WIDGET":
        raise not_found("widget")
    return found


def visitor_secret(sites: Sites, site: Channel) -> str:
    """What signs the sessions of the site.

    Raises:
        Problem: 500, it has none, which cannot be.
    """
    secret = sites.secret(site, "visitor_secret")
    if not secret:
        raise Problem(500, "misconfigured", "the widget has no visitor_secret")
    return secret


async def sites_of(request: Request) -> Sites:
    """The Sites of this process, so that they remember between requests."""
    sites: Sites = request.app.state.sites
    return sites

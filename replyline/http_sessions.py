"""The HTTP sessions that channels call with. None keeps cookies: what one customer's call brings is nothing to the next one's."""

import aiohttp

from replyline.settings import Settings
from replyline.webhooks import vetted_connector

_MEDIA_TIMEOUT_S = 110.0  # below the queue's own 120 s


def open_call_session(settings: Settings) -> aiohttp.ClientSession:
    """For calls of addresses that the operator has set: Graph, gateways."""
    timeout = aiohttp.ClientTimeout(total=settings.http_total_timeout_s, sock_connect=settings.http_connect_timeout_s)
    connector = aiohttp.TCPConnector(limit=500)
    return aiohttp.ClientSession(timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def open_gateway_files_session(settings: Settings) -> aiohttp.ClientSession:
    """For files, which take longer, from addresses that the operator has set: a gateway is usually inside the network."""
    connector = aiohttp.TCPConnector(limit=50)
    return aiohttp.ClientSession(timeout=_patient(settings), connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def open_media_session(settings: Settings) -> aiohttp.ClientSession:
    """For files, which take longer, and whose addresses others name."""
    connector = vetted_connector(allow_private=settings.webhook_allow_private, limit=50)
    return aiohttp.ClientSession(timeout=_patient(settings), connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _patient(settings: Settings) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=_MEDIA_TIMEOUT_S, sock_connect=settings.http_connect_timeout_s, sock_read=30)

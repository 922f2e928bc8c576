"""Files are fetched from Meta only: whatever a callback, an answer of Graph or a redirect says, nothing inside is called."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from replyline.channels.contract import ChannelAccount
from replyline.channels.whatsapp_cloud import WhatsAppCloud
from replyline.channels.whatsapp_cloud.file_hosts import FileHosts
from replyline.channels.whatsapp_qr import WhatsAppQr
from replyline.errors import Permanent
from replyline.http_sessions import open_gateway_files_session, open_media_session
from replyline.jobs import MediaRef
from replyline.settings import load
from tests.channels.contract_suite import make_account

SECRET = b"the inside of a server that only we can reach"
HOSTS = FileHosts("https://graph.facebook.com/v25.0/1", ("lookaside.fbsbx.com", "*.fbcdn.net"))


@asynccontextmanager
async def _serving(handler: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(handler)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class _Inside:
    """A server inside, which counts who came."""

    def __init__(self) -> None:
        self.called = 0

    def app(self) -> web.Application:
        async def answer(_request: web.Request) -> web.Response:
            self.called += 1
            return web.Response(body=SECRET)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        return app


def _graph(url: str, *, redirect: bool) -> web.Application:
    """A Graph whose object has the `url` that a stranger chose; or whose own file address leads there."""

    async def describe(request: web.Request) -> web.Response:
        own = f"http://{request.host}/files/1"
        return web.json_response({"url": own if redirect else url, "mime_type": "image/jpeg"})

    async def file(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": url})

    app = web.Application()
    app.router.add_get("/files/1", file)
    app.router.add_get("/{path:.*}", describe)
    return app


async def _fetch(account: ChannelAccount, media: MediaRef, *, allow_private: bool = True) -> bytes:
    settings = load(webhook_allow_private=allow_private, data=Path("/nonexistent"))
    async with open_media_session(settings) as http:
        return b"".join([chunk async for chunk in WhatsAppCloud().fetch_media(account, media, http)])


def _account(graph: str) -> ChannelAccount:
    config = {"graph_base": graph, "graph_version": "v25.0", "media_hosts": "lookaside.fbsbx.com *.fbcdn.net"}
    return make_account("WHATSAPP_CLOUD", "106540352242922", config=config, secrets={"access_token": "token"})


@pytest.mark.parametrize("redirect", [False, True])
async def test_an_address_inside_is_not_called_whoever_names_it(redirect: bool) -> None:
    """Failed before: the answer of the server inside was kept as the file, for the customer to read."""
    inside = _Inside()
    async with _serving(inside.app()) as url, _serving(_graph(f"{url}/secret", redirect=redirect)) as graph:
        with pytest.raises(Permanent) as refused:
            await _fetch(_account(graph), MediaRef(kind="image", provider_id="99"))
    assert refused.value.reason == "media_address"
    assert inside.called == 0


async def test_graph_on_a_private_address_is_not_fetched_from_unless_the_deployment_allows_it() -> None:
    inside = _Inside()
    async with _serving(inside.app()) as url, _serving(_graph(url, redirect=False)) as graph:
        hosts = FileHosts(graph, ())
        settings = load(webhook_allow_private=False, data=Path("/nonexistent"))
        async with open_media_session(settings) as http:
            hosts.check(URL(f"{graph}/files/1"))
            with pytest.raises(aiohttp.ClientError):
                await http.get(f"{graph}/files/1")
    assert inside.called == 0


@pytest.mark.parametrize("media_id", ["MY_OBJECT?fields=url&x=", "99/../100", "..", "99?", "", "9" * 33, "٩٩"])
async def test_a_media_id_is_a_number_and_nothing_else_is_asked_of_graph(media_id: str) -> None:
    """Failed before: an id could name any object and field that the token may read."""
    inside = _Inside()
    async with _serving(inside.app()) as graph:
        with pytest.raises(Permanent) as refused:
            await _fetch(_account(graph), MediaRef(kind="image", provider_id=media_id))
    assert refused.value.reason == "media_id"
    assert inside.called == 0


@pytest.mark.parametrize("number", ["./106540352242922", "1/../2", "106540352242922?fields=owner"])
async def test_a_number_that_was_kept_before_it_was_checked_calls_nothing(number: str) -> None:
    inside = _Inside()
    async with _serving(inside.app()) as graph, aiohttp.ClientSession() as http:
        config = {"graph_base": graph, "graph_version": "v25.0"}
        account = make_account("WHATSAPP_CLOUD", number, config=config, secrets={"access_token": "token"})
        with pytest.raises(Permanent) as refused:
            await WhatsAppCloud().check(account, http)
    assert refused.value.reason == "channel_misconfigured"
    assert inside.called == 0


@pytest.mark.parametrize(
    "address",
    [
        "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1",
        "https://scontent.xx.fbcdn.net/v/1",
        "https://LOOKASIDE.fbsbx.com/",
        "https://graph.facebook.com/v25.0/2",
    ],
)
def test_metas_hosts_are_called(address: str) -> None:
    HOSTS.check(URL(address))


@pytest.mark.parametrize(
    "address",
    [
        "http://lookaside.fbsbx.com/",
        "https://lookaside.fbsbx.com:8443/",
        "https://fbcdn.net.example/",
        "https://evilfbcdn.net/",
        "https://fbcdn.net/",
        "https://user@lookaside.fbsbx.com/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "http://graph.facebook.com/",
        "ftp://lookaside.fbsbx.com/",
        "/files/1",
    ],
)
def test_everything_else_is_not(address: str) -> None:
    with pytest.raises(Permanent):
        HOSTS.check(URL(address))


async def test_a_gateway_inside_the_network_hands_files_over_though_nothing_else_inside_may() -> None:
    inside = _Inside()
    async with _serving(inside.app()) as url:
        account = make_account("WHATSAPP_QR", "shop", config={"gateway_url": url}, secrets={"gateway_token": "token"})
        settings = load(webhook_allow_private=False, data=Path("/nonexistent"))
        async with open_gateway_files_session(settings) as http:
            chunks = [
                chunk
                async for chunk in WhatsAppQr().fetch_media(account, MediaRef(kind="image", provider_id="A1"), http)
            ]
    assert b"".join(chunks) == SECRET
    assert WhatsAppQr.files_come_from_a_gateway
    assert not WhatsAppCloud.files_come_from_a_gateway


@pytest.mark.parametrize("media_id", ["..", "."])
async def test_a_file_whose_id_leads_elsewhere_is_not_asked_of_the_gateway(media_id: str) -> None:
    inside = _Inside()
    async with _serving(inside.app()) as url, aiohttp.ClientSession() as http:
        account = make_account("WHATSAPP_QR", "shop", config={"gateway_url": url}, secrets={})
        with pytest.raises(Permanent) as refused:
            await anext(WhatsAppQr().fetch_media(account, MediaRef(kind="image", provider_id=media_id), http))
    assert refused.value.reason == "media_id"
    assert inside.called == 0

"""No web page that somebody has open steers the stand-ins of their machine."""

import aiohttp
import pytest

from replyline.standins import Standins


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example", "Content-Type": "text/plain"}, {"Host": "evil.example"}, {"Origin": "null"}],
)
async def test_a_web_page_can_neither_bend_a_stand_in_nor_read_it(standins: Standins, headers: dict[str, str]) -> None:
    url = standins.urls["whatsapp_cloud"]
    async with aiohttp.ClientSession() as http:
        for method, path in (("POST", "/_faults"), ("POST", "/_configure"), ("GET", "/_calls")):
            async with http.request(method, url + path, data=None if method == "GET" else b"{}", headers=headers) as no:
                assert no.status == 400

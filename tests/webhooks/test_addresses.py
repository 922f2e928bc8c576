"""Where webhooks may go: addresses are refused before a call, and when a name is resolved."""

import ipaddress
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replyline import webhooks
from replyline.errors import Permanent
from replyline.webhooks import RefusedAddress, VettedResolver, check_url
from tests.channels.far_end import FarEnd
from tests.webhooks.delivering import deliver

# Every way to name loopback, a private network or a metadata service that a URL parser or a resolver understands.
_INSIDE = """
127.0.0.1 127.9.9.9 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1 169.254.169.254 192.0.2.1 198.18.0.1
224.0.0.1 240.0.0.1 255.255.255.255 [::1] [::] [fe80::1] [fc00::1] [fec0::1] [fd00:ec2::254] [ff02::1]
[2001:db8::1] [::ffff:127.0.0.1] [::ffff:a9fe:a9fe] [::ffff:0:127.0.0.1] [::127.0.0.1] [64:ff9b::7f00:1]
[64:ff9b:1::a00:1] 192.0.0.1 168.63.129.16 [2002:7f00:1::] [5f00::1] １２７.０.０.１ ①②⑦.0.0.1 127。0。0。1 localhost
"""
INSIDE = _INSIDE.split()
# The first and the last address of every range of the IANA special-purpose registries of IPv4 and IPv6 (as of 2025), and of what
# leads to a machine inside without standing there: multicast, site-local, IPv4-compatible, -mapped and -translated, and Azure's.
_SPECIAL = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.8/32 192.0.0.9/32
192.0.0.10/32 192.0.0.170/31 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24
198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32
::1/128 ::/128 ::ffff:0:0/104 ::ffff:10.0.0.0/104 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32
2001:1::1/128 2001:1::2/128 2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28
2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10
224.0.0.0/4 ff00::/8 fec0::/10 ::/96 ::ffff:0:0:0/96 168.63.129.16/32 ::ffff:168.63.129.16/128
"""


@pytest.fixture
async def vetted_session() -> AsyncIterator[aiohttp.ClientSession]:
    """The session of production."""
    async with webhooks.open_webhook_session(allow_private=False, timeout_s=2) as session:
        yield session


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://example.com:8443/hooks?a=b", "https://8.8.8.8/", "https://[2606:4700::1]/"]
)
def test_an_endpoint_on_the_internet_is_fine(url: str) -> None:
    check_url(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.com/", "https://"),
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("example.com", "https://"),
        ("", "https://"),
        ("https://", "host"),
        ("https:///hooks", "host"),
        ("https://user@example.com/", "user or password"),
        ("https://:password@example.com/", "user or password"),
        ("https://example.com:0/", "port"),
        ("https://example.com:99999/", "read"),
        ("https://example.com:port/", "read"),
        ("https://[::1/", "read"),
        ("https://127.1/", "ambiguous"),
        ("https://2130706433/", "ambiguous"),
        ("https://127.0.0.1./", "ambiguous"),
        ("https://017700000001/", "ambiguous"),
        ("https://0x7f.1/", "ambiguous"),
    ],
)
def test_a_url_that_can_never_work_is_refused_with_the_reason(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_url(url, allow_private=False)


@pytest.mark.parametrize("host", [*INSIDE, "LOCALHOST."])
def test_a_url_that_leads_inside_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"private or local|ambiguous"):
        check_url(f"https://{host}/", allow_private=False)


@pytest.mark.parametrize("network", [ipaddress.ip_network(text) for text in _SPECIAL.split()], ids=str)
def test_no_range_of_special_purpose_is_delivered_to(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    """Failed before for those that Python calls global: AS112, AMT, and of 2001::/23 what has a protocol of its own."""
    for address in (network[0], network[-1]):
        host = f"[{address}]" if address.version == 6 else str(address)
        with pytest.raises(ValueError, match="private or local"):
            check_url(f"https://{host}/", allow_private=False)


@pytest.mark.parametrize(
    "host", ["192.0.1.0", "168.63.129.15", "168.63.129.17", "[2001:200::1]", "[2003::1]", "[::ffff:8.8.8.8]"]
)
def test_the_neighbours_of_special_ranges_are_on_the_internet(host: str) -> None:
    check_url(f"https://{host}/", allow_private=False)


@settings(deadline=None, database=None)
@given(st.text(st.characters(codec=None), max_size=40))
def test_any_text_for_a_url_is_taken_or_refused(text: str) -> None:
    for url in (text, f"https://{text}"):
        try:
            check_url(url, allow_private=False)
        except ValueError as refused:
            message = str(refused)
        else:
            message = "taken"
        assert message


def test_where_private_addresses_are_allowed_plain_http_is_too() -> None:
    check_url("http://127.0.0.1:8080/hooks", allow_private=True)
    with pytest.raises(ValueError, match="user or password"):
        check_url("http://user@127.0.0.1:8080/", allow_private=True)


@pytest.mark.parametrize("host", INSIDE)
async def test_a_call_that_skipped_the_check_still_never_connects_inside(
    host: str, far_end: FarEnd, vetted_session: aiohttp.ClientSession
) -> None:
    port = far_end.url.rpartition(":")[2]
    with pytest.raises(aiohttp.ClientError) as raised:
        await vetted_session.post(f"http://{host}:{port}/")
    assert isinstance(raised.value, aiohttp.InvalidURL) or isinstance(raised.value.__cause__, RefusedAddress)
    assert far_end.calls == []


async def test_a_name_that_resolves_inside_is_refused_when_it_is_delivered_to(
    vetted_session: aiohttp.ClientSession,
) -> None:
    url = "https://0x7f000001/hooks"  # a name to every URL parser, 127.0.0.1 to every resolver
    check_url(url, allow_private=False)
    outcome = await deliver(vetted_session, url, allow_private=False)
    assert isinstance(outcome.error, Permanent)
    assert (outcome.error.reason, outcome.kind, outcome.status_code) == ("refused_address", "refused_address", None)


async def test_an_address_on_the_internet_passes_the_resolver() -> None:
    resolver = VettedResolver()
    found = await resolver.resolve("8.8.8.8", 443)
    await resolver.close()
    assert {result["host"] for result in found} == {"8.8.8.8"}


async def test_a_refused_url_is_an_outcome_without_a_call(
    far_end: FarEnd, vetted_session: aiohttp.ClientSession
) -> None:
    outcome = await deliver(vetted_session, far_end.url, allow_private=False)
    assert isinstance(outcome.error, Permanent)
    assert outcome.error.reason == "refused_address"
    assert far_end.calls == []

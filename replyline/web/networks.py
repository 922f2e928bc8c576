"""Where a request comes from: the address that counts, and the networks that it is of."""

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

from fastapi import Request

from replyline.settings import Network

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_OF_ONE = 64
"""Whole networks of IPv6 belong to one person, so their first 64 bits are their address."""
# What one customer of a provider is given: a /56 at home, a /48 for a business (RIPE-690), which tunnels give to anybody.
_WIDER = {56: 2, 48: 4}


def address_of(request: Request, trusted: tuple[Network, ...]) -> Address | None:
    """Where the request comes from: the peer, or, where that is a trusted proxy, the last address that is none.

    Of IPv6 only the first 64 bits. None where nobody knows.
    """
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))  # some proxies add a line of their own
    hops = [*forwarded.split(","), request.client.host if request.client else ""]
    address: Address | None = None
    for hop in reversed(hops):
        try:
            address = ipaddress.ip_address(hop.strip())
        except ValueError:
            break
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if not any(address in network for network in trusted):
            break
    return None if address is None else counted_as(address)


def counted_as(address: Address) -> Address:
    """What a person's address is counted by: an IPv4 address, or the first 64 bits of an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        return _first_bits(address, _OF_ONE)
    return address


def wider_networks(address: Address) -> Sequence[tuple[str, int]]:
    """The networks around it that may all be one person's, each with how many addresses' worth it may use."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    return [(f"{_first_bits(address, bits)}/{bits}", worth) for bits, worth in _WIDER.items()]


def owner_network(address: Address) -> str:
    """The widest network that may be one person's: an IPv4 address, or a /48 of IPv6."""
    return str(address) if isinstance(address, ipaddress.IPv4Address) else f"{_first_bits(address, 48)}/48"


def _first_bits(address: ipaddress.IPv6Address, bits: int) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(int(address) >> (128 - bits) << (128 - bits))

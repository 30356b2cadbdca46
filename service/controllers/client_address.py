"""Where a request comes from, as far as somebody can be counted by it."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

# Longer than any address with its zone and port.
_LENGTH_LIMIT = 64
# More proxies than anybody has in a row; the rest of the header is not read.
_HOPS_LIMIT = 16
# One customer's IPv6 network has 2^64 addresses at the least (RFC 6177): to count by address would be to count nobody.
_HOST_BITS = 64
# Many get more than one such network: 256 of them (/56) at home, 65,536 (/48) as a firm. So each limit of a network
# holds for these too, so many times: more than a handful of networks helps nobody.
_WIDER_NETWORKS = ((56, 2), (48, 4))
LARGEST_SHARE = 4
_REMEMBERED = 4096
_UNKNOWN = "unknown"


def client_address(scope: Scope, trusted: Sequence[_Network]) -> str:
    """An IPv4 address, an IPv6 network of 64 bits, or `unknown`.

    X-Forwarded-For is read from its end for as long as those who wrote it are trusted: what stands further in front may
    be made up. Who comes by a Unix socket is on this machine, and trusted where anybody is.
    """
    client = scope.get("client")
    peer = client[0] if client else ""
    if not trusted:
        return _place(peer)
    address = _parse(peer)
    if address is None or _is_trusted(address, trusted):
        for text in _hops(scope):
            hop = _parse(text)
            if hop is None:
                # Whoever wrote it, who passed it on is the last that is known.
                break
            address = hop
            if not _is_trusted(hop, trusted):
                break
    return _UNKNOWN if address is None else _shown(address)


def is_trusted_peer(peer: str, trusted: Sequence[_Network]) -> bool:
    """Whether a connection comes from one of our proxies, by whom many come."""
    address = _parse(peer) if trusted else None
    return address is not None and _is_trusted(address, trusted)


@lru_cache(_REMEMBERED)
def networks_of(place: str) -> tuple[tuple[str, int], ...]:
    """The networks that an address or a network of 64 bits is counted by, the narrowest first: name and share.

    The share says how many times a limit for one place holds for the network.
    """
    address = _parse(place.partition("/")[0])
    if not isinstance(address, IPv6Address):
        return ((_UNKNOWN if address is None else str(address), 1),)
    wider = [(str(IPv6Network((int(address), bits), strict=False)), share) for bits, share in _WIDER_NETWORKS]
    return ((_shown(address), 1), *wider)


async def _address_of(request: Request) -> str:
    return client_address(request.scope, request.app.state.resources.settings.trusted_proxies)


ClientAddress = Annotated[str, Depends(_address_of)]


def _hops(scope: Scope) -> list[str]:
    """The nearest first."""
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return ",".join(lines).rsplit(",", _HOPS_LIMIT)[: -_HOPS_LIMIT - 1 : -1]


def _is_trusted(address: _Address, trusted: Sequence[_Network]) -> bool:
    return any(address in network for network in trusted)


@lru_cache(_REMEMBERED)
def _place(text: str) -> str:
    address = _parse(text)
    return _UNKNOWN if address is None else _shown(address)


def _shown(address: _Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address) >> _HOST_BITS << _HOST_BITS, _HOST_BITS)))


def _parse(text: str) -> _Address | None:
    """None where it is no address. Some proxies add the port."""
    text = text.strip()
    if len(text) > _LENGTH_LIMIT:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # An IPv4 client of a socket that takes both.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address

"""Which IP addresses are of the public internet: where a stranger may send us, because it is nobody's inside."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA's registries of special-purpose addresses, written out: what Python calls global differs from version to version.
_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # "this network"; 0.0.0.0 is the machine itself to many
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers (RFC 6598); Alibaba's metadata
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        # Looks public and is Azure's own host, seen from any machine there.
        "168.63.129.16/32",
    )
)
# All that is given out is in here; mapped and compatible addresses, NAT64, ULA, link-local, site-local and multicast
# are outside.
_UNICAST_6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking
        "2001:db8::/32",
        "2002::/16",  # 6to4, which has any IPv4 address inside
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)


def is_public(address: Address, denied: Iterable[Network] = ()) -> bool:
    """Tells whether it is global unicast, and in none of the `denied` networks."""
    if isinstance(address, IPv6Address):
        is_global = address.scope_id is None and address in _UNICAST_6
        special: tuple[Network, ...] = _NOT_PUBLIC_6
    else:
        is_global, special = True, _NOT_PUBLIC_4
    return is_global and not any(address in network for network in (*special, *denied))

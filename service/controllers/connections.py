"""How many connections a process keeps open: a bound for each address, and one for all of them together."""

import asyncio
import resource
from collections.abc import Sequence
from itertools import islice
from time import monotonic
from typing import Any, Final

import structlog

from service.controllers.client_address import is_trusted_peer, networks_of
from service.settings import Settings

log = structlog.get_logger()

# The key in uvicorn's state of the application, which each protocol gets.
CONNECTIONS: Final = "connections"
# Files that the process needs besides: MongoDB's pool, Redis, logs, a reserve for connections that are closing.
_OTHER_FILES = 256
# For one connection no more are looked at for an idle one, however many are open: each look takes a microsecond, and
# somebody who keeps the process full must not make it look at thousands for each further attempt.
_LOOKS = 64
# How often the log says that connections are refused.
_LOG_EVERY_S = 10.0


def raise_file_limit(settings: Settings) -> None:
    """Raises the soft limit of open files as far as the bound of connections needs it, as Go's runtime does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.connections_limit + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


class Connections:
    """Counts by IPv4 address, and by IPv6 networks of 64, 56 and 48 bits. Those of trusted proxies count in all only.

    Where there is no room left, an idle connection of whoever has most gives way to one of whoever has fewer.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.connections_limit
        self._per_address = settings.connections_per_address
        self._trusted = settings.trusted_proxies
        self._networks: dict[asyncio.Transport, tuple[str, ...]] = {}
        # The connections of each network, the oldest first.
        self._by_network: dict[str, dict[asyncio.Transport, None]] = {}
        # Those that may give way, by customer, which is the widest network that is counted.
        self._by_customer: dict[str, dict[asyncio.Transport, None]] = {}
        # Customers by the number of their connections.
        self._by_size: dict[int, dict[str, None]] = {}
        self._refused = 0
        self._logged_s = -_LOG_EVERY_S

    def __len__(self) -> int:
        return len(self._networks)

    def admit(self, transport: asyncio.Transport, peer: str | None) -> bool:
        """`peer` is the address of the other side, None for a Unix socket. False: close it."""
        networks = () if peer is None or is_trusted_peer(peer, self._trusted) else networks_of(peer)
        has_room = self._has_room_for(networks) and (
            len(self._networks) < self._room or self._make_room(networks[-1][0] if networks else None)
        )
        if not has_room:
            self._log_refusal()
            return False
        names = tuple(name for name, _ in networks)
        self._networks[transport] = names
        for name in names:
            self._by_network.setdefault(name, {})[transport] = None
        if names:
            held = self._by_customer[names[-1]] = self._by_network[names[-1]]
            self._resize(names[-1], len(held) - 1, len(held))
        return True

    def forget(self, transport: asyncio.Transport) -> None:
        """Also of one that was refused, or forgotten before."""
        for name in self._networks.pop(transport, ()):
            held = self._by_network[name]
            del held[transport]
            if name in self._by_customer:
                self._resize(name, len(held) + 1, len(held))
            if not held:
                del self._by_network[name]
                self._by_customer.pop(name, None)

    def _resize(self, customer: str, before: int, after: int) -> None:
        if before:
            of_size = self._by_size[before]
            del of_size[customer]
            if not of_size:
                del self._by_size[before]
        if after:
            self._by_size.setdefault(after, {})[customer] = None

    def _has_room_for(self, networks: Sequence[tuple[str, int]]) -> bool:
        if not self._per_address:
            return True
        return all(len(self._by_network.get(name, ())) < share * self._per_address for name, share in networks)

    @property
    def _room(self) -> int:
        """As set, as far as the process may have so many files."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self._limit
        return min(self._limit, max(soft - _OTHER_FILES, soft // 2))

    def _make_room(self, customer: str | None) -> bool:
        """Closes an idle connection of the customer who has most, of those who have more than this one.

        Looks at the oldest first. What was looked at and is busy goes to the end, so that the next look finds others.
        """
        own = 0 if customer is None else len(self._by_customer.get(customer, ()))
        looks = _LOOKS
        # With n connections there are at most about the root of 2n different sizes.
        for size in sorted((size for size in self._by_size if size > own), reverse=True):
            of_size = self._by_size[size]
            for name in list(islice(of_size, looks)):
                held = self._by_customer[name]
                for transport in list(islice(held, looks)):
                    if _is_idle(transport):
                        self.forget(transport)
                        transport.close()
                        return True
                    looks -= 1
                    held[transport] = held.pop(transport)
                of_size[name] = of_size.pop(name)
                if not looks:
                    return False
        return False

    def _log_refusal(self) -> None:
        self._refused += 1
        now_s = monotonic()
        if now_s >= self._logged_s + _LOG_EVERY_S:
            log.warning("connections.refused", refused=self._refused, open=len(self._networks))
            self._refused, self._logged_s = 0, now_s


def _is_idle(transport: asyncio.Transport) -> bool:
    protocol: Any = transport.get_protocol()
    return getattr(protocol, "is_idle", False) and not transport.get_write_buffer_size()

"""What an attack is made on: an app, as a client sees it, and the world whose people attack and are attacked."""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar
from zlib import crc32

import httpx

from tests.security.routes import Route
from tests.security.world import World

_Payload = TypeVar("_Payload")

# These get everything: a body with an amount, one with lists in it, and a list with every kind of filter.
THOROUGH: Final = frozenset(
    {
        "POST /api/v1/withdrawals",
        "POST /api/v1/transfers/batch",
        "GET /api/v1/wallets/{wallet_id}/transactions",
    }
)


class Target(NamedTuple):
    """`api` may be a weakened app; the world's own is always the sound one."""

    api: httpx.AsyncClient
    world: World
    routes: list[Route]


def share(payloads: Sequence[_Payload], route: Route, place: object, count: int) -> Sequence[_Payload]:
    """So many of them for this place of this route, other ones for others, the same each time.

    All of everything on every route would take minutes and tell nothing more: the routes read their requests in one
    way. Each kind of attack reaches every place, and each single one some of them.
    """
    if str(route) in THOROUGH or len(payloads) <= count:
        return payloads
    start = crc32(f"{route} {place}".encode()) % len(payloads)
    return [payloads[(start + step) % len(payloads)] for step in range(count)]

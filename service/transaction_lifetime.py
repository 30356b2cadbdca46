"""How long MongoDB lets a transaction live: set on each member of a replica set, and watched while the service runs.

It is a parameter of the server, so a set does not replicate it: each member has its own, and only the primary's counts.
A member that was away at the set-up, or that joins later, has MongoDB's minute until somebody sets it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import pymongo
import structlog
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

log = structlog.get_logger()

_Client = AsyncMongoClient[dict[str, Any]]

# A process that dies in a transaction leaves its documents locked until the server ends the transaction. MongoDB's
# own minute would stop every other writer of a hot wallet for as long; no batch of ours takes seconds.
TRANSACTION_LIFETIME_S: Final = 5
LIFETIME_PARAMETER: Final = "transactionLifetimeLimitSeconds"
_MEMBER_LIMIT_S: Final = 5.0
# Unauthorized, and what hosted clusters say of parameters that are theirs.
_MAY_NOT: Final = (13, 20, 72, 8000)
# Of a connection string: they name the set, and a client of one member has to leave them out.
_OF_THE_SET: Final = frozenset({"replicaset", "directconnection", "loadbalanced", "srvmaxhosts", "srvservicename"})


class _Member(NamedTuple):
    """`trouble` is why it could not be asked; `found_s` is None where that, or where it may not be read."""

    address: str
    found_s: int | None
    trouble: str | None = None

    @property
    def is_fine(self) -> bool:
        return self.found_s is not None and self.found_s <= TRANSACTION_LIFETIME_S

    @property
    def told(self) -> str:
        if self.trouble is not None:
            return f"not known on {self.address}, which does not answer ({self.trouble})"
        return f"{'not known' if self.found_s is None else f'{self.found_s} s'} on {self.address}"


async def limit_transactions(client: _Client, admin_url: str) -> str:
    """Sets it on every member that answers, for as long as that server runs. Says where it is not what it should be."""
    addresses = await _member_addresses(client)
    if addresses:
        members = list(await asyncio.gather(*(_limit_on_member(admin_url, one) for one in addresses)))
    else:
        # A router, or a server without a set.
        members = [await _limit_on(client, "the server")]
    wrong = [member for member in members if not member.is_fine]
    if not wrong:
        longest_s = max(member.found_s or 0 for member in members)
        where = "the server" if len(members) == 1 else f"each of {len(members)} servers"
        return f"transactions: ended by {where} after {longest_s} s"
    for member in wrong:
        log.warning(
            "database.transactions_live_long",
            member=member.address,
            found_s=member.found_s,
            wanted_s=TRANSACTION_LIFETIME_S,
            parameter=LIFETIME_PARAMETER,
            error=member.trouble,
        )
    return _warning_of(wrong)


def _warning_of(wrong: Sequence[_Member]) -> str:
    wanted_s = TRANSACTION_LIFETIME_S
    told = ", ".join(member.told for member in wrong)
    return (
        f"transactions: WARNING: {LIFETIME_PARAMETER} is {told}, and was not set there. What a killed process has "
        "locked stays locked for as long while that server is the primary, unless another process ends its session, "
        f"which the service does within seconds. Set it to {wanted_s} on every server (mongod --setParameter "
        f"{LIFETIME_PARAMETER}={wanted_s}, or the provider's console), or set up again once every member answers; see "
        "README, Concurrency"
    )


async def _member_addresses(client: _Client) -> list[str]:
    """Of all that may become the primary, or could once; empty where there is no set."""
    hello = await client.admin.command("hello")
    return sorted([*hello.get("hosts", ()), *hello.get("passives", ())])


async def _limit_on_member(admin_url: str, address: str) -> _Member:
    try:
        async with _client_of(admin_url, address) as client:
            return await _limit_on(client, address)
    except (PyMongoError, OSError) as error:
        return _Member(address, None, type(error).__name__)


def _client_of(admin_url: str, address: str) -> _Client:
    """A client of this one member, with the URL's user and options."""
    parsed = parse_uri(admin_url)
    options: Mapping[str, Any] = parsed["options"]
    own = {name: value for name, value in options.items() if name.lower() not in _OF_THE_SET}
    if admin_url.startswith("mongodb+srv:"):
        own.setdefault("tls", True)
    limit_ms = int(_MEMBER_LIMIT_S * 1000)
    return AsyncMongoClient(
        f"mongodb://{address}",
        username=parsed["username"],
        password=parsed["password"],
        **own
        | {"directConnection": True, "appname": "wallet-service"}
        | {"serverSelectionTimeoutMS": limit_ms, "connectTimeoutMS": limit_ms},
    )


async def _limit_on(client: _Client, address: str) -> _Member:
    with pymongo.timeout(_MEMBER_LIMIT_S):
        try:
            await client.admin.command({"setParameter": 1, LIFETIME_PARAMETER: TRANSACTION_LIFETIME_S})
        except OperationFailure as error:
            if error.code not in _MAY_NOT:
                raise
            return _Member(address, await find_lifetime_s(client))
    return _Member(address, TRANSACTION_LIFETIME_S)


async def find_lifetime_s(client: _Client) -> int | None:
    """The primary's. None where this user may not see it, or a router stands before the servers."""
    try:
        found = await client.admin.command({"getParameter": 1, LIFETIME_PARAMETER: 1})
    except OperationFailure:  # nothing depends on it
        return None
    return int(found[LIFETIME_PARAMETER])


class LifetimeWatch:
    """Warns of a primary that lets transactions live long: at the start, and after an election."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._found_s: int | None = None

    async def look(self) -> None:
        """Raises PyMongoError in an outage."""
        found_s = await find_lifetime_s(self._client)
        if found_s is None or found_s == self._found_s:
            return
        self._found_s = found_s
        if found_s > TRANSACTION_LIFETIME_S:
            log.warning(
                "database.transactions_live_long",
                found_s=found_s,
                wanted_s=TRANSACTION_LIFETIME_S,
                parameter=LIFETIME_PARAMETER,
            )

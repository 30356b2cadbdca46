"""Sets and checks `transactionLifetimeLimitSeconds`.

MongoDB ends a transaction after that time. It is a parameter of the server, so a set does not replicate it: each member
has its own, and only the primary's counts. A member that was away at the set-up, or that joins later, has MongoDB's
minute until somebody sets it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

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
_FORBIDDEN_CODES: Final = (13, 20, 72, 8000)
_LOGIN_REFUSED_CODE: Final = 18
# Of a connection string: they name the set, and a client of one member has to leave them out.
_REPLICA_SET_OPTIONS: Final = frozenset(
    {"replicaset", "directconnection", "loadbalanced", "srvmaxhosts", "srvservicename"}
)


class _Member(NamedTuple):
    """`found_s`: None if the server did not answer or does not allow reading it. `trouble`: why not."""

    address: str
    found_s: int | None
    trouble: str | None = None

    @property
    def is_short_enough(self) -> bool:
        return self.found_s is not None and self.found_s <= TRANSACTION_LIFETIME_S

    @property
    def description(self) -> str:
        if self.trouble is not None:
            return f"not known on {self.address}, which {self.trouble}"
        return f"{'not known' if self.found_s is None else f'{self.found_s} s'} on {self.address}"


async def limit_transactions(client: _Client, admin_url: str) -> str:
    """Sets the parameter on every member that answers. It lasts until that server ends.

    Returns a line for the set-up's report.
    """
    addresses = await _member_addresses(client)
    if addresses:
        members = list(await asyncio.gather(*(_limit_on_member(admin_url, one) for one in addresses)))
    else:
        # A router, or a server without a set.
        members = [await _limit_on(client, "the server")]
    wrong = [member for member in members if not member.is_short_enough]
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
    values = ", ".join(member.description for member in wrong)
    return (
        f"transactions: WARNING: {LIFETIME_PARAMETER} is {values}, and was not set there. What a killed process has "
        "locked stays locked for as long while that server is the primary, unless another process ends its session, "
        f"which the service does within seconds. Set it to {wanted_s} on every server (mongod --setParameter "
        f"{LIFETIME_PARAMETER}={wanted_s}, or the provider's console), or set up again once every member answers; see "
        "README, Concurrency"
    )


async def _member_addresses(client: _Client) -> list[str]:
    """Addresses of members that can become primary, or could with a higher priority. Empty without a replica set."""
    hello = await client.admin.command("hello")
    return sorted([*hello.get("hosts", ()), *hello.get("passives", ())])


async def _limit_on_member(admin_url: str, address: str) -> _Member:
    try:
        async with _client_of(admin_url, address) as client:
            return await _limit_on(client, address)
    except OperationFailure as error:
        is_login = error.code == _LOGIN_REFUSED_CODE
        return _Member(address, None, "refuses the login" if is_login else f"answers with error {error.code}")
    except (PyMongoError, OSError) as error:
        return _Member(address, None, f"does not answer ({type(error).__name__})")


def _client_of(admin_url: str, address: str) -> _Client:
    """A client of this one member, with the URL's user and options.

    The URL's database as well: where no authSource is named, the user is looked up there.
    """
    parsed = parse_uri(admin_url)
    options: Mapping[str, Any] = parsed["options"]
    own = {name: value for name, value in options.items() if name.lower() not in _REPLICA_SET_OPTIONS}
    if admin_url.startswith("mongodb+srv:"):
        own.setdefault("tls", True)
    limit_ms = int(_MEMBER_LIMIT_S * 1000)
    return AsyncMongoClient(
        f"mongodb://{address}/{quote(parsed['database'] or '', safe='')}",
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
            if error.code not in _FORBIDDEN_CODES:
                raise
            return _Member(address, await find_lifetime_s(client))
    return _Member(address, TRANSACTION_LIFETIME_S)


async def find_lifetime_s(client: _Client) -> int | None:
    """Reads the parameter from the server that this client reaches.

    None where this user may not see it, or a router stands before the servers.
    """
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

"""MongoDB: the client, the ways to open a transaction, and the set-up of collections, indexes and roles."""

import asyncio
import linecache
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import pymongo
import structlog
from beanie import Document, init_beanie
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
    WriteConcernError,
)
from pymongo.monitoring import CommandListener
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from service.documents import BANK_DOCUMENTS, WALLET_DOCUMENTS
from service.errors import Unavailable
from service.settings import Settings
from service.transaction_lifetime import limit_transactions

log = structlog.get_logger()

Result = TypeVar("Result")
Client = AsyncMongoClient[dict[str, Any]]
Database = AsyncDatabase[dict[str, Any]]

# A commit that a majority has in its journal: what a client was told survives a crash and a failover.
DURABLE = WriteConcern("majority", j=True)
_CONCERNS: Any = {
    "read_concern": ReadConcern("snapshot"),
    "write_concern": DURABLE,
    "read_preference": ReadPreference.PRIMARY,
}
_MAX_COMMIT_MS = 4_000
# Of a replica set's configuration. README, Failover, has what was measured.
ELECTION_SETTINGS: Mapping[str, int] = MappingProxyType(
    {
        # Without a sign of the primary for so long, a secondary stands for election. MongoDB's own 10 s are 11 s
        # without writes. Much less than 2 s, and a machine that is merely busy elects a new primary for nothing.
        "electionTimeoutMillis": 2_000,
        # Several signs within that time, so that one that is late decides nothing.
        "heartbeatIntervalMillis": 500,
        # A new primary asks every member how far it is before it takes writes, and waits so long for a silent one.
        "heartbeatTimeoutSecs": 2,
        # Then it fetches what others have and it lacks, for so long. Nothing that a majority has confirmed can be lost
        # by it: nobody who lacks any of that is elected.
        "catchUpTimeoutMillis": 2_000,
    }
)
_PATIENCE_S = 10.0
# The driver sets none for it, and swallows it: a lost connection would be waited for as long as the kernel tries.
_ABORT_S = 1.0
# A connection that something in between has forgotten, while others live, is read from for ever unless told otherwise.
# Longer than the longest command of ours that says how long it may take (services/account_sums.py).
_SILENCE_S = 300.0
_RETRY_AFTER_S = 1

# Nobody there to answer, or no majority: what is raised where no transaction's own patience comes first.
OUTAGES: tuple[type[Exception], ...] = (ConnectionFailure, ExecutionTimeout, WaitQueueTimeoutError, WriteConcernError)
# What a server may refuse a command with; `says_it_is_away` tells those apart that are an outage too.
REFUSALS: tuple[type[Exception], ...] = (OperationFailure,)
# What a server says that ends or is no longer the primary, or that has broken a command off. Where one of a command's
# writes met it, the driver raises a plain WriteError: "Server Discovery and Monitoring", state change errors.
_AWAY_CODES = frozenset({91, 189, 10058, 10107, 11600, 11601, 11602, 13435, 13436})

_NAMESPACE_EXISTS = 48
# A collection that was made or indexed a moment ago is not in any snapshot yet.
_SNAPSHOT_UNAVAILABLE = 246
_SNAPSHOT_ATTEMPTS = 10
_SNAPSHOT_PAUSE_S = 0.2
_SERVICE_ROLE = "wallet_service"
_BANK_ROLE = "wallet_bank"
_AUDITOR_ROLE = "wallet_auditor"
# What the service's user may do: insert only where nothing may change, and delete only what is done with.
_ACTIONS = {
    "transaction_logs": ["find", "insert"],
    "account_sums": ["find", "insert"],
    "account_corrections": ["find", "insert"],
    "audit_events": ["find", "insert"],
    "rewards": ["find", "insert"],
    "redemptions": ["find", "insert"],
    "outbox": ["find", "insert", "update", "remove"],
    "checkpoints": ["find", "insert"],
    "checkpoint_tiles": ["find", "insert"],
    "refused_checkpoints": ["find", "insert"],
    "used_tickets": ["find", "insert"],
    "ledger_processes": ["find", "insert", "update", "remove"],
    "house_positions": ["find", "insert", "update", "remove"],
}
_USUAL_ACTIONS = ["find", "insert", "update"]
_ROLE_NOT_FOUND = 31
_USER_NOT_FOUND = 11
_EXISTS = {"Role": 51002, "User": 51003}


def says_it_is_away(error: BaseException) -> bool:
    """Whether a server refused a command, or one of its writes, since it ends or is no longer the primary."""
    if isinstance(error, BulkWriteError):
        return any(one["code"] in _AWAY_CODES for one in error.details.get("writeErrors", ()))
    return isinstance(error, OperationFailure) and error.code in _AWAY_CODES


class Databases(NamedTuple):
    """Ours, and the bank's own journal, which may have a client of its own: its user is another one."""

    client: Client
    wallet: Database
    bank: Database

    async def close(self) -> None:
        await self.client.close()
        if self.bank.client is not self.client:
            await self.bank.client.close()


def connect(
    url: str,
    settings: Settings,
    listeners: Sequence[CommandListener] = (),
    *,
    silence_s: float | None = _SILENCE_S,
) -> Databases:
    """`silence_s` is how long one command may be answered by nothing, where no pymongo.timeout says otherwise.

    None for what a person starts and can end, and which takes as long as there are data: scans, builds of indexes.
    As the service's user, the bank's journal is reached as the bank's, where there is one.
    """
    client = _client(url, listeners, silence_s)
    bank = client
    if settings.bank_mongo_url is not None and url == settings.mongo_url.get_secret_value():
        bank = _client(settings.bank_mongo_url.get_secret_value(), listeners, silence_s)
    # The driver has noted who makes a client, and Python has kept the text of every file on the way: 2 MB.
    linecache.clearcache()
    return Databases(client, client[settings.database], bank[settings.bank_database])


def _client(url: str, listeners: Sequence[CommandListener], silence_s: float | None) -> Client:
    return AsyncMongoClient(
        url,
        tz_aware=True,
        appname="wallet-service",
        # Finds a new primary within a second; the driver's default of 10 s would be felt by every client.
        heartbeatFrequencyMS=1000,
        serverSelectionTimeoutMS=5000,
        connectTimeoutMS=5000,
        # For each command: every batch of a cursor has as long.
        socketTimeoutMS=None if silence_s is None else int(silence_s * 1000),
        w="majority",
        journal=True,
        retryWrites=True,
        event_listeners=listeners,
    )


async def bind_documents(databases: Databases) -> None:
    """Tells Beanie where its documents live. Creates nothing: that is set_up's work, with more rights."""
    await init_beanie(databases.wallet, document_models=WALLET_DOCUMENTS, skip_indexes=True)
    await init_beanie(databases.bank, document_models=BANK_DOCUMENTS, skip_indexes=True)


@asynccontextmanager
async def session_in_transaction(client: Client) -> AsyncIterator[AsyncClientSession]:
    """One attempt at a transaction: commits at the end of the block, aborts where the block raises.

    The caller decides what to do about TransientTransactionError and UnknownTransactionCommitResult.
    """
    async with client.start_session() as session:
        await start_transaction(session)
        try:
            yield session
        except BaseException:  # a cancelled task too must not leave its documents locked
            await abort_transaction(session)
            raise
        with pymongo.timeout(_PATIENCE_S):
            await session.commit_transaction()


async def run_in_transaction(client: Client, work: Callable[[AsyncClientSession], Awaitable[Result]]) -> Result:
    """For what the ledger does not do: `work` in a transaction of its own, again where it lost a race.

    `work` may run several times, so ids and times are handed in. Raises what it raises, and Unavailable where
    the database does not answer in time.
    """
    try:
        # The driver's own budget for retries is two minutes; ours is what a client will wait.
        with pymongo.timeout(_PATIENCE_S):
            async with client.start_session() as session:
                return await session.with_transaction(work, max_commit_time_ms=_MAX_COMMIT_MS, **_CONCERNS)
    except PyMongoError as error:
        if error.timeout or isinstance(error, ConnectionFailure):
            log.warning("database.transaction_gave_up", error=repr(error))
            raise Unavailable(retry_after_s=_RETRY_AFTER_S) from error
        raise


async def read_in_snapshot(client: Client, read: Callable[[AsyncClientSession], Awaitable[Result]]) -> Result:
    """Reads of one moment, the latest that a majority has; nothing can be written.

    Unlike a transaction it may take minutes and holds nothing up: a server keeps such a moment for
    `minSnapshotHistoryWindowInSeconds`, 300 unless set otherwise. `read` may run several times: a collection that was
    made a moment ago is in no snapshot yet.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            async with client.start_session(snapshot=True) as session:
                return await read(session)
        except OperationFailure as error:
            if error.code != _SNAPSHOT_UNAVAILABLE or attempt == _SNAPSHOT_ATTEMPTS:
                raise
            await asyncio.sleep(_SNAPSHOT_PAUSE_S)


def logical_time(session: AsyncClientSession) -> datetime:
    """The server's logical clock, in whole seconds, as of the latest reply to this session, which must have read.

    What commits later commits at a later time, whatever member is primary then. When nothing is written it is up to
    10 s behind the server's own clock (periodicNoopIntervalSecs).
    """
    told: Mapping[str, Any] = session.cluster_time or {}
    moment: datetime = told["clusterTime"].as_datetime()
    return moment


def snapshot_time(session: AsyncClientSession) -> datetime:
    """The logical time of a snapshot session's moment, once it has read: what committed by then is seen.

    While a majority is away that moment stands still, and the clocks go on.
    """
    # The driver keeps it for its own next reads and shows it nowhere.
    told: Any = session._snapshot_time  # noqa: SLF001 there is no public way to it
    moment: datetime = told.as_datetime()
    return moment


async def start_transaction(session: AsyncClientSession) -> None:
    """Concerns stand on the transaction: operations inside may not bring their own."""
    await session.start_transaction(max_commit_time_ms=_MAX_COMMIT_MS, **_CONCERNS)


async def abort_transaction(session: AsyncClientSession) -> None:
    """Where one is open. One whose end the server does not hear of it ends itself (transaction_lifetime.py)."""
    if session.in_transaction:
        with pymongo.timeout(_ABORT_S):
            await session.abort_transaction()


class OldData(Exception):
    """The database holds wallets of a version whose data this one cannot go on with."""


async def set_up(settings: Settings) -> list[str]:
    """Makes collections, validators, indexes, the service's role and its user; safe to repeat. Says what it did.

    Raises OldData before it changes anything.
    """
    admin_url = (settings.mongo_admin_url or settings.mongo_url).get_secret_value()
    databases = connect(admin_url, settings, silence_s=None)
    try:
        await _refuse_old_data(databases)
        lines = [
            await _set_up_collection(database, document)
            for database, documents in ((databases.wallet, WALLET_DOCUMENTS), (databases.bank, BANK_DOCUMENTS))
            for document in documents
        ]
        return [
            *lines,
            await limit_transactions(databases.client, admin_url),
            await _tell_about_elections(databases),
            await _set_up_users(databases, settings),
        ]
    finally:
        await databases.close()


async def _refuse_old_data(databases: Databases) -> None:
    """Counters that are missing could not be made up for: what they should have counted is not known any more.

    And accounts that lie in clear, here and in every backup, are not made secret by sealing them late.
    """
    if await databases.wallet["wallets"].find_one({"open_operations": {"$exists": False}}, {"_id": 1}) is not None:
        raise OldData(
            f"The database {databases.wallet.name} was written by version 0.1, whose wallets lack their counters. "
            "There is no way on from there: choose another WALLET_DATABASE, or for the embedded stack another "
            "WALLET_DATA_DIR, or remove the old data."
        )
    for name in ("deposits", "withdrawals"):
        # Ids are in the order of time, so that the oldest is the first.
        oldest = await databases.wallet[name].find_one({}, {"account": 1}, sort=[("_id", 1)])
        if oldest is not None and "account" in oldest:
            raise OldData(
                f"The database {databases.wallet.name} was written by version 0.2, which kept accounts at the bank in "
                "clear. This version reads sealed ones only: choose another WALLET_DATABASE, or for the embedded "
                "stack another WALLET_DATA_DIR, or remove the old data."
            )


async def _set_up_collection(database: Database, document: type[Document]) -> str:
    declared: Any = document.Settings
    validation: dict[str, Any] = {
        "validator": {"$jsonSchema": declared.validator},
        "validationLevel": "strict",
        "validationAction": "error",
    }
    try:
        await database.create_collection(declared.name, check_exists=False, **validation)
        done = "created"
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise
        await database.command("collMod", declared.name, **validation)
        done = "up to date"
    names = await database[declared.name].create_indexes(declared.indexes) if declared.indexes else []
    return f"{database.name}.{declared.name}: {done}, indexes {', '.join(names) or 'none but that on _id'}"


async def _tell_about_elections(databases: Databases) -> str:
    """A set's configuration belongs to whoever runs the set, so this only says where it costs time."""
    try:
        answer = await databases.client.admin.command("replSetGetConfig")
    except OperationFailure:  # nothing depends on it
        return "elections: their settings are not known, the set-up's user may not read them"
    settings = answer["config"]["settings"]
    slow = {name: settings[name] for name, most in ELECTION_SETTINGS.items() if not 0 <= settings[name] <= most}
    if slow:
        told = ", ".join(f"{name} is {value}" for name, value in slow.items())
        return f"elections: a dead primary costs more time than it has to ({told}); see README, Failover"
    return f"elections: after {settings['electionTimeoutMillis'] / 1000:g} s without a primary"


async def _set_up_users(databases: Databases, settings: Settings) -> str:
    """The service's own user, and those of the bank and of who checks the books, where the settings name them.

    Each may do something with each collection, and nothing about collections as such.
    """
    admin_url = parse_uri((settings.mongo_admin_url or settings.mongo_url).get_secret_value())
    ours, banks = (databases.wallet, WALLET_DOCUMENTS), (databases.bank, BANK_DOCUMENTS)
    of_service = (ours,) if settings.bank_mongo_url is not None else (ours, banks)
    wanted = (
        (settings.mongo_url, _SERVICE_ROLE, _privileges(*of_service)),
        (settings.bank_mongo_url, _BANK_ROLE, _privileges(banks)),
        (settings.audit_mongo_url, _AUDITOR_ROLE, _privileges(ours, banks, actions=["find"])),
    )
    usernames: list[str] = []
    for url, role, privileges in wanted:
        if url is None:
            continue
        named = parse_uri(url.get_secret_value())
        username = named["username"]
        if username is None:
            return "roles: left out, WALLET_MONGO_URL names no user"
        if username == admin_url["username"]:
            return f"roles: left out, {username} is the user of the set-up itself"
        if username in usernames:
            raise ValueError(
                f"{username} is named by two URLs: the bank and who checks the books need users of their own"
            )
        await _set_up_user(databases, username, named["password"], f"{role}_{settings.database}", role, privileges)
        usernames.append(username)
    return f"roles: {usernames[0]} may only find and insert in logs, sums and checkpoints, and delete what is done with"


def _privileges(
    *declared: tuple[Database, Sequence[type[Document]]], actions: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    privileges: list[dict[str, Any]] = [
        {
            "resource": {"db": database.name, "collection": name},
            "actions": list(actions or _ACTIONS.get(name, _USUAL_ACTIONS)),
        }
        for database, documents in declared
        for name in map(_name_of, documents)
    ]
    # To see how long a new primary lets transactions live.
    return [*privileges, {"resource": {"cluster": True}, "actions": ["getParameter"]}]


def _name_of(document: type[Document]) -> str:
    declared: Any = document.Settings
    name: str = declared.name
    return name


async def _set_up_user(
    databases: Databases, username: str, password: str | None, role: str, kind: str, privileges: list[dict[str, Any]]
) -> None:
    admin = databases.client["admin"]
    await _update_or_create(admin, "Role", role, _ROLE_NOT_FOUND, {"privileges": privileges, "roles": []})
    users = await admin.command("usersInfo", username)
    held = [] if not users["users"] else users["users"][0]["roles"]
    # One server may hold several of the service's databases, each with a role of its own; no other role is kept. Each
    # set-up adds its own, since another one's may run at the same time.
    granted = {"roles": [{"role": role, "db": "admin"}]}
    await _update_or_create(admin, "User", username, _USER_NOT_FOUND, {"pwd": password}, granted)
    await admin.command({"grantRolesToUser": username, **granted})
    foreign = [r for r in held if not r["role"].startswith(kind)]
    if foreign:
        await admin.command({"revokeRolesFromUser": username, "roles": foreign})


async def _update_or_create(
    admin: Database,
    kind: str,
    name: str,
    not_found: int,
    definition: dict[str, Any],
    at_first: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """`at_first` is what only a new one is given."""
    try:
        await admin.command({f"update{kind}": name, **definition})
    except OperationFailure as error:
        if error.code != not_found:
            raise
        try:
            await admin.command({f"create{kind}": name, **definition, **at_first})
        except OperationFailure as exists:
            # Somebody else's set-up was faster.
            if exists.code != _EXISTS[kind]:
                raise

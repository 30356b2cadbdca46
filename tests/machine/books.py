"""Where the machine's sequences are kept: the real database, or the memory of this process.

Both run the same batches of the same rules. The database also shows guards, validators and transactions; memory takes a
fiftieth of the time, so that tests of each line of the rules (mutation tests) can afford whole sequences.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from bson.int64 import Int64

from service.database import Databases, session_in_transaction
from service.domain.accounts import ENTRY_ID_AGE, ENTRY_ID_AHEAD
from service.domain.clock import utc_now
from service.domain.house_positions import AccountCurrency
from service.domain.identifiers import IdWindow, Prefix, new_id
from service.domain.policy import Policy
from service.domain.records import Record
from service.domain.wallets import Wallet, new_wallet
from service.ledger.batch import Decided
from service.ledger.commands import Command
from service.ledger.house_portions import PortionCache
from service.repositories import ledger_processes as process_repository
from service.repositories import records as record_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.repositories.records import HOMES, to_row
from service.services.trial_balance import TrialBalance, draw_up_trial_balance
from tests.books import Books as MemoryLedger
from tests.factories import build_user, run
from tests.servers import Admin

Row = dict[str, Any]


class Accounts(NamedTuple):
    """The trial balance as numbers: what each account has, and what is left over in each currency."""

    accounts: Mapping[tuple[str, str], int]
    left_over: Mapping[str, tuple[int, int]]


def collection_of(record_id: str) -> str:
    """By the id's prefix. Beanie knows it as well, but only once it has a database."""
    settings: Any = vars(HOMES[record_id.partition("_")[0]].document)["Settings"]
    name: str = settings.name
    return name


class Books(Protocol):
    """What the machine writes to and reads back. Rows are as MongoDB has them."""

    async def open(self, users: Sequence[str], wallets: Mapping[str, tuple[str, str]], now: datetime) -> None:
        """Wallets by id, with owner and currency."""

    async def insert(self, record: Record) -> None:
        """One that no command makes."""

    async def let_act(self, user: str, *, is_active: bool) -> None: ...

    async def run(self, commands: Sequence[Command], policy: Policy) -> list[Decided]:
        """The commands as one batch."""
        ...

    async def find(self, collection: str, ids: Iterable[str]) -> dict[str, Row]: ...

    async def find_entries(self, last_seq: Mapping[str, int]) -> list[Row]:
        """Of each wallet those after its number, in the order of the numbers."""
        ...

    async def find_awaited(self, subject_ids: Iterable[str]) -> list[Row]:
        """Rows of the outbox."""
        ...

    async def find_keys(self, users: Iterable[str]) -> set[str]: ...
    async def forget_keys(self, keys: Iterable[str]) -> None: ...
    async def find_audit_events(self, actors: Iterable[str]) -> list[Row]:
        """In the order of their ids."""
        ...

    async def forget_awaited(self, row_ids: Iterable[str]) -> None: ...
    async def set_headroom(self, headroom: Mapping[AccountCurrency, int]) -> None:
        """What these accounts can give from here on."""

    async def find_headroom(self, pairs: Iterable[AccountCurrency]) -> dict[AccountCurrency, int]: ...
    async def draw_up(self) -> Accounts: ...


class DatabaseBooks:
    """On the real MongoDB."""

    def __init__(self, databases: Databases, admin: Admin) -> None:
        """The service's own user may not remove keys."""
        self._databases = databases
        self._wallet = databases.wallet
        self._keys = admin[databases.wallet.name]["idempotency_keys"]
        # As of two processes, of which each commits every other batch.
        self._turn, self._other_turn = PortionCache(uuid4().hex), PortionCache(uuid4().hex)

    async def open(self, users: Sequence[str], wallets: Mapping[str, tuple[str, str]], now: datetime) -> None:
        async with session_in_transaction(self._databases.client) as session:
            await user_repository.insert_many([build_user(id=user) for user in users], session=session)
            await wallet_repository.insert_many(_new_wallets(wallets, now), session=session)

    async def insert(self, record: Record) -> None:
        async with session_in_transaction(self._databases.client) as session:
            await record_repository.insert_many([record], session=session)

    async def let_act(self, user: str, *, is_active: bool) -> None:
        event_id = None if is_active else new_id(Prefix.AUDIT_EVENT)
        standing = {"is_active": is_active, "deactivation_event_id": event_id}
        await self._wallet["users"].update_one({"_id": user}, {"$set": standing})

    async def run(self, commands: Sequence[Command], policy: Policy) -> list[Decided]:
        self._turn, self._other_turn = self._other_turn, self._turn
        return await run(self._databases, *commands, policy=policy, is_bank_asked=False, own=self._turn)

    async def find(self, collection: str, ids: Iterable[str]) -> dict[str, Row]:
        found = self._wallet[collection].find({"_id": {"$in": list(ids)}})
        return {row["_id"]: row for row in await found.to_list()}

    async def find_entries(self, last_seq: Mapping[str, int]) -> list[Row]:
        since = [{"wallet_id": name, "seq": {"$gt": seq}} for name, seq in last_seq.items()]
        return await self._wallet["transaction_logs"].find({"$or": since}).sort("seq").to_list()

    async def find_awaited(self, subject_ids: Iterable[str]) -> list[Row]:
        return await self._wallet["outbox"].find({"subject_id": {"$in": list(subject_ids)}}).to_list()

    async def find_keys(self, users: Iterable[str]) -> set[str]:
        ranges = [{"_id": {"$gte": f"{user}:", "$lt": f"{user};"}} for user in users]
        rows = self._wallet["idempotency_keys"].find({"$or": ranges or [{"_id": "nobody"}]}, {"_id": 1})
        return {row["_id"] for row in await rows.to_list()}

    async def forget_keys(self, keys: Iterable[str]) -> None:
        self._keys.delete_many({"_id": {"$in": list(keys)}})

    async def find_audit_events(self, actors: Iterable[str]) -> list[Row]:
        events = self._wallet["audit_events"].find({"actor_id": {"$in": sorted(actors)}}, sort=[("_id", 1)])
        return await events.to_list()

    async def forget_awaited(self, row_ids: Iterable[str]) -> None:
        await self._wallet["outbox"].delete_many({"_id": {"$in": list(row_ids)}})

    async def set_headroom(self, headroom: Mapping[AccountCurrency, int]) -> None:
        for own in (self._turn, self._other_turn):
            await process_repository.beat(own.owner, "tests", 1, None, [])
        await self._set_headroom(headroom)

    async def _set_headroom(self, headroom: Mapping[AccountCurrency, int]) -> None:
        rows = self._wallet["house_positions"]
        for (account, currency), left in headroom.items():
            await rows.delete_many({"account": account, "currency": currency})
            pool = {"_id": f"{account}/{currency}/pool", "account": account, "currency": currency, "owner": "pool"}
            await rows.insert_one(pool | {"headroom": Int64(left), "version": Int64(0), "floor": Int64(0)})

    async def find_headroom(self, pairs: Iterable[AccountCurrency]) -> dict[AccountCurrency, int]:
        found = dict.fromkeys(pairs, 0)
        async for row in self._wallet["house_positions"].find():
            if (row["account"], row["currency"]) in found:
                found[row["account"], row["currency"]] += row["headroom"]
        return found

    async def draw_up(self) -> Accounts:
        balance: TrialBalance = await draw_up_trial_balance(self._databases.client)
        return Accounts(
            {(one.account, one.currency): one.balance for part in balance.currencies for one in part.accounts},
            {part.currency: (part.total, part.between_wallets.balance) for part in balance.currencies},
        )


class MemoryBooks:
    """The same batches, applied to dictionaries. What the database would refuse is refused by assertions."""

    def __init__(self) -> None:
        self._books = MemoryLedger({}, {})

    async def open(self, users: Sequence[str], wallets: Mapping[str, tuple[str, str]], now: datetime) -> None:
        self._books.users |= dict.fromkeys(users, 0)
        self._books.wallets |= {wallet.id: wallet for wallet in _new_wallets(wallets, now)}

    async def insert(self, record: Record) -> None:
        self._books.records[record.id] = record

    async def let_act(self, user: str, *, is_active: bool) -> None:
        self._books.users.pop(user, None)
        self._books.deactivations[user] = new_id(Prefix.AUDIT_EVENT)
        if is_active:
            self._books.users[user] = 0
            del self._books.deactivations[user]

    async def run(self, commands: Sequence[Command], policy: Policy) -> list[Decided]:
        self._books.policy = policy
        self._books.entry_ids = IdWindow.around(Prefix.ENTRY, utc_now(), before=ENTRY_ID_AGE, after=ENTRY_ID_AHEAD)
        return self._books.run(commands, is_bank_asked=False)

    async def find(self, collection: str, ids: Iterable[str]) -> dict[str, Row]:
        if collection == "wallets":
            wallets = self._books.wallets
            return {name: to_row(wallets[name]) for name in ids if name in wallets}
        records = self._books.records
        return {name: to_row(records[name]) for name in ids if name in records and collection_of(name) == collection}

    async def find_entries(self, last_seq: Mapping[str, int]) -> list[Row]:
        entries = [one for name, seq in last_seq.items() for one in self._books.entries.get(name, ()) if one.seq > seq]
        return [to_row(entry) for entry in sorted(entries, key=lambda entry: entry.seq)]

    async def find_awaited(self, subject_ids: Iterable[str]) -> list[Row]:
        wanted = set(subject_ids)
        return [to_row(row) for row in self._books.outbox.values() if row.subject_id in wanted]

    async def find_keys(self, users: Iterable[str]) -> set[str]:
        wanted = set(users)
        return {key for key in self._books.answers if key.partition(":")[0] in wanted}

    async def forget_keys(self, keys: Iterable[str]) -> None:
        for key in keys:
            del self._books.answers[key]

    async def find_audit_events(self, actors: Iterable[str]) -> list[Row]:
        wanted = set(actors)
        events = [to_row(one) for name, one in self._books.records.items() if name.startswith("aud_")]
        return sorted((row for row in events if row["actor_id"] in wanted), key=lambda row: str(row["_id"]))

    async def forget_awaited(self, row_ids: Iterable[str]) -> None:
        for row_id in row_ids:
            self._books.outbox.pop(row_id, None)

    async def set_headroom(self, headroom: Mapping[AccountCurrency, int]) -> None:
        self._books.headroom = dict(headroom)

    async def find_headroom(self, pairs: Iterable[AccountCurrency]) -> dict[AccountCurrency, int]:
        assert self._books.headroom is not None
        return {pair: self._books.headroom[pair] for pair in pairs}

    async def draw_up(self) -> Accounts:
        """From the entries alone, like the service's."""
        accounts: Counter[tuple[str, str]] = Counter()
        between: Counter[str] = Counter()
        for entries in self._books.entries.values():
            for entry in entries:
                received = entry.available_after + entry.held_after - entry.available_before - entry.held_before
                if entry.counterparty.startswith("wal_"):
                    between[entry.currency] += received
                else:
                    accounts[entry.counterparty, entry.currency] -= received
        totals: Counter[str] = Counter()
        for wallet in self._books.wallets.values():
            totals[wallet.currency] += wallet.available + wallet.held
        for (_, currency), balance in accounts.items():
            totals[currency] += balance
        return Accounts(accounts, {currency: (totals[currency], between[currency]) for currency in totals})


def _new_wallets(wallets: Mapping[str, tuple[str, str]], now: datetime) -> list[Wallet]:
    return [new_wallet(name, owner, currency, now) for name, (owner, currency) in wallets.items()]

"""Where the machine's sequences are kept: the real database, or the memory of this process.

Both run the same batches of the same rules. The database also shows guards, validators and transactions; memory takes a
fiftieth of the time, so that tests of each line of the rules (mutation tests) can afford whole sequences.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from service.database import Databases, session_in_transaction
from service.domain.idempotency import Answer
from service.domain.outbox import OutboxRow
from service.domain.policy import Policy
from service.domain.records import Marked, Record
from service.domain.wallets import Wallet, new_wallet
from service.errors import InternalError
from service.ledger.batch import Batch, Decided, KnownAnswer, Loaded, Writes
from service.ledger.commands import Command, merged_needs
from service.ledger.transaction import marks_of
from service.repositories import records as record_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.repositories.records import HOMES, to_row
from service.services.trial_balance import TrialBalance, draw_up_trial_balance
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
    async def draw_up(self) -> Accounts: ...


class DatabaseBooks:
    """On the real MongoDB."""

    def __init__(self, databases: Databases, admin: Admin) -> None:
        """The service's own user may not remove keys."""
        self._databases = databases
        self._wallet = databases.wallet
        self._keys = admin[databases.wallet.name]["idempotency_keys"]

    async def open(self, users: Sequence[str], wallets: Mapping[str, tuple[str, str]], now: datetime) -> None:
        async with session_in_transaction(self._databases.client) as session:
            await user_repository.insert_many([build_user(id=user) for user in users], session=session)
            await wallet_repository.insert_many(_new_wallets(wallets, now), session=session)

    async def insert(self, record: Record) -> None:
        async with session_in_transaction(self._databases.client) as session:
            await record_repository.insert_many([record], session=session)

    async def let_act(self, user: str, *, is_active: bool) -> None:
        await self._wallet["users"].update_one({"_id": user}, {"$set": {"is_active": is_active}})

    async def run(self, commands: Sequence[Command], policy: Policy) -> list[Decided]:
        return await run(self._databases, *commands, policy=policy, is_bank_asked=False)

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

    async def draw_up(self) -> Accounts:
        balance: TrialBalance = await draw_up_trial_balance(self._databases.client)
        return Accounts(
            {(one.account, one.currency): one.balance for part in balance.currencies for one in part.accounts},
            {part.currency: (part.total, part.between_wallets.balance) for part in balance.currencies},
        )


class MemoryBooks:
    """The same batches, applied to dictionaries. What the database would refuse is refused by assertions."""

    def __init__(self) -> None:
        self._users: dict[str, int] = {}
        self._wallets: dict[str, Wallet] = {}
        self._records: dict[str, Record] = {}
        self._answers: dict[str, KnownAnswer] = {}
        self._outbox: dict[str, OutboxRow] = {}
        self._entries: dict[str, list[Row]] = defaultdict(list)
        self._entry_ids: set[str] = set()
        self._event_ids: set[str] = set()

    async def open(self, users: Sequence[str], wallets: Mapping[str, tuple[str, str]], now: datetime) -> None:
        self._users |= dict.fromkeys(users, 0)
        self._wallets |= {wallet.id: wallet for wallet in _new_wallets(wallets, now)}

    async def insert(self, record: Record) -> None:
        self._records[record.id] = record

    async def let_act(self, user: str, *, is_active: bool) -> None:
        self._users.pop(user, None)
        if is_active:
            self._users[user] = 0

    async def run(self, commands: Sequence[Command], policy: Policy) -> list[Decided]:
        batch = Batch(self._load(commands), policy)
        decided = [_run_alone(batch, command) for command in commands]
        self._write(batch.writes())
        return decided

    def _load(self, commands: Sequence[Command]) -> Loaded:
        """What the commands name, and nothing else: a rule that looks at more is found here."""
        needs = merged_needs([command.needs for command in commands])
        claims = [command.claim.id for command in commands if command.claim is not None]
        owned = {(wallet.user_id, wallet.currency): wallet for wallet in self._wallets.values()}
        wallets = {name: self._wallets[name] for name in needs.wallets if name in self._wallets}
        wallets |= {owned[owner].id: owned[owner] for owner in needs.owned_wallets if owner in owned}
        return Loaded(
            {name: self._users[name] for name in needs.users if name in self._users},
            wallets,
            {name: self._records[name] for name in needs.records if name in self._records},
            {name: self._answers[name] for name in claims if name in self._answers},
            made=self._find_made(commands),
        )

    def _find_made(self, commands: Sequence[Command]) -> dict[str, list[Record]]:
        """By claim, with every part of a batch: what has its tombstone."""
        made: dict[str, list[Record]] = defaultdict(list)
        for command in commands:
            if command.claim is not None and command.made_id is not None:
                hashes = {key_hash for mark in marks_of(command) for key_hash in mark.key_hashes}
                for record in self._records.values():
                    tombstone = record.tombstone if isinstance(record, Marked) else None
                    if tombstone is not None and not hashes.isdisjoint(tombstone.key_hashes):
                        made[command.claim.id].append(record)
        return made

    def _write(self, writes: Writes) -> None:
        for before, after in writes.wallet_updates:
            assert self._wallets[before.id] == before
            self._wallets[before.id] = after
        for answer in writes.answers:
            assert answer.id not in self._answers
            self._answers[answer.id] = KnownAnswer(answer.fingerprint, Answer(answer.status_code, answer.body))
        for record in writes.record_inserts:
            assert record.id not in self._records
            self._records[record.id] = record
        for before_record, after_record in writes.record_updates:
            assert self._records[before_record.id] == before_record
            # Insert-only kinds have none, and no update either.
            changed: Any = after_record
            self._records[before_record.id] = changed._replace(version=before_record.version + 1)  # type: ignore[union-attr]
        for row_id in writes.outbox_deletes:
            self._outbox.pop(row_id, None)
        for row in writes.outbox_inserts:
            assert row.id not in self._outbox
            self._outbox[row.id] = row
        for entry in writes.entries:
            assert entry.id not in self._entry_ids
            self._entry_ids.add(entry.id)
            self._entries[entry.wallet_id].append(to_row(entry))
        for event in writes.events:
            assert event.id not in self._event_ids
            self._event_ids.add(event.id)

    async def find(self, collection: str, ids: Iterable[str]) -> dict[str, Row]:
        if collection == "wallets":
            return {name: to_row(self._wallets[name]) for name in ids if name in self._wallets}
        known = (name for name in ids if name in self._records)
        return {name: to_row(self._records[name]) for name in known if collection_of(name) == collection}

    async def find_entries(self, last_seq: Mapping[str, int]) -> list[Row]:
        rows = [row for name, seq in last_seq.items() for row in self._entries[name] if row["seq"] > seq]
        return sorted(rows, key=lambda row: int(row["seq"]))

    async def find_awaited(self, subject_ids: Iterable[str]) -> list[Row]:
        wanted = set(subject_ids)
        return [to_row(row) for row in self._outbox.values() if row.subject_id in wanted]

    async def find_keys(self, users: Iterable[str]) -> set[str]:
        wanted = set(users)
        return {key for key in self._answers if key.partition(":")[0] in wanted}

    async def forget_keys(self, keys: Iterable[str]) -> None:
        for key in keys:
            del self._answers[key]

    async def find_audit_events(self, actors: Iterable[str]) -> list[Row]:
        wanted = set(actors)
        events = [to_row(one) for name, one in self._records.items() if name.startswith("aud_")]
        return sorted((row for row in events if row["actor_id"] in wanted), key=lambda row: str(row["_id"]))

    async def forget_awaited(self, row_ids: Iterable[str]) -> None:
        for row_id in row_ids:
            self._outbox.pop(row_id, None)

    async def draw_up(self) -> Accounts:
        """From the entries alone, like the service's."""
        accounts: Counter[tuple[str, str]] = Counter()
        between: Counter[str] = Counter()
        for rows in self._entries.values():
            for row in rows:
                received = row["available_after"] + row["held_after"] - row["available_before"] - row["held_before"]
                if row["counterparty"].startswith("wal_"):
                    between[row["currency"]] += received
                else:
                    accounts[row["counterparty"], row["currency"]] -= received
        totals: Counter[str] = Counter()
        for wallet in self._wallets.values():
            totals[wallet.currency] += wallet.available + wallet.held
        for (_, currency), balance in accounts.items():
            totals[currency] += balance
        return Accounts(accounts, {currency: (totals[currency], between[currency]) for currency in totals})


def _new_wallets(wallets: Mapping[str, tuple[str, str]], now: datetime) -> list[Wallet]:
    return [new_wallet(name, owner, currency, now) for name, (owner, currency) in wallets.items()]


def _run_alone(batch: Batch, command: Command) -> Decided:
    """As the transaction does: a rule that breaks changes nothing."""
    try:
        return batch.run(command)
    except Exception:  # noqa: BLE001 whatever a broken rule raises: the machine compares the code
        return Decided(None, None, InternalError(), refused=True)

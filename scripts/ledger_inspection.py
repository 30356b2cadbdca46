"""Reads the ledger, the bank's journal and its callbacks once, in order, and holds every row against the rules.

All reads are of one moment, so that it may look while the system runs: a snapshot session (MongoDB 5.0) reads what a
majority had committed at the time of its first read, in both databases. A server keeps such a moment for
`minSnapshotHistoryWindowInSeconds`, 300 unless set otherwise; an inspection that takes longer ends with
SnapshotTooOld, and the way out is to raise that parameter. Memory stays the same however long the history is: rows
come sorted from the server and are joined as they pass.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.errors import OperationFailure

from scripts.checkpoint_rules import Leaves, Series, check_tile, leaves_of
from scripts.event_rules import Numbers, check_numbers, check_told
from scripts.ledger_rules import (
    BETWEEN_WALLETS,
    GENESIS,
    WALLET_PREFIX,
    Booked,
    Bookings,
    Breach,
    Case,
    Chain,
    Rule,
    check_callback,
    check_case,
    check_counterparty,
    check_named,
    check_transaction,
    check_wallet,
    is_entry,
    is_shaped,
    is_wallet,
    is_with_a_person,
    waiting_since,
)
from scripts.points_rules import POINTS_PREFIXES, check_points, check_voucher, check_voucher_use
from scripts.record_rules import KINDS, TALLIED, Kind, Row, Tally
from service.database import Databases
from service.domain.clock import utc_now

# Round trips would take longer than the rows, and 2,000 entries are about 1 MB.
_BATCH_ROWS: Final = 2_000
_LOOKUP_ROWS: Final = 1_000
_REPORT_ROWS: Final = 500

# A collection that was made or indexed a moment ago is not in any snapshot yet.
_SNAPSHOT_UNAVAILABLE: Final = 246
_ATTEMPTS: Final = 10
_PAUSE_S: Final = 0.2

_ACCEPTED: Final = 202
# Entries are read twice: by wallet, and by operation.
_READ: Final = (
    "wallets", "transaction_logs", "transaction_logs", *(kind.collection for kind in (*KINDS, *KINDS)), "outbox",
    "idempotency_keys", "bank_callbacks", "account_sums", "account_corrections", "checkpoints",
    "checkpoint_tiles", "rewards", "redemptions",
    "vouchers", "incidents", "dead_letters", "wallets", "events",
)  # fmt: skip
_RECORD_FIELDS: Final = ("_id", "type", "status", "user_id", "wallet_id", "currency", "amount", "created_at")
_REWARD_FIELDS: Final = ("_id", "user_id", "wallet_id", "operation_id", "status", "points", "rules")
# Not the codes, which are nobody's but their owners'.
_REDEMPTION_FIELDS: Final = ("_id", "user_id", "wallet_id", "voucher_id", "cost")
_EVENT_FIELDS: Final = ("_id", "wallet_id", "sequence", "user_id", "subject_id", "status")
_TELLING_FIELDS: Final = ("_id", "user_id", "status", "event_sequence", "updated_at")
_ENTRY_FIELDS: Final = ("reference", "type", "user_id", "wallet_id", "currency", "amount")
_OUTBOX_FIELDS: Final = ("_id", "topic", "subject_id", "due_at")
_CALLBACK_FIELDS: Final = (
    "_id", "payload.reference", "received_at", "due_at", "result", "incident_id", "dead_letter_id",
)  # fmt: skip
_LETTER_FIELDS: Final = ("_id", "queue", "row_id", "topic", "subject_id", "state")
_ORDER_FIELDS: Final = ("_id", "kind", "state", "currency", "amount", "payments", "returns")
_INCIDENT_FIELDS: Final = ("_id", "reference", "status")

# What an inspection counts, in the order in which it is told.
COUNTED: Final = (
    "wallets", "entries", *(kind.collection for kind in KINDS), "orders at the bank", "callbacks of the bank",
    "idempotency records", "closed hours", "corrections of sums", "checkpoints", "rewards", "vouchers", "redemptions",
    "incidents", "incidents unresolved", "dead letters", "events",
)  # fmt: skip

OnProgress = Callable[[int], object]


class Waiting(NamedTuple):
    """An operation that the bank has paid and that is open here: its callback is on the way, or a person has it."""

    operation_id: str
    status: str
    age: timedelta


@dataclass(slots=True)
class CurrencyTotals:
    """Minor units. What wallets hold has to be what the accounts let them have, and the bank's part of that what came
    in and did not go out.
    """

    available: int = 0
    held: int = 0
    deposited: int = 0
    withdrawn: int = 0
    accounts: dict[str, Booked] = field(default_factory=dict)
    between_wallets: Booked = field(default_factory=Booked)

    @property
    def total(self) -> int:
        return self.available + self.held + sum(booked.balance for booked in self.accounts.values())

    @property
    def bank_difference(self) -> int:
        """What the bank's account lacks of settled deposits less settled withdrawals."""
        return self.deposited - self.withdrawn + self.accounts.get("bank", Booked()).balance


@dataclass(slots=True)
class Inspection:
    """What was looked at, and what was found."""

    breaches: list[Breach] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    totals: dict[str, CurrencyTotals] = field(default_factory=dict)

    def total(self, currency: str) -> CurrencyTotals:
        return self.totals.setdefault(currency, CurrencyTotals())


async def inspect(
    databases: Databases,
    *,
    grace: timedelta | None = None,
    checkpoint_key: Ed25519PublicKey | None = None,
    on_progress: OnProgress = lambda _rows: None,
) -> Inspection:
    """Looks at everything, changes nothing. `on_progress` hears how many more rows were read.

    What the bank paid longer than `grace` ago and is still processing here is a breach, and so is what it said longer
    ago and nobody has applied; without `grace` neither ever is. Without `checkpoint_key` the signatures of checkpoints
    are not looked at.
    Raises PyMongoError where it could not look.
    """
    attempt = 0
    while True:
        attempt += 1
        # One moment for every row: that of the snapshot, which the first read takes. Rows carry this clock's times.
        now = utc_now()
        try:
            async with databases.client.start_session(snapshot=True) as session:
                reader = _Reader(databases, session, on_progress)
                inspection = Inspection()
                await _inspect_wallets(reader, inspection)
                await _inspect_transactions(reader, inspection)
                await _inspect_operations(reader, inspection, now, grace)
                await _inspect_vouchers(reader, inspection)
                await _inspect_events(reader, inspection, now)
                await _inspect_callbacks(reader, inspection, now, grace)
                await _inspect_answers(reader, inspection)
                await _inspect_checkpoints(reader, inspection, checkpoint_key)
        except OperationFailure as error:
            if error.code != _SNAPSHOT_UNAVAILABLE or attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            _compare_totals(inspection)
            return inspection


async def count_rows(databases: Databases) -> int:
    """About how many rows an inspection reads."""
    collections = [*(databases.wallet[name] for name in _READ), databases.bank["orders"]]
    return sum([await collection.estimated_document_count() for collection in collections])


def _fields_of(kind: Kind) -> tuple[str, ...]:
    return (*_RECORD_FIELDS, *kind.fields)


class _Group(NamedTuple):
    key: str
    parts: list[list[Row]]


class _Reader:
    """Sorted streams of one snapshot."""

    def __init__(self, databases: Databases, session: AsyncClientSession, on_progress: OnProgress) -> None:
        self.wallet = databases.wallet
        self.bank = databases.bank
        self._session = session
        self._on_progress = on_progress

    async def find(
        self,
        collection: AsyncCollection[Row],
        sort: Sequence[tuple[str, int]],
        fields: Sequence[str] = (),
        condition: Row | None = None,
    ) -> AsyncIterator[Row]:
        # By reference there is no index to sort by, and the sort may need more than the server's memory for it.
        cursor = collection.find(
            condition or {},
            list(fields) or None,
            sort=list(sort),
            session=self._session,
            batch_size=_BATCH_ROWS,
            allow_disk_use=True,
        )
        async for row in self._told(cursor):
            yield row

    async def find_named(
        self, collection: AsyncCollection[Row], ids: Sequence[str], fields: Sequence[str]
    ) -> list[Row]:
        cursor = collection.find({"_id": {"$in": list(ids)}}, list(fields) or None, session=self._session)
        return await cursor.to_list()

    async def find_entries(self, named: Sequence[Row]) -> list[Row]:
        """Each named by its wallet and number."""
        cursor = self.wallet["transaction_logs"].find(
            {"$or": list(named)}, ["wallet_id", "seq", "hash"], session=self._session
        )
        return await cursor.to_list()

    async def named_tiles(self) -> AsyncIterator[Row]:
        """`{_id: tile, number: of the first checkpoint that names it}`, in the order of their ids."""
        cursor = await self.wallet["checkpoints"].aggregate(
            [
                {"$unwind": "$tiles"},
                {"$group": {"_id": "$tiles.id", "number": {"$min": "$_id"}}},
                {"$sort": {"_id": 1}},
            ],
            session=self._session,
            batchSize=_BATCH_ROWS,
            allowDiskUse=True,
        )
        async with cursor:
            async for row in cursor:
                yield row

    async def tallies(self, kind: Kind) -> AsyncIterator[Row]:
        """`{_id: wallet, tally: the shares of its records of this kind}`, wallets from last to first."""
        tally: Tally | None = None
        async for row in self.find(self.wallet[kind.collection], [("wallet_id", -1)], _fields_of(kind)):
            if not is_shaped(row, TALLIED):
                # Told where the operation itself is looked at.
                continue
            if tally is None or tally.wallet_id != row["wallet_id"]:
                if tally is not None:
                    yield {"_id": tally.wallet_id, "tally": tally}
                tally = Tally(row["wallet_id"])
            tally.add(kind.share(row), row["created_at"])
        if tally is not None:
            yield {"_id": tally.wallet_id, "tally": tally}

    async def unequal(self) -> AsyncIterator[Row]:
        """`{_id: {transaction, currency}, change}` where what wallets gave each other is not what they received."""
        amounts = ("available_before", "held_before", "available_after", "held_after")
        before = {"$add": ["$available_before", "$held_before"]}
        after = {"$add": ["$available_after", "$held_after"]}
        async for row in self._between_wallets(
            # Text in place of a number, which is reported as such elsewhere, would end the whole inspection.
            {"$match": {amount: {"$type": "number"} for amount in amounts}},
            {
                "$group": {
                    "_id": {"transaction": "$transaction_id", "currency": "$currency"},
                    "change": {"$sum": {"$subtract": [after, before]}},
                }
            },
            {"$match": {"change": {"$ne": 0}}},
        ):
            yield row

    async def named(self) -> AsyncIterator[Row]:
        """`{_id: wallet, entries, wallet_id, seq}`: how many entries name it, and one of them; from last to first."""
        async for row in self._between_wallets(
            {
                "$group": {
                    "_id": "$counterparty",
                    "entries": {"$sum": 1},
                    "wallet_id": {"$first": "$wallet_id"},
                    "seq": {"$first": "$seq"},
                }
            },
            {"$sort": {"_id": -1}},
        ):
            yield row

    async def _between_wallets(self, *stages: Row) -> AsyncIterator[Row]:
        """By the server, over the entries that name a wallet: their two sides lie far apart in any order of reading."""
        cursor = await self.wallet["transaction_logs"].aggregate(
            [{"$match": {"counterparty": {"$regex": f"^{WALLET_PREFIX}"}}}, *stages],
            session=self._session,
            batchSize=_BATCH_ROWS,
            allowDiskUse=True,
        )
        async with cursor:
            async for row in cursor:
                yield row

    async def counted(self, collection: str, key: str | Row, number: str | int) -> AsyncIterator[Row]:
        """`{_id: key, number: the sum}` of all rows with that key, by key."""
        cursor = await self.wallet[collection].aggregate(
            [{"$group": {"_id": key, "number": {"$sum": number}}}, {"$sort": {"_id": 1}}],
            session=self._session,
            batchSize=_BATCH_ROWS,
            allowDiskUse=True,
        )
        async with cursor:
            async for row in cursor:
                yield row

    async def told_last(self) -> AsyncIterator[Row]:
        """`{_id: subject, status: what its last event says}`, by subject; in the wallet that it belongs to, since who
        receives something counts by other numbers.
        """
        cursor = await self.wallet["events"].aggregate(
            [
                {"$match": {"type": {"$not": {"$regex": r"\.received$"}}}},
                {
                    "$group": {
                        "_id": "$subject_id",
                        "last": {"$top": {"sortBy": {"sequence": -1}, "output": "$status"}},
                    }
                },
                {"$project": {"status": "$last"}},
                {"$sort": {"_id": 1}},
            ],
            session=self._session,
            batchSize=_BATCH_ROWS,
            allowDiskUse=True,
        )
        async with cursor:
            async for row in cursor:
                yield row

    async def _told(self, cursor: AsyncCursor[Row] | AsyncCommandCursor[Row]) -> AsyncIterator[Row]:
        untold = 0
        async with cursor:
            async for row in cursor:
                yield row
                untold += 1
                if untold == _REPORT_ROWS:
                    self._on_progress(untold)
                    untold = 0
        self._on_progress(untold)


async def _join(*streams: tuple[AsyncIterator[Row], str], is_descending: bool = False) -> AsyncIterator[_Group]:
    """Streams that are sorted by the field named with each, put together by its value; none may lack a key.

    Keys that are no text, which only a corrupt row has, come where the server sorts them: found, if not paired.
    """
    pick = max if is_descending else min
    heads = [await anext(rows, None) for rows, _ in streams]
    while keys := [str(head.get(name)) for head, (_, name) in zip(heads, streams, strict=True) if head is not None]:
        key = pick(keys)
        parts: list[list[Row]] = []
        for number, (rows, name) in enumerate(streams):
            part: list[Row] = []
            while (head := heads[number]) is not None and str(head.get(name)) == key:
                part.append(head)
                heads[number] = await anext(rows, None)
            parts.append(part)
        yield _Group(key, parts)


async def _inspect_wallets(reader: _Reader, inspection: Inspection) -> None:
    """From the last wallet to the first, because that way the index on (wallet, seq from new to old) gives each
    wallet's entries from old to new.
    """
    wallets = reader.find(reader.wallet["wallets"], [("_id", -1)])
    # One document for each hour that the service has run: some MB in a year.
    sums = [row async for row in reader.find(reader.wallet["account_sums"], [("_id", 1)])]
    corrections = [row async for row in reader.find(reader.wallet["account_corrections"], [("_id", 1)])]
    bookings = Bookings(sums, corrections)
    if corrections:
        inspection.counts["corrections of sums"] += len(corrections)
    groups = _join(
        (wallets, "_id"),
        (_chains(reader, inspection, bookings), "_id"),
        (reader.named(), "_id"),
        *((reader.tallies(kind), "_id") for kind in KINDS),
        is_descending=True,
    )
    async for wallet_id, (found, chains, named_by, *tallies) in groups:
        chain = chains[0]["chain"] if chains else Chain(wallet_id)
        tally = Tally(wallet_id)
        for rows in tallies:
            for row in rows:
                tally.take(row["tally"])
        inspection.breaches += check_wallet(wallet_id, found, chain, tally)
        inspection.breaches += check_named(wallet_id, found, named_by)
        inspection.counts["wallets"] += len(found)
        for wallet in filter(is_wallet, found):
            total = inspection.total(wallet["currency"])
            total.available += wallet["available"]
            total.held += wallet["held"]
    _take_over(bookings, inspection)


def _take_over(bookings: Bookings, inspection: Inspection) -> None:
    inspection.breaches += bookings.check()
    inspection.counts["closed hours"] += bookings.hours
    for (currency, account), booked in bookings.totals.items():
        total = inspection.total(currency)
        if account == BETWEEN_WALLETS:
            total.between_wallets = booked
        else:
            total.accounts[account] = booked


async def _inspect_transactions(reader: _Reader, inspection: Inspection) -> None:
    async for unequal in reader.unequal():
        inspection.breaches.append(check_transaction(unequal))


async def _chains(reader: _Reader, inspection: Inspection, bookings: Bookings) -> AsyncIterator[Row]:
    """`{_id: wallet, chain: the end of its entries}`, each entry checked and added up on the way."""
    chain: Chain | None = None
    async for entry in reader.find(reader.wallet["transaction_logs"], [("wallet_id", -1), ("seq", 1)]):
        wallet_id = str(entry.get("wallet_id"))
        if chain is None or chain.wallet_id != wallet_id:
            if chain is not None:
                yield {"_id": chain.wallet_id, "chain": chain}
            chain = Chain(wallet_id)
        inspection.breaches += chain.follow(entry)
        if is_entry(entry):
            inspection.breaches += check_counterparty(entry)
            bookings.take(entry)
        inspection.counts["entries"] += 1
    if chain is not None:
        yield {"_id": chain.wallet_id, "chain": chain}


async def _inspect_operations(reader: _Reader, inspection: Inspection, now: datetime, grace: timedelta | None) -> None:
    by_id = [("_id", 1)]
    groups = _join(
        (reader.find(reader.wallet["transaction_logs"], [("reference", 1)], _ENTRY_FIELDS), "reference"),
        (reader.find(reader.wallet["outbox"], [("subject_id", 1)], _OUTBOX_FIELDS), "subject_id"),
        (reader.find(reader.bank["orders"], by_id, _ORDER_FIELDS), "_id"),
        (reader.find(reader.wallet["rewards"], by_id, _REWARD_FIELDS), "_id"),
        (reader.find(reader.wallet["redemptions"], by_id, _REDEMPTION_FIELDS), "_id"),
        (reader.find(reader.wallet["incidents"], [("reference", 1)], _INCIDENT_FIELDS), "reference"),
        (reader.find(reader.wallet["dead_letters"], [("subject_id", 1)], _LETTER_FIELDS), "subject_id"),
        (reader.told_last(), "_id"),
        *((reader.find(reader.wallet[kind.collection], by_id, _fields_of(kind)), "_id") for kind in KINDS),
    )
    async for key, (entries, outbox_rows, orders, rewards, redemptions, incidents, letters, told, *found) in groups:
        inspection.breaches += check_told(key, told, [*rewards, *redemptions, *(row for rows in found for row in rows)])
        records = {kind.collection: rows for kind, rows in zip(KINDS, found, strict=True)}
        case = Case(key, records, entries, outbox_rows, orders, incidents, letters)
        if incidents:
            inspection.counts["incidents"] += len(incidents)
            inspection.counts["incidents unresolved"] += sum(row.get("status") != "resolved" for row in incidents)
        dead = [letter for letter in letters if letter.get("state") == "dead"]
        if dead:
            inspection.counts["dead letters"] += len(dead)
        if key.startswith(POINTS_PREFIXES):
            inspection.breaches += check_points(key, rewards, redemptions, case.entries)
            inspection.counts["rewards"] += len(rewards)
            inspection.counts["redemptions"] += len(redemptions)
            continue
        inspection.breaches += check_case(case, now)
        for name, rows in records.items():
            inspection.counts[name] += len(rows)
        inspection.counts["orders at the bank"] += len(case.orders)
        _add_up(case, inspection)
        paid_at = waiting_since(case)
        if paid_at is not None:
            _note_waiting(case, now - paid_at, grace, inspection)


def _add_up(case: Case, inspection: Inspection) -> None:
    operation = case.operation
    if operation is None or operation["status"] != "success":
        return
    total = inspection.total(operation["currency"])
    if case.records.get("deposits"):
        total.deposited += operation["amount"]
    elif case.records.get("withdrawals"):
        total.withdrawn += operation["amount"]
    elif case.records.get("returns") and operation.get("type") == "deposit":
        total.deposited -= operation["amount"]
    elif case.records.get("returns"):
        total.withdrawn -= operation["amount"]


def _note_waiting(case: Case, age: timedelta, grace: timedelta | None, inspection: Inspection) -> None:
    status = "" if case.operation is None else case.operation["status"]
    if grace is not None and age > grace and not is_with_a_person(case):
        deed = "sent it back" if status == "success" else "paid"
        detail = f"{status}, though the bank {deed} {age.total_seconds():.0f} s ago"
        inspection.breaches.append(Breach(Rule.SETTLEMENT_OVERDUE, case.id, detail))
    else:
        inspection.waiting.append(Waiting(case.id, status, age))


async def _inspect_events(reader: _Reader, inspection: Inspection, now: datetime) -> None:
    wallets = reader.find(reader.wallet["wallets"], [("_id", 1)], _TELLING_FIELDS)
    async for wallet_id, (found, numbers) in _join((wallets, "_id"), (_numbers(reader, inspection), "_id")):
        inspection.breaches += check_numbers(wallet_id, found, numbers[0]["numbers"] if numbers else None, now)


async def _numbers(reader: _Reader, inspection: Inspection) -> AsyncIterator[Row]:
    """`{_id: wallet, numbers: the end of its events}`, each one checked on the way."""
    numbers: Numbers | None = None
    async for event in reader.find(reader.wallet["events"], [("wallet_id", 1), ("sequence", 1)], _EVENT_FIELDS):
        wallet_id = str(event.get("wallet_id"))
        if numbers is None or numbers.wallet_id != wallet_id:
            if numbers is not None:
                yield {"_id": numbers.wallet_id, "numbers": numbers}
            numbers = Numbers(wallet_id)
        inspection.breaches += numbers.follow(event)
        inspection.counts["events"] += 1
    if numbers is not None:
        yield {"_id": numbers.wallet_id, "numbers": numbers}


async def _inspect_vouchers(reader: _Reader, inspection: Inspection) -> None:
    vouchers = reader.find(reader.wallet["vouchers"], [("_id", 1)], ("_id", "stock", "stocked_total"))
    redeemed = reader.counted("redemptions", "$voucher_id", 1)
    async for voucher_id, (found, counted) in _join((vouchers, "_id"), (redeemed, "_id")):
        inspection.breaches += check_voucher(voucher_id, found, _number(counted))
        inspection.counts["vouchers"] += len(found)
    of_person = {"$concat": ["$voucher_id", ":", "$user_id"]}
    uses = reader.counted("voucher_uses", of_person, "$redeemed")
    by_person = reader.counted("redemptions", of_person, 1)
    async for key, (noted, counted) in _join((uses, "_id"), (by_person, "_id")):
        inspection.breaches += check_voucher_use(key, _number(noted), _number(counted))


def _number(counted: list[Row]) -> int:
    return counted[0]["number"] if counted else 0


async def _inspect_callbacks(reader: _Reader, inspection: Inspection, now: datetime, grace: timedelta | None) -> None:
    callbacks = reader.find(reader.wallet["bank_callbacks"], [("_id", 1)], _CALLBACK_FIELDS)
    of_callbacks = {"queue": "callbacks"}
    letters = reader.find(reader.wallet["dead_letters"], [("row_id", 1)], _LETTER_FIELDS, of_callbacks)
    named: dict[str, str] = {}
    async for _, (found, aside) in _join((callbacks, "_id"), (letters, "row_id")):
        for callback in found:
            inspection.counts["callbacks of the bank"] += 1
            inspection.breaches += check_callback(callback, aside, now, grace)
            if callback.get("incident_id") is not None:
                named[str(callback["_id"])] = str(callback["incident_id"])
        if len(named) >= _LOOKUP_ROWS:
            inspection.breaches += await _check_incidents(named, reader)
            named = {}
    inspection.breaches += await _check_incidents(named, reader)


async def _check_incidents(named: Mapping[str, str], reader: _Reader) -> list[Breach]:
    """Those that callbacks are said to have led to."""
    found = await reader.find_named(reader.wallet["incidents"], sorted({*named.values()}), ("_id",)) if named else []
    known = {row["_id"] for row in found}
    return [
        Breach(Rule.INCIDENT_MISSING, callback_id, f"it led to {incident_id}, which does not exist")
        for callback_id, incident_id in named.items()
        if incident_id not in known
    ]


async def _inspect_answers(reader: _Reader, inspection: Inspection) -> None:
    """Whoever was told 202 has an operation."""
    portion: list[Row] = []
    async for record in reader.find(reader.wallet["idempotency_keys"], [("_id", 1)], ("_id", "status_code", "body")):
        inspection.counts["idempotency records"] += 1
        if record.get("status_code") == _ACCEPTED:
            portion.append(record)
        if len(portion) == _LOOKUP_ROWS:
            inspection.breaches += await _check_answers(portion, reader)
            portion = []
    inspection.breaches += await _check_answers(portion, reader)


async def _check_answers(records: Sequence[Row], reader: _Reader) -> list[Breach]:
    named = {str(record["_id"]): _operation_named_by(record) for record in records}
    wanted = [operation_id for operation_id in named.values() if operation_id is not None]
    owners: dict[str, str] = {}
    for kind in KINDS:
        ids = [operation_id for operation_id in wanted if operation_id.startswith(f"{kind.prefix}_")]
        if ids:
            found = await reader.find_named(reader.wallet[kind.collection], ids, (kind.asked_by,))
            owners |= {row["_id"]: row.get(kind.asked_by) for row in found}
    breaches = []
    for record_id, operation_id in named.items():
        if operation_id is None:
            breaches.append(Breach(Rule.ANSWER_BROKEN, record_id, "its 202 names no operation"))
        elif operation_id not in owners:
            breaches.append(
                Breach(Rule.ANSWER_BROKEN, record_id, f"its 202 names {operation_id}, which does not exist")
            )
        elif not record_id.startswith(f"{owners[operation_id]}:"):
            breaches.append(Breach(Rule.ANSWER_BROKEN, record_id, f"its 202 names {operation_id} of another user"))
    return breaches


def _operation_named_by(record: Row) -> str | None:
    try:
        answer = json.loads(bytes(record["body"]))
    except (KeyError, TypeError, ValueError):
        # The caller reports it: an answer that cannot be read names nothing.
        return None
    operation_id = answer.get("id") if isinstance(answer, dict) else None
    return operation_id if isinstance(operation_id, str) else None


async def _inspect_checkpoints(reader: _Reader, inspection: Inspection, key: Ed25519PublicKey | None) -> None:
    """The series, every tile that it names, and the latest one's leaves against the entries."""
    series = Series(key)
    latest: Row | None = None
    async for row in reader.find(reader.wallet["checkpoints"], [("_id", 1)]):
        breaches = list(series.follow(row))
        inspection.breaches += breaches
        inspection.counts["checkpoints"] += 1
        latest = None if any(breach.rule == Rule.MALFORMED for breach in breaches) else row
    tiles = reader.find(reader.wallet["checkpoint_tiles"], [("_id", 1)])
    async for tile_id, (names, found) in _join((reader.named_tiles(), "_id"), (tiles, "_id")):
        inspection.breaches += check_tile(tile_id, [name["number"] for name in names], found)
    if latest is not None:
        await _inspect_leaves(latest, reader, inspection)


async def _inspect_leaves(checkpoint: Row, reader: _Reader, inspection: Inspection) -> None:
    tree = Leaves(checkpoint)
    for at, name in enumerate(checkpoint["tiles"]):
        found = await reader.find_named(reader.wallet["checkpoint_tiles"], [name["id"]], ())
        leaves = leaves_of(found[0]) if found else None
        if leaves is None:
            # Told already: the tile is not there, or is none. What it held cannot be counted.
            return
        inspection.breaches += tree.follow(at, leaves, await _heads_known(leaves, reader))
    inspection.breaches += tree.end()


async def _heads_known(leaves: Sequence[Row], reader: _Reader) -> dict[tuple[str, int], str]:
    """The hashes of the entries that the leaves name; of wallets that have none yet, what their chain starts with."""
    empty = [leaf["wallet_id"] for leaf in leaves if leaf["seq"] == 0]
    wallets = await reader.find_named(reader.wallet["wallets"], empty, ("_id",)) if empty else []
    known = {(wallet["_id"], 0): GENESIS for wallet in wallets}
    named = [{"wallet_id": leaf["wallet_id"], "seq": leaf["seq"]} for leaf in leaves if leaf["seq"] != 0]
    for entry in await reader.find_entries(named) if named else []:
        known[entry["wallet_id"], entry["seq"]] = str(entry.get("hash"))
    return known


def _compare_totals(inspection: Inspection) -> None:
    for currency, total in sorted(inspection.totals.items()):
        if total.total:
            balance = total.available + total.held
            detail = f"the wallets hold {balance}, by the accounts it should be {balance - total.total}"
            inspection.breaches.append(Breach(Rule.CURRENCY_TOTAL, currency, detail))
        if total.bank_difference:
            due = total.deposited - total.withdrawn
            detail = f"deposits less withdrawals are {due}, the bank's account says {due - total.bank_difference}"
            inspection.breaches.append(Breach(Rule.BANK_TOTAL, currency, detail))

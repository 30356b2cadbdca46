"""Reads the ledger, the bank's journal and its callbacks once, in order, and holds every row against the rules.

All reads are of one moment, so that it may look while the system runs: a snapshot session (MongoDB 5.0) reads what a
majority had committed at the time of its first read, in both databases. A server keeps such a moment for
`minSnapshotHistoryWindowInSeconds`, 300 unless set otherwise; an inspection that takes longer ends with
SnapshotTooOld, and the way out is to raise that parameter. Memory stays the same however long the history is: rows
come sorted from the server and are joined as they pass.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pymongo.errors import OperationFailure

from scripts import answer_rules, audit_rules, bank_rules, entry_rules, quote_rules
from scripts.answer_inspection import inspect_answers
from scripts.answer_rules import MARGIN, Made
from scripts.audit_rules import check_deeds, check_reversals, check_wallet_deeds
from scripts.audit_seal_rules import Seals
from scripts.bank_rules import check_order_says
from scripts.checkpoint_rules import (
    HEAD_FIELDS,
    CheckpointRule,
    Leaves,
    Series,
    check_growth,
    check_tile,
    leaves_of,
    numbers_aside,
)
from scripts.day_sum_rules import COLLECTIONS, inspect_day_sums
from scripts.discrepancy_inspection import inspect_discrepancies
from scripts.entry_rules import check_entries_say
from scripts.event_rules import KEPT_AT_LEAST, Numbers, check_numbers, check_told, check_untold
from scripts.ledger_reader import OnProgress, Reader, fields_of, join
from scripts.ledger_rules import (
    AT_THE_BANK,
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
    is_wallet,
    is_with_a_person,
    told_of,
    waiting_since,
)
from scripts.points_rules import POINTS_PREFIXES, check_points, check_voucher, check_voucher_use
from scripts.position_inspection import inspect_positions
from scripts.position_rules import AccountCurrency, Positions
from scripts.quote_rules import check_quote
from scripts.record_rules import KINDS, Row, Tally
from scripts.user_limits_inspection import inspect_user_limits
from service.database import Databases
from service.domain.clock import utc_now

_LOOKUP_ROWS: Final = 1_000
# Beyond twice the interval: a worker looks for a due checkpoint every ten seconds, once it runs.
_LATE: Final = timedelta(minutes=10)

# A collection that was made or indexed a moment ago is not in any snapshot yet.
_SNAPSHOT_UNAVAILABLE: Final = 246
_ATTEMPTS: Final = 10
_PAUSE_S: Final = 0.2

# Entries are read twice: by wallet, and by operation.
_READ: Final = (
    "wallets", "transaction_logs", "transaction_logs", *(kind.collection for kind in (*KINDS, *KINDS)), "outbox",
    "idempotency_keys", "bank_callbacks", "account_sums", "account_corrections", "checkpoints",
    "checkpoint_tiles", "rewards", "redemptions",
    "vouchers", "incidents", "dead_letters", "wallets", "events", "events", "audit_events", "reversals", "quotes",
    "conversions", "bank_callbacks", "breaks", "set_aside_lines", "user_limits", "wallets", "audit_events",
    "house_positions", "day_sums", *COLLECTIONS,
)  # fmt: skip
_BY_ID: Final = (("_id", 1),)
_REWARD_FIELDS: Final = ("_id", "user_id", "wallet_id", "operation_id", "status", "points", "rules")
# Not the codes, which are nobody's but their owners'.
_REDEMPTION_FIELDS: Final = ("_id", "user_id", "wallet_id", "voucher_id", "cost")
_EVENT_FIELDS: Final = ("_id", "wallet_id", "sequence", "user_id", "subject_id", "status")
_TELLING_FIELDS: Final = ("_id", "user_id", "status", "event_sequence", "updated_at")
_ENTRY_FIELDS: Final = (
    "reference", "type", "user_id", "wallet_id", "currency", "amount", *entry_rules.ENTRY_FIELDS,
)  # fmt: skip
_OUTBOX_FIELDS: Final = ("_id", "topic", "subject_id", "due_at")
_CALLBACK_FIELDS: Final = (
    "_id", "payload.reference", "received_at", "due_at", "result", "incident_id", "dead_letter_id",
)  # fmt: skip
_LETTER_FIELDS: Final = ("_id", "queue", "row_id", "topic", "subject_id", "state")
_ORDER_FIELDS: Final = (
    "_id", "kind", "state", "currency", "amount", "payments", "returns", *bank_rules.ORDER_FIELDS,
)  # fmt: skip
_INCIDENT_FIELDS: Final = ("_id", "reference", "status")

# What an inspection counts, in the order in which it is told.
COUNTED: Final = (
    "wallets", "entries", *(kind.collection for kind in KINDS), "orders at the bank", "callbacks of the bank",
    "idempotency records", "closed hours", "corrections of sums", "checkpoints", "rewards", "vouchers", "redemptions",
    "incidents", "incidents unresolved", "dead letters", "events",
    "discrepancies", "lines set aside", "user limits", "day sums", "portions of the house",
)  # fmt: skip


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
        """Computes what the bank's account lacks of settled deposits less settled withdrawals."""
        return self.deposited - self.withdrawn + self.accounts.get("bank", Booked()).balance


@dataclass(slots=True)
class Inspection:
    """Collects what was looked at and what was found."""

    breaches: list[Breach] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    totals: dict[str, CurrencyTotals] = field(default_factory=dict)
    series: Series | None = None
    # When the last checkpoint was taken, and as of when everything was looked at.
    checkpointed_at: datetime | None = None
    looked_at: datetime | None = None

    def total(self, currency: str) -> CurrencyTotals:
        return self.totals.setdefault(currency, CurrencyTotals())


async def inspect(
    databases: Databases,
    *,
    grace: timedelta | None = None,
    checkpoint_key: Ed25519PublicKey | None = None,
    checkpoint_interval: timedelta | None = None,
    events_kept: timedelta = KEPT_AT_LEAST,
    answers_kept: timedelta = answer_rules.KEPT_AT_LEAST,
    floors: Mapping[AccountCurrency, int] | None = None,
    on_progress: OnProgress = lambda _rows: None,
) -> Inspection:
    """Looks at everything, changes nothing. `on_progress` hears how many more rows were read.

    What the bank paid longer than `grace` ago and is still processing here is a breach, and so is what it said longer
    ago and nobody has applied; without `grace` neither ever is. Without `checkpoint_key` the signatures of checkpoints
    are not looked at, and without `checkpoint_interval` none is missed for its age. `events_kept` is for how long
    nobody forgets an event, `answers_kept` an answer under its key. `floors` are what the settings state for
    accounts of the bank and the house; without them nobody looks at that.
    Raises PyMongoError where it could not look.
    """
    attempt = 0
    while True:
        attempt += 1
        # One moment for every row: that of the snapshot, which the first read takes. Rows carry this clock's times.
        now = utc_now()
        try:
            async with databases.client.start_session(snapshot=True) as session:
                reader = Reader(databases, session, on_progress)
                inspection = Inspection()
                await _inspect_wallets(reader, inspection, Positions(floors), now)
                await _inspect_transactions(reader, inspection)
                told_since = now - events_kept + MARGIN
                made = Made(now - answers_kept + MARGIN)
                await _inspect_operations(reader, inspection, now, grace, told_since, made)
                await _inspect_quotes(reader, inspection)
                await _inspect_vouchers(reader, inspection)
                await _inspect_events(reader, inspection, now)
                await _inspect_callbacks(reader, inspection, now, grace)
                count, breaches = await inspect_answers(reader, made)
                inspection.counts["idempotency records"] += count
                inspection.breaches += breaches
                counts, breaches = await inspect_discrepancies(reader)
                inspection.counts.update(counts)
                inspection.breaches += breaches
                count, breaches = await inspect_user_limits(reader)
                inspection.counts["user limits"] += count
                inspection.breaches += breaches
                count, breaches = await inspect_day_sums(reader)
                inspection.counts["day sums"] += count
                inspection.breaches += breaches
                await _inspect_checkpoints(reader, inspection, checkpoint_key)
                await _check_age(reader, inspection, now, checkpoint_interval)
                inspection.looked_at = now
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


async def _inspect_wallets(reader: Reader, inspection: Inspection, positions: Positions, now: datetime) -> None:
    """Reads wallets from the last to the first: so the index (wallet, seq descending) gives entries in order of seq."""
    wallets = reader.find(reader.wallet["wallets"], [("_id", -1)])
    # One document for each hour that the service has run: some MB in a year.
    sums = [row async for row in reader.find(reader.wallet["account_sums"], [("_id", 1)])]
    corrections = [row async for row in reader.find(reader.wallet["account_corrections"], [("_id", 1)])]
    bookings = Bookings(sums, corrections)
    if corrections:
        inspection.counts["corrections of sums"] += len(corrections)
    groups = join(
        (wallets, "_id"),
        (_chains(reader, inspection, bookings, positions), "_id"),
        (reader.named(), "_id"),
        (
            reader.find(
                reader.wallet["audit_events"],
                [("subject_id", -1)],
                audit_rules.EVENT_FIELDS,
                {"subject_id": {"$regex": f"^{WALLET_PREFIX}"}},
            ),
            "subject_id",
        ),
        *((reader.tallies(kind), "_id") for kind in KINDS if kind.has_owner),
        is_descending=True,
    )
    async for wallet_id, (found, chains, named_by, deeds, *tallies) in groups:
        chain = chains[0]["chain"] if chains else Chain(wallet_id)
        tally = Tally(wallet_id)
        for rows in tallies:
            for row in rows:
                tally.take(row["tally"])
        inspection.breaches += check_wallet(wallet_id, found, chain, tally)
        inspection.breaches += check_named(wallet_id, found, named_by)
        inspection.breaches += told_of(wallet_id, check_wallet_deeds(found, deeds))
        inspection.counts["wallets"] += len(found)
        for wallet in filter(is_wallet, found):
            total = inspection.total(wallet["currency"])
            total.available += wallet["available"]
            total.held += wallet["held"]
            positions.owe(wallet)
    _take_over(bookings, inspection)
    count, breaches = await inspect_positions(reader, positions, now)
    inspection.counts["portions of the house"] += count
    inspection.breaches += breaches


def _take_over(bookings: Bookings, inspection: Inspection) -> None:
    inspection.breaches += bookings.check()
    inspection.counts["closed hours"] += bookings.hours
    for (currency, account), booked in bookings.totals.items():
        total = inspection.total(currency)
        if account == BETWEEN_WALLETS:
            total.between_wallets = booked
        else:
            total.accounts[account] = booked


async def _inspect_transactions(reader: Reader, inspection: Inspection) -> None:
    async for unequal in reader.unequal():
        inspection.breaches.append(check_transaction(unequal))


async def _chains(
    reader: Reader, inspection: Inspection, bookings: Bookings, positions: Positions
) -> AsyncIterator[Row]:
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
            positions.take(entry)
        inspection.counts["entries"] += 1
    if chain is not None:
        yield {"_id": chain.wallet_id, "chain": chain}


async def _inspect_operations(
    reader: Reader,
    inspection: Inspection,
    now: datetime,
    grace: timedelta | None,
    told_since: datetime,
    made: Made,
) -> None:
    streams = _by_operation(reader)
    kinds = [(reader.find(reader.wallet[kind.collection], _BY_ID, fields_of(kind)), "_id") for kind in KINDS]
    async for key, parts in join(*streams.values(), *kinds):
        beside, found = dict(zip(streams, parts, strict=False)), parts[len(streams) :]
        rewards, redemptions, letters = beside["rewards"], beside["redemptions"], beside["letters"]
        inspection.breaches += check_told(
            key, beside["told"], [*rewards, *redemptions, *(row for rows in found for row in rows)]
        )
        records = {kind.collection: rows for kind, rows in zip(KINDS, found, strict=True)}
        case = Case(key, records, beside["entries"], beside["outbox"], beside["orders"], beside["incidents"], letters)
        if case.incidents:
            inspection.counts["incidents"] += len(case.incidents)
            inspection.counts["incidents unresolved"] += sum(row.get("status") != "resolved" for row in case.incidents)
        dead = [letter for letter in letters if letter.get("state") == "dead"]
        if dead:
            inspection.counts["dead letters"] += len(dead)
        if key.startswith(POINTS_PREFIXES):
            inspection.breaches += check_points(key, rewards, redemptions, case.entries)
            inspection.counts["rewards"] += len(rewards)
            inspection.counts["redemptions"] += len(redemptions)
            continue
        inspection.breaches += check_case(case, now)
        inspection.breaches += _check_said(case, beside, told_since)
        for name, rows in records.items():
            inspection.counts[name] += len(rows)
            for row in rows:
                made.take_record(row)
        inspection.counts["orders at the bank"] += len(case.orders)
        _add_up(case, inspection)
        paid_at = waiting_since(case)
        if paid_at is not None:
            _note_waiting(case, now - paid_at, grace, inspection)


def _by_operation(reader: Reader) -> dict[str, tuple[AsyncIterator[Row], str]]:
    """Reads what carries an operation's id, except the records themselves."""
    wallet, by_subject = reader.wallet, [("subject_id", 1)]
    of_records = {"subject_id": {"$regex": audit_rules.SUBJECTS}}
    by_original = [("original_id", 1)]
    return {
        "entries": (reader.find(wallet["transaction_logs"], [("reference", 1)], _ENTRY_FIELDS), "reference"),
        "outbox": (reader.find(wallet["outbox"], by_subject, _OUTBOX_FIELDS), "subject_id"),
        "orders": (reader.find(reader.bank["orders"], _BY_ID, _ORDER_FIELDS), "_id"),
        "rewards": (reader.find(wallet["rewards"], _BY_ID, _REWARD_FIELDS), "_id"),
        "redemptions": (reader.find(wallet["redemptions"], _BY_ID, _REDEMPTION_FIELDS), "_id"),
        "incidents": (reader.find(wallet["incidents"], [("reference", 1)], _INCIDENT_FIELDS), "reference"),
        "letters": (reader.find(wallet["dead_letters"], by_subject, _LETTER_FIELDS), "subject_id"),
        "told": (reader.told_last(), "_id"),
        "callbacks": (reader.callbacks(bank_rules.CALLBACK_FIELDS), "reference"),
        "deeds": (
            reader.find(wallet["audit_events"], by_subject, audit_rules.EVENT_FIELDS, of_records),
            "subject_id",
        ),
        "reversed": (reader.find(wallet["reversals"], by_original, audit_rules.REVERSAL_FIELDS), "original_id"),
    }


def _check_said(case: Case, beside: Mapping[str, list[Row]], told_since: datetime) -> Iterator[Breach]:
    """Compares the operation with what entries, events, audit events and the bank's journal say of it."""
    collection = None if case.kind is None else case.kind.collection
    operation, deeds = case.operation, beside["deeds"]
    if operation is not None and collection is not None:
        yield from told_of(case.id, check_entries_say(collection, operation, case.entries))
        yield from check_untold(case.id, beside["told"], collection, operation, told_since)
        if collection in AT_THE_BANK:
            orders, callbacks = case.orders, beside["callbacks"]
            yield from told_of(case.id, check_order_says(operation, orders, callbacks, is_disputed=case.is_disputed))
    record = None if collection is None else case.records[collection][0]
    yield from told_of(case.id, check_deeds(collection, record, deeds))
    yield from told_of(case.id, check_reversals(case.id, record, beside["reversed"], deeds))


async def _inspect_quotes(reader: Reader, inspection: Inspection) -> None:
    quotes = reader.find(reader.wallet["quotes"], _BY_ID, quote_rules.QUOTE_FIELDS)
    conversions = reader.find(reader.wallet["conversions"], [("quote_id", 1)], quote_rules.CONVERSION_FIELDS)
    async for quote_id, (found, used_by) in join((quotes, "_id"), (conversions, "quote_id")):
        inspection.breaches += told_of(quote_id, check_quote(found, used_by))


def _add_up(case: Case, inspection: Inspection) -> None:
    operation = case.operation
    if operation is None:
        return
    if case.records.get("returns") and operation.get("type") == "points":
        return
    if case.records.get("returns") and operation["status"] == "owed":
        # A deposit's: what the wallet still lacks has not gone back to the bank in our books.
        inspection.total(operation["currency"]).deposited -= operation["amount"] - operation.get("owed", 0)
        return
    if operation["status"] != "success":
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


async def _inspect_events(reader: Reader, inspection: Inspection, now: datetime) -> None:
    wallets = reader.find(reader.wallet["wallets"], [("_id", 1)], _TELLING_FIELDS)
    async for wallet_id, (found, numbers) in join((wallets, "_id"), (_numbers(reader, inspection), "_id")):
        inspection.breaches += check_numbers(wallet_id, found, numbers[0]["numbers"] if numbers else None, now)


async def _numbers(reader: Reader, inspection: Inspection) -> AsyncIterator[Row]:
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


async def _inspect_vouchers(reader: Reader, inspection: Inspection) -> None:
    vouchers = reader.find(reader.wallet["vouchers"], [("_id", 1)], ("_id", "stock", "stocked_total"))
    redeemed = reader.counted("redemptions", "$voucher_id", 1)
    async for voucher_id, (found, counted) in join((vouchers, "_id"), (redeemed, "_id")):
        inspection.breaches += check_voucher(voucher_id, found, _number(counted))
        inspection.counts["vouchers"] += len(found)
    of_person = {"$concat": ["$voucher_id", ":", "$user_id"]}
    uses = reader.counted("voucher_uses", of_person, "$redeemed")
    by_person = reader.counted("redemptions", of_person, 1)
    async for key, (noted, counted) in join((uses, "_id"), (by_person, "_id")):
        inspection.breaches += check_voucher_use(key, _number(noted), _number(counted))


def _number(counted: list[Row]) -> int:
    return counted[0]["number"] if counted else 0


async def _inspect_callbacks(reader: Reader, inspection: Inspection, now: datetime, grace: timedelta | None) -> None:
    callbacks = reader.find(reader.wallet["bank_callbacks"], [("_id", 1)], _CALLBACK_FIELDS)
    of_callbacks = {"queue": "callbacks"}
    letters = reader.find(reader.wallet["dead_letters"], [("row_id", 1)], _LETTER_FIELDS, of_callbacks)
    named: dict[str, str] = {}
    async for _, (found, aside) in join((callbacks, "_id"), (letters, "row_id")):
        for callback in found:
            inspection.counts["callbacks of the bank"] += 1
            inspection.breaches += check_callback(callback, aside, now, grace)
            if callback.get("incident_id") is not None:
                named[str(callback["_id"])] = str(callback["incident_id"])
        if len(named) >= _LOOKUP_ROWS:
            inspection.breaches += await _check_incidents(named, reader)
            named = {}
    inspection.breaches += await _check_incidents(named, reader)


async def _check_incidents(named: Mapping[str, str], reader: Reader) -> list[Breach]:
    """Requires the incidents that callbacks name."""
    found = await reader.find_named(reader.wallet["incidents"], sorted({*named.values()}), ("_id",)) if named else []
    known = {row["_id"] for row in found}
    return [
        Breach(Rule.INCIDENT_MISSING, callback_id, f"it led to {incident_id}, which does not exist")
        for callback_id, incident_id in named.items()
        if incident_id not in known
    ]


async def _inspect_checkpoints(reader: Reader, inspection: Inspection, key: Ed25519PublicKey | None) -> None:
    """The series, the audit events that it seals, every tile that it names, and the latest one's leaves against the
    entries.
    """
    heads = reader.find(reader.wallet["checkpoints"], [("_id", 1)], HEAD_FIELDS)
    aside = numbers_aside([{**row, "tiles": ()} async for row in heads], key)
    series, seals = Series(key, aside), Seals()
    latest: Row | None = None
    async for row in reader.find(reader.wallet["checkpoints"], [("_id", 1)]):
        breaches = list(series.follow(row))
        inspection.breaches += breaches
        inspection.counts["checkpoints"] += 1
        if row["_id"] in aside:
            continue
        before, latest = latest, None if any(breach.rule == Rule.MALFORMED for breach in breaches) else row
        if latest is not None:
            seals.expect({**latest, "tiles": (), "audit_ids": ()})
        if before is not None and latest is not None:
            await _inspect_growth(before, latest, reader, inspection)
    inspection.series, inspection.checkpointed_at = series, series.created_at
    taken = {"action": "checkpoint.taken"}
    async for note in reader.find(reader.wallet["audit_events"], _BY_ID, ("_id", "details"), taken):
        inspection.breaches += series.check_note(note)
    events = reader.find(reader.wallet["audit_events"], _BY_ID, (), {"_id": {"$gte": seals.first_event_id}})
    async for event_id, (names, found) in join((reader.sealed_events(), "_id"), (events, "_id")):
        inspection.breaches += seals.follow(event_id, [name["number"] for name in names], found)
    inspection.breaches += seals.end()
    tiles = reader.find(reader.wallet["checkpoint_tiles"], [("_id", 1)])
    async for tile_id, (names, found) in join((reader.named_tiles(), "_id"), (tiles, "_id")):
        inspection.breaches += check_tile(tile_id, [name["number"] for name in names], found)
    if latest is not None:
        await _inspect_leaves(latest, reader, inspection)


async def _inspect_growth(before: Row, after: Row, reader: Reader, inspection: Inspection) -> None:
    """Compares two checkpoints that follow each other, where they differ: tiles of one name have the same leaves."""
    names = [[name["id"] for name in row["tiles"]] for row in (before, after)]
    ids = [set(one) for one in names]
    unreadable: list[str] = []
    was = _leaves_in([one for one in names[0] if one not in ids[1]], reader, unreadable)
    is_now = _leaves_in([one for one in names[1] if one not in ids[0]], reader, unreadable)
    breaches: list[Breach] = []
    async for wallet_id, (old, new) in join((was, "wallet_id"), (is_now, "wallet_id")):
        breaches += check_growth(after["_id"], wallet_id, old, new)
    # Whose wallets a missing or malformed tile had is not known, so nothing is compared. check_tile reports the tile.
    if not unreadable:
        inspection.breaches += breaches


async def _leaves_in(tile_ids: Sequence[str], reader: Reader, unreadable: list[str]) -> AsyncIterator[Row]:
    for tile_id in tile_ids:
        found = await reader.find_named(reader.wallet["checkpoint_tiles"], [tile_id], ())
        leaves = leaves_of(found[0]) if found else None
        if leaves is None:
            unreadable.append(tile_id)
        for leaf in leaves or ():
            yield leaf


async def _check_age(reader: Reader, inspection: Inspection, now: datetime, interval: timedelta | None) -> None:
    """Looks for an entry that no checkpoint seals after twice the interval, which leaves a worker time to come back."""
    if interval is None:
        return
    since = inspection.checkpointed_at
    unsealed = await reader.find_entry_between(since, now - 2 * interval - _LATE)
    if unsealed is not None:
        last = "there is none" if since is None else f"the last one is of {since.isoformat(timespec='seconds')}"
        detail = f"no checkpoint seals {unsealed}: {last}"
        inspection.breaches.append(Breach(CheckpointRule.OVERDUE, "checkpoints", detail))


async def _inspect_leaves(checkpoint: Row, reader: Reader, inspection: Inspection) -> None:
    tree = Leaves(checkpoint)
    for at, name in enumerate(checkpoint["tiles"]):
        found = await reader.find_named(reader.wallet["checkpoint_tiles"], [name["id"]], ())
        leaves = leaves_of(found[0]) if found else None
        if leaves is None:
            # Told already: the tile is not there, or is none. What it held cannot be counted.
            return
        inspection.breaches += tree.follow(at, leaves, await _heads_known(leaves, reader))
    inspection.breaches += tree.end()


async def _heads_known(leaves: Sequence[Row], reader: Reader) -> dict[tuple[str, int], str]:
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

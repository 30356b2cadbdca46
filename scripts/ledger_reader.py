"""Sorted streams of one snapshot, and how they are put together by key, in memory that stays the same."""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.asynchronous.cursor import AsyncCursor

from scripts import audit_rules, bank_rules, entry_rules
from scripts.ledger_rules import AT_THE_BANK, WALLET_PREFIX, is_shaped
from scripts.record_rules import COUNTED_KINDS, TALLIED, Kind, Row, Tally, epoch_ms
from service.database import Databases

# Round trips would take longer than the rows, and 2,000 entries are about 1 MB.
_BATCH_ROWS: Final = 2_000
_REPORT_ROWS: Final = 500
_RECORD_FIELDS: Final = (
    "_id",
    "type",
    "status",
    "user_id",
    "wallet_id",
    "currency",
    "amount",
    "created_at",
    "tombstone",
)

_ENTRY_PREFIX: Final = "ent_"

OnProgress = Callable[[int], object]


def fields_of(kind: Kind) -> tuple[str, ...]:
    """Lists the fields of a record that the rules read."""
    further = (
        *kind.fields,
        "tombstone",
        *entry_rules.RECORD_FIELDS,
        *audit_rules.RECORD_FIELDS.get(kind.collection, ()),
    )
    if kind.collection in AT_THE_BANK:
        further = (*further, *bank_rules.OPERATION_FIELDS)
    return tuple(dict.fromkeys((*_RECORD_FIELDS, *further)))


def _first_entry_at(moment: datetime) -> str:
    """Renders the smallest id made at this moment: its milliseconds, in 12 hexadecimal digits."""
    return f"{_ENTRY_PREFIX}{epoch_ms(moment):012x}"


class Group(NamedTuple):
    key: str
    parts: list[list[Row]]


class Reader:
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

    async def callbacks(self, fields: Sequence[str]) -> AsyncIterator[Row]:
        """Reads callbacks by the operation that they name, here as `reference`."""
        by_reference = [("payload.reference", 1)]
        async for row in self.find(self.wallet["bank_callbacks"], by_reference, fields):
            payload = row.get("payload")
            yield {**row, "reference": payload.get("reference") if isinstance(payload, dict) else None}

    async def find_named(
        self, collection: AsyncCollection[Row], ids: Sequence[str], fields: Sequence[str]
    ) -> list[Row]:
        cursor = collection.find({"_id": {"$in": list(ids)}}, list(fields) or None, session=self._session)
        return await cursor.to_list()

    async def find_entry_between(self, start: datetime | None, end: datetime) -> str | None:
        """The id of one that was made after `start` and before `end`, if any was: ids begin with their time."""
        after = {} if start is None else {"$gt": f"{_first_entry_at(start)}~"}
        found = await self.wallet["transaction_logs"].find_one(
            {"_id": {**after, "$lt": _first_entry_at(end)}}, ["_id"], sort=[("_id", 1)], session=self._session
        )
        return None if found is None else str(found["_id"])

    async def find_entries(self, named: Sequence[Row]) -> list[Row]:
        """Names each by its wallet and number."""
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

    async def sealed_events(self) -> AsyncIterator[Row]:
        """`{_id: audit event, number: of a checkpoint that names it}`, in the order of the events' ids."""
        cursor = await self.wallet["checkpoints"].aggregate(
            [
                {"$unwind": "$audit_ids"},
                {"$project": {"_id": "$audit_ids", "number": "$_id"}},
                {"$sort": {"_id": 1, "number": 1}},
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
        async for row in self.find(self.wallet[kind.collection], [("wallet_id", -1)], fields_of(kind)):
            if not is_shaped(row, TALLIED):
                # Told where the operation itself is looked at.
                continue
            if tally is None or tally.wallet_id != row["wallet_id"]:
                if tally is not None:
                    yield {"_id": tally.wallet_id, "tally": tally}
                tally = Tally(row["wallet_id"])
            # Conversions of older releases did not count.
            is_counted = kind.collection in COUNTED_KINDS or row.get("is_counted") is True
            tally.add(kind.share(row), row, is_counted=is_counted)
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
        """Lets the server sum up entries that name a wallet: their two sides lie far apart in any order of reading."""
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


async def join(*streams: tuple[AsyncIterator[Row], str], is_descending: bool = False) -> AsyncIterator[Group]:
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
        yield Group(key, parts)

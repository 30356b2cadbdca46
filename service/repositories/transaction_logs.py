"""Queries on `transaction_logs`: inserts and reads, there is nothing else to do with it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from service.documents import TransactionLog
from service.domain.entries import Direction, Entry, EntryType
from service.domain.history import BEFORE_THE_FIRST, BalancePoint, EntryFilter
from service.domain.spending import MonthlySum
from service.repositories.inserts import insert_in_slices

_AMOUNTS = ("seq", "amount", "available_before", "available_after", "held_before", "held_after")
_POINT_FIELDS = ("seq", "available_after", "held_after", "hash")
_NEWEST_FIRST = [("created_at", -1), ("seq", -1)]
# A page takes milliseconds; one whose filters match next to nothing may read a whole wallet.
_SEARCH_LIMIT_MS = 5_000
# A million entries take about four seconds.
_SUM_LIMIT_MS = 10_000
# Some milliseconds of work for the event loop, which has other requests to serve in between.
_STREAM_ROWS = 100
# A portion takes milliseconds; a server that does not answer for so long has lost the cursor as well.
_LAST_ANSWER_LIMIT_S = 10.0


def _to_row(entry: Entry) -> dict[str, Any]:
    row = entry._asdict()
    row["_id"] = row.pop("id")
    for field in _AMOUNTS:
        row[field] = Int64(row[field])
    if entry.category is None:
        del row["category"]
    return row


def entry_from_row(row: dict[str, Any]) -> Entry:
    row["id"] = row.pop("_id")
    row["type"] = EntryType(row["type"])
    row["direction"] = Direction(row["direction"])
    for field in _AMOUNTS:
        row[field] = int(row[field])
    row.setdefault("category", None)
    return Entry(**row)


async def insert_many(entries: Sequence[Entry], *, session: AsyncClientSession) -> None:
    await insert_in_slices(TransactionLog.get_pymongo_collection(), entries, _to_row, session=session)


async def find_of_wallet(wallet_id: str, wanted: EntryFilter, *, before_seq: int | None, limit: int) -> list[Entry]:
    """Finds a wallet's entries, newest first; `before_seq` is the last one of the page before.

    The time range becomes a range of `seq` first, by the index: so a page costs the same however far back it lies.
    Raises ExecutionTimeout where the filters match too rarely to fill a page in time.
    """
    seq_range: dict[str, Int64] = {}
    if wanted.created_from is not None:
        seq_range["$gt"] = Int64(await find_seq_before(wallet_id, wanted.created_from))
    if before_seq is not None:
        # Where a page before this one ended, `created_to` lies further up.
        seq_range["$lt"] = Int64(before_seq)
    elif wanted.created_to is not None:
        seq_range["$lte"] = Int64(await find_seq_before(wallet_id, wanted.created_to))
    condition = {"wallet_id": wallet_id, **_traits(wanted)}
    if seq_range:
        condition["seq"] = seq_range
    found = _entries().find(condition, sort=[("seq", -1)], limit=limit, max_time_ms=_SEARCH_LIMIT_MS)
    return [entry_from_row(row) for row in await found.to_list()]


async def find_following(wallet_id: str, *, after_seq: int, up_to_seq: int, limit: int) -> list[Entry]:
    """Finds a wallet's entries above `after_seq` and up to `up_to_seq`, oldest first: a piece of its chain."""
    condition = {"wallet_id": wallet_id, "seq": {"$gt": Int64(after_seq), "$lte": Int64(up_to_seq)}}
    found = TransactionLog.get_pymongo_collection().find(condition, sort=[("seq", 1)], limit=limit)
    return [entry_from_row(row) for row in await found.to_list()]


async def find_in_wallet(entry_id: str, wallet_id: str) -> Entry | None:
    row = await TransactionLog.get_pymongo_collection().find_one({"_id": entry_id, "wallet_id": wallet_id})
    return None if row is None else entry_from_row(row)


async def find_of_user(
    user_id: str, wanted: EntryFilter, currency: str | None, *, before_id: str | None, limit: int
) -> list[Entry]:
    """Finds the entries of all wallets of a user, newest first; `before_id` is the last one of the page before.

    Raises ExecutionTimeout where the filters match too rarely to fill a page in time.
    """
    condition = {"user_id": user_id, **_traits(wanted)}
    time_range = _bounds(("$gte", wanted.created_from), ("$lt", wanted.created_to))
    if time_range:
        condition["created_at"] = time_range
    if currency is not None:
        condition["currency"] = currency
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = _entries().find(condition, sort=[("_id", -1)], limit=limit, max_time_ms=_SEARCH_LIMIT_MS)
    return [entry_from_row(row) for row in await found.to_list()]


async def find_seq_before(wallet_id: str, moment: datetime) -> int:
    """Finds the number of the wallet's last entry before that moment; 0 where there is none."""
    row = await _entries().find_one(
        {"wallet_id": wallet_id, "created_at": {"$lt": moment}}, {"_id": 0, "seq": 1}, sort=_NEWEST_FIRST
    )
    return 0 if row is None else int(row["seq"])


async def find_point_before(wallet_id: str, moment: datetime) -> BalancePoint:
    """Finds what was in the wallet just before that moment."""
    row = await _entries().find_one(
        {"wallet_id": wallet_id, "created_at": {"$lt": moment}}, _POINT_FIELDS, sort=_NEWEST_FIRST
    )
    return BEFORE_THE_FIRST if row is None else _to_point(row)


async def find_points_at(wallet_ids: Sequence[str], moment: datetime) -> dict[str, BalancePoint]:
    """Finds what was in each of these wallets at that moment, entries of that very millisecond included; by id."""
    found = await _entries().aggregate(_points_pipeline(wallet_ids, moment), maxTimeMS=_SEARCH_LIMIT_MS)
    points = {row["_id"]: _to_point(row) for row in await found.to_list()}
    return {wallet_id: points.get(wallet_id, BEFORE_THE_FIRST) for wallet_id in wallet_ids}


def _points_pipeline(wallet_ids: Sequence[str], moment: datetime) -> list[dict[str, Any]]:
    """The server takes one step in the index for each wallet (DISTINCT_SCAN), however many entries it has."""
    return [
        {"$match": {"wallet_id": {"$in": list(wallet_ids)}, "created_at": {"$lte": moment}}},
        {"$sort": {"wallet_id": 1, "created_at": -1, "seq": -1}},
        {"$group": {"_id": "$wallet_id", **{field: {"$first": f"${field}"} for field in _POINT_FIELDS}}},
    ]


class EntryStream:
    """A wallet's entries after `after_seq` up to `last_seq`, oldest first, some at a time.

    Holds a cursor on the server from the first batch on: whoever opened it closes it, whatever has happened.
    """

    def __init__(self, wallet_id: str, after_seq: int, last_seq: int) -> None:
        self._cursor = _entries().find(
            {"wallet_id": wallet_id, "seq": {"$gt": Int64(after_seq), "$lte": Int64(last_seq)}},
            sort=[("seq", 1)],
            batch_size=_STREAM_ROWS,
        )
        self._asked: asyncio.Future[list[dict[str, Any]]] | None = None

    async def batches(self) -> AsyncIterator[list[Entry]]:
        while True:
            # In a task of its own: a reader who is cancelled in the middle must not cancel the driver, which would
            # then lose sight of the cursor without having told the server.
            self._asked = asyncio.ensure_future(self._cursor.to_list(_STREAM_ROWS))
            rows = await asyncio.shield(self._asked)
            if not rows:
                return
            yield [entry_from_row(row) for row in rows]

    async def close(self) -> None:
        if self._asked is not None:
            await asyncio.wait([self._asked], timeout=_LAST_ANSWER_LIMIT_S)
        await self._cursor.close()


class SumsByType(NamedTuple):
    """A wallet's amounts by type within a span of time, and its balance before the first of them."""

    amounts: dict[EntryType, int]
    balance_before: int


async def sum_by_type(wallet_id: str, since: datetime, until: datetime) -> SumsByType:
    """Sums a wallet's entries of that span, both ends included. Raises ExecutionTimeout if there are too many."""
    span = {"wallet_id": wallet_id, "created_at": {"$gte": since, "$lte": until}}
    found = await _entries().aggregate(
        [{"$match": span}, {"$group": {"_id": "$type", "amount": {"$sum": "$amount"}}}],
        hint="wallet_time_seq",
        maxTimeMS=_SUM_LIMIT_MS,
    )
    amounts = {EntryType(row["_id"]): row["amount"] for row in await found.to_list()}
    first = await _entries().find_one(
        span, {"available_before": 1, "held_before": 1}, sort=[("created_at", 1), ("seq", 1)], hint="wallet_time_seq"
    )
    return SumsByType(amounts, 0 if first is None else first["available_before"] + first["held_before"])


async def sum_by_month(
    wallet_id: str, types: Sequence[EntryType], *, after_seq: int, last_seq: int, limit: int
) -> list[MonthlySum]:
    """Amounts and numbers of entries by month (UTC), category and type; in no order, at most `limit`.

    Raises ExecutionTimeout where there are too many entries to add up in time.
    """
    found = await _entries().aggregate(
        [
            {
                "$match": {
                    "wallet_id": wallet_id,
                    "seq": {"$gt": Int64(after_seq), "$lte": Int64(last_seq)},
                    "type": {"$in": list(types)},
                }
            },
            {
                "$group": {
                    "_id": {
                        "month": {"$dateTrunc": {"date": "$created_at", "unit": "month"}},
                        "category": "$category",
                        "type": "$type",
                    },
                    "amount": {"$sum": "$amount"},
                    "entries": {"$sum": 1},
                }
            },
            {"$limit": limit},
        ],
        hint="wallet_seq",
        maxTimeMS=_SUM_LIMIT_MS,
    )
    return [
        MonthlySum(
            f"{row['_id']['month']:%Y-%m}",
            row["_id"].get("category"),
            EntryType(row["_id"]["type"]),
            int(row["amount"]),
            row["entries"],
        )
        for row in await found.to_list()
    ]


def _entries() -> AsyncCollection[dict[str, Any]]:
    return TransactionLog.get_pymongo_collection()


def _to_point(row: dict[str, Any]) -> BalancePoint:
    return BalancePoint(int(row["seq"]), int(row["available_after"]), int(row["held_after"]), row["hash"])


def _traits(wanted: EntryFilter) -> dict[str, Any]:
    """Returns the conditions on what an entry is; when it was is the caller's."""
    condition: dict[str, Any] = {
        field: value
        for field in ("category", "direction", "status", "reference", "counterparty")
        if (value := getattr(wanted, field)) is not None
    }
    if wanted.types:
        condition["type"] = {"$in": list(wanted.types)}
    amount_range = _bounds(("$gte", wanted.amount_min), ("$lte", wanted.amount_max))
    if amount_range:
        condition["amount"] = {operator: Int64(amount) for operator, amount in amount_range.items()}
    return condition


def _bounds(*bounds: tuple[str, Any]) -> dict[str, Any]:
    return {operator: bound for operator, bound in bounds if bound is not None}

"""Queries on `transaction_logs`: inserts and reads, there is nothing else to do with it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import TransactionLog
from service.domain.entries import Direction, Entry, EntryType

_AMOUNTS = ("seq", "amount", "available_before", "available_after", "held_before", "held_after")


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
    await TransactionLog.get_pymongo_collection().insert_many([_to_row(e) for e in entries], session=session)


async def find_of_wallet(
    wallet_id: str,
    *,
    types: Sequence[EntryType],
    created_from: datetime | None,
    created_to: datetime | None,
    before_seq: int | None,
    limit: int,
) -> list[Entry]:
    """A wallet's entries, newest first; `before_seq` is the last one of the page before."""
    condition = _condition({"wallet_id": wallet_id}, types, created_from, created_to)
    if before_seq is not None:
        condition["seq"] = {"$lt": Int64(before_seq)}
    found = TransactionLog.get_pymongo_collection().find(condition, sort=[("seq", -1)], limit=limit)
    return [entry_from_row(row) for row in await found.to_list()]


async def find_following(wallet_id: str, *, after_seq: int, up_to_seq: int, limit: int) -> list[Entry]:
    """A wallet's entries above `after_seq` and up to `up_to_seq`, oldest first: a piece of its chain."""
    condition = {"wallet_id": wallet_id, "seq": {"$gt": Int64(after_seq), "$lte": Int64(up_to_seq)}}
    found = TransactionLog.get_pymongo_collection().find(condition, sort=[("seq", 1)], limit=limit)
    return [entry_from_row(row) for row in await found.to_list()]


async def find_in_wallet(entry_id: str, wallet_id: str) -> Entry | None:
    row = await TransactionLog.get_pymongo_collection().find_one({"_id": entry_id, "wallet_id": wallet_id})
    return None if row is None else entry_from_row(row)


async def find_of_user(
    user_id: str,
    *,
    types: Sequence[EntryType],
    currency: str | None,
    created_from: datetime | None,
    created_to: datetime | None,
    before_id: str | None,
    limit: int,
) -> list[Entry]:
    """The entries of all wallets of a user, newest first; `before_id` is the last one of the page before."""
    condition = _condition({"user_id": user_id}, types, created_from, created_to)
    if currency is not None:
        condition["currency"] = currency
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = TransactionLog.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [entry_from_row(row) for row in await found.to_list()]


def _condition(
    condition: dict[str, Any],
    types: Sequence[EntryType],
    created_from: datetime | None,
    created_to: datetime | None,
) -> dict[str, Any]:
    if types:
        condition["type"] = {"$in": list(types)}
    time_range = {
        operator: moment for operator, moment in (("$gte", created_from), ("$lt", created_to)) if moment is not None
    }
    if time_range:
        condition["created_at"] = time_range
    return condition

"""Queries on `account_sums` and their corrections, and those that sum entries up by account."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from bson.decimal128 import Decimal128
from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from service.documents import AccountCorrection, AccountSumsDocument, TransactionLog
from service.domain.accounts import BETWEEN_WALLETS, AccountSum, Correction, StoredSums
from service.domain.identifiers import Prefix, first_id_at


async def find_last(*, session: AsyncClientSession) -> StoredSums | None:
    row = await AccountSumsDocument.get_pymongo_collection().find_one({}, sort=[("_id", -1)], session=session)
    return None if row is None else _to_stored(row)


async def find_all(*, session: AsyncClientSession) -> list[StoredSums]:
    """Every closed hour, the first one first: some MB in a year."""
    rows = AccountSumsDocument.get_pymongo_collection().find({}, sort=[("_id", 1)], session=session)
    return [_to_stored(row) async for row in rows]


async def insert_once(stored: StoredSums, now: datetime) -> bool:
    """False where that hour is closed already. One document, so no transaction to spoil."""
    row = {"_id": stored.through, "sums": _from_sums(stored.sums), "created_at": now}
    try:
        await AccountSumsDocument.get_pymongo_collection().insert_one(row)
    except DuplicateKeyError:
        return False
    return True


async def find_corrections(*, session: AsyncClientSession) -> list[Correction]:
    rows = AccountCorrection.get_pymongo_collection().find({}, sort=[("_id", 1)], session=session)
    return [
        Correction(int(row.pop("_id")), sums=tuple(_to_sum(one) for one in row.pop("sums")), **row)
        async for row in rows
    ]


async def insert_correction_once(correction: Correction) -> bool:
    """False where somebody else's correction has the number."""
    row = correction._asdict() | {"sums": _from_sums(correction.sums)}
    try:
        await AccountCorrection.get_pymongo_collection().insert_one({"_id": Int64(row.pop("number")), **row})
    except DuplicateKeyError:
        return False
    return True


async def find_first_entry(
    made_from: datetime | None, made_before: datetime, *, session: AsyncClientSession
) -> str | None:
    """Finds the id of the first entry that was made in this time; None where none was."""
    row = await TransactionLog.get_pymongo_collection().find_one(
        {"_id": _made_between(made_from, made_before)}, {"_id": 1}, sort=[("_id", 1)], session=session
    )
    return None if row is None else str(row["_id"])


_BEFORE: Final = {"$add": ["$available_before", "$held_before"]}
_AFTER: Final = {"$add": ["$available_after", "$held_after"]}
_RECEIVED: Final = {"$max": [{"$subtract": [_AFTER, _BEFORE]}, Int64(0)]}
_GIVEN: Final = {"$max": [{"$subtract": [_BEFORE, _AFTER]}, Int64(0)]}
_IS_A_WALLET: Final = {"$eq": [{"$substrBytes": ["$counterparty", 0, len(Prefix.WALLET) + 1]}, f"{Prefix.WALLET}_"]}


async def sum_entries(
    made_from: datetime | None, made_before: datetime | None, *, session: AsyncClientSession, limit_s: float
) -> list[AccountSum]:
    """Sums what the entries that were made in this time booked on each account, wallets being one.

    Ids begin with their time, so that it is one range of the index on them; 3 s for a million. What takes longer than
    `limit_s` is ended by the server.
    """
    # Decimals, because the sum of longs turns into a double, and so loses digits, where it leaves 64 bits.
    booked = await TransactionLog.get_pymongo_collection().aggregate(
        [
            {"$match": {"_id": _made_between(made_from, made_before)}},
            {
                "$group": {
                    "_id": {
                        "account": {"$cond": [_IS_A_WALLET, BETWEEN_WALLETS, "$counterparty"]},
                        "currency": "$currency",
                    },
                    "debit": {"$sum": {"$toDecimal": _RECEIVED}},
                    "credit": {"$sum": {"$toDecimal": _GIVEN}},
                }
            },
        ],
        session=session,
        maxTimeMS=int(limit_s * 1000),
    )
    return [_to_sum({**row["_id"], **row}) async for row in booked]


def _made_between(made_from: datetime | None, made_before: datetime | None) -> dict[str, str]:
    bounds: Sequence[tuple[str, datetime | None]] = (("$gte", made_from), ("$lt", made_before))
    condition = {operator: first_id_at(Prefix.ENTRY, moment) for operator, moment in bounds if moment is not None}
    # Whatever its id is: an entry that no time can be told of has to be in the sums all the same.
    return condition or {"$gte": ""}


def _to_stored(row: dict[str, Any]) -> StoredSums:
    return StoredSums(row["_id"], tuple(_to_sum(one) for one in row["sums"]))


def _from_sums(sums: Iterable[AccountSum]) -> list[dict[str, Any]]:
    return [
        {**one._asdict(), "debit": Decimal128(str(one.debit)), "credit": Decimal128(str(one.credit))} for one in sums
    ]


def _to_sum(row: dict[str, Any]) -> AccountSum:
    return AccountSum(row["account"], row["currency"], int(row["debit"].to_decimal()), int(row["credit"].to_decimal()))

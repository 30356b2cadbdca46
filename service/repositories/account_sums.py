"""Queries on `account_sums`, and those that sum entries up by account."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from bson.decimal128 import Decimal128
from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from service.documents import AccountSumsDocument, TransactionLog
from service.domain.accounts import BETWEEN_WALLETS, AccountSum, StoredSums
from service.domain.identifiers import Prefix, first_id_at


async def find_last(*, session: AsyncClientSession) -> StoredSums | None:
    row = await AccountSumsDocument.get_pymongo_collection().find_one({}, sort=[("_id", -1)], session=session)
    if row is None:
        return None
    return StoredSums(row["_id"], tuple(_to_sum(one) for one in row["sums"]))


async def insert_once(stored: StoredSums, now: datetime) -> bool:
    """False where that hour is closed already. One document, so no transaction to spoil."""
    sums = [
        {**one._asdict(), "debit": Decimal128(str(one.debit)), "credit": Decimal128(str(one.credit))}
        for one in stored.sums
    ]
    try:
        await AccountSumsDocument.get_pymongo_collection().insert_one(
            {"_id": stored.through, "sums": sums, "created_at": now}
        )
    except DuplicateKeyError:
        return False
    return True


async def find_first_entry(
    made_from: datetime | None, made_before: datetime, *, session: AsyncClientSession
) -> str | None:
    """The id of the first entry that was made in this time; None where none was."""
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
    """What the entries that were made in this time booked on each account, wallets being one.

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


def _to_sum(row: dict[str, Any]) -> AccountSum:
    return AccountSum(row["account"], row["currency"], int(row["debit"].to_decimal()), int(row["credit"].to_decimal()))

"""Queries on `reconciliations`, and on what is compared: our entries with the bank, and what came back."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

from bson.decimal128 import Decimal128

from service.documents import ReconciliationDocument, TransactionLog
from service.domain.accounts import SystemAccount
from service.domain.bank_lines import Flow
from service.domain.identifiers import Prefix, first_id_at
from service.domain.reconciliation import DayTotal, OurLine, OurReturn, Reconciliation
from service.repositories.records import HOMES

_ONE_BATCH = 2_000
# By name: what can come back is a matter of versions.
_FLOWS: Final = {
    "WITHDRAWAL_SETTLEMENT": (Flow.PAYOUT, Prefix.WITHDRAWAL),
    "DEPOSIT": (Flow.COLLECTION, Prefix.DEPOSIT),
    "WITHDRAWAL_RETURN": (Flow.RETURNED_PAYOUT, Prefix.WITHDRAWAL),
    "DEPOSIT_RETURN": (Flow.RETURNED_COLLECTION, Prefix.DEPOSIT),
}
_RETURN_PREFIX: Final = "rtn"


async def stream_ours(start: datetime, end: datetime) -> AsyncIterator[OurLine]:
    """Streams what was booked with the bank in this time: one range of the index on ids, as they begin with it."""
    found = TransactionLog.get_pymongo_collection().find(
        {
            "_id": {"$gte": first_id_at(Prefix.ENTRY, start), "$lt": first_id_at(Prefix.ENTRY, end)},
            "counterparty": SystemAccount.BANK.value,
            "type": {"$in": list(_FLOWS)},
        },
        {"reference": 1, "type": 1, "amount": 1, "currency": 1, "wallet_id": 1, "created_at": 1},
        sort=[("_id", 1)],
        batch_size=_ONE_BATCH,
    )
    async with found:
        async for row in found:
            flow, prefix = _FLOWS[row["type"]]
            # A return has its operation's number.
            reference = f"{prefix}_{row['reference'].partition('_')[2]}"
            yield OurLine(reference, flow, int(row["amount"]), row["currency"], row["wallet_id"], row["created_at"])


async def find_returns(operation_ids: Sequence[str]) -> dict[str, OurReturn]:
    """By operation, which has one at most; nothing where this version knows of none."""
    home = HOMES.get(_RETURN_PREFIX)
    if home is None:
        return {}
    ids = [f"{_RETURN_PREFIX}_{operation_id.partition('_')[2]}" for operation_id in operation_ids]
    rows = home.document.get_pymongo_collection().find({"_id": {"$in": ids}}, batch_size=_ONE_BATCH)
    return {
        row["operation_id"]: OurReturn(
            row["_id"], row["operation_id"], int(row["amount"]), row["currency"], row["status"] != "requires_review"
        )
        for row in await rows.to_list()
    }


def _from_row(row: dict[str, Any]) -> Reconciliation:
    totals = tuple(
        DayTotal(Flow(one["flow"]), one["currency"], int(one["bank"].to_decimal()), int(one["ours"].to_decimal()))
        for one in row.pop("totals")
    )
    return Reconciliation(day=row.pop("_id"), totals=totals, **row)


async def save(compared: Reconciliation) -> None:
    """In place of the day's comparison before, unless that one is newer."""
    row = compared._asdict()
    first_compared_at = row.pop("first_compared_at")
    comparisons = row.pop("comparisons")
    row["totals"] = [
        {**total._asdict(), "bank": Decimal128(str(total.bank)), "ours": Decimal128(str(total.ours))}
        for total in compared.totals
    ]
    await ReconciliationDocument.get_pymongo_collection().update_one(
        {"_id": row.pop("day")},
        {"$set": row, "$setOnInsert": {"first_compared_at": first_compared_at}, "$inc": {"comparisons": comparisons}},
        upsert=True,
    )


async def find(day: str) -> Reconciliation | None:
    row = await ReconciliationDocument.get_pymongo_collection().find_one({"_id": day})
    return None if row is None else _from_row(row)


async def find_last(limit: int) -> list[Reconciliation]:
    """Finds the latest days that were compared, the last one first."""
    found = ReconciliationDocument.get_pymongo_collection().find({}, sort=[("_id", -1)], limit=limit)
    return [_from_row(row) for row in await found.to_list()]


async def find_compared_since(day: str) -> dict[str, datetime]:
    """Finds when each day was compared last, from that day on."""
    found = ReconciliationDocument.get_pymongo_collection().find({"_id": {"$gte": day}}, {"compared_at": 1})
    return {row["_id"]: row["compared_at"] for row in await found.to_list()}


async def find_first_entry_id() -> str | None:
    row = await TransactionLog.get_pymongo_collection().find_one({}, {"_id": 1}, sort=[("_id", 1)])
    return None if row is None else str(row["_id"])

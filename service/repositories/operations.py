"""Queries on `deposits` and `withdrawals`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from service.documents import Deposit, Withdrawal
from service.domain.operations import Operation, OperationStatus, OperationType

# Above any batch limit: a second round trip for the rest would hold the snapshot open for longer.
_ONE_BATCH = 4096


class OperationFilter(NamedTuple):
    """What a list is narrowed to; times are from (inclusive) and to (exclusive)."""

    status: OperationStatus | None = None
    currency: str | None = None
    category: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


def _collection(operation_type: OperationType) -> AsyncCollection[dict[str, Any]]:
    return (Deposit if operation_type is OperationType.DEPOSIT else Withdrawal).get_pymongo_collection()


def _from_row(row: dict[str, Any]) -> Operation:
    row["id"] = row.pop("_id")
    row["type"] = OperationType(row["type"])
    row["status"] = OperationStatus(row["status"])
    return Operation(**row)


def _to_row(operation: Operation) -> dict[str, Any]:
    row = operation._asdict()
    row["_id"] = row.pop("id")
    row["amount"] = Int64(operation.amount)
    return row


async def insert_many(operations: Sequence[Operation], *, session: AsyncClientSession) -> None:
    """All of one type."""
    await _collection(operations[0].type).insert_many([_to_row(o) for o in operations], session=session)


async def update_guarded(changes: Sequence[tuple[Operation, Operation]], *, session: AsyncClientSession) -> bool:
    """Compare-and-set on status and attempts, all of one type; False where one had moved on already."""
    updates = [
        UpdateOne(
            {"_id": before.id, "status": before.status, "attempts": before.attempts},
            {
                "$set": {
                    "status": after.status,
                    "attempts": after.attempts,
                    "bank_reference": after.bank_reference,
                    "failure_code": after.failure_code,
                    "failure_message": after.failure_message,
                    "updated_at": after.updated_at,
                }
            },
        )
        for before, after in changes
    ]
    result = await _collection(changes[0][0].type).bulk_write(updates, ordered=True, session=session)
    return result.matched_count == len(changes)


async def find_named(
    operation_type: OperationType, operation_ids: Sequence[str], *, session: AsyncClientSession
) -> list[Operation]:
    found = _collection(operation_type).find(
        {"_id": {"$in": list(operation_ids)}}, session=session, batch_size=_ONE_BATCH
    )
    return [_from_row(row) for row in await found.to_list()]


async def find(operation_type: OperationType, operation_id: str) -> Operation | None:
    row = await _collection(operation_type).find_one({"_id": operation_id})
    return None if row is None else _from_row(row)


async def find_many(operation_type: OperationType, operation_ids: Sequence[str]) -> list[Operation]:
    found = _collection(operation_type).find({"_id": {"$in": list(operation_ids)}}, batch_size=_ONE_BATCH)
    return [_from_row(row) for row in await found.to_list()]


async def find_owned(operation_type: OperationType, operation_id: str, user_id: str) -> Operation | None:
    row = await _collection(operation_type).find_one({"_id": operation_id, "user_id": user_id})
    return None if row is None else _from_row(row)


async def find_of_user(
    operation_type: OperationType, user_id: str, wanted: OperationFilter, *, before_id: str | None, limit: int
) -> list[Operation]:
    """A user's operations, newest first; `before_id` is the last one of the page before."""
    equal = {"status": wanted.status, "currency": wanted.currency, "category": wanted.category}
    times = {"$gte": wanted.created_from, "$lt": wanted.created_to}
    condition: dict[str, Any] = {"user_id": user_id}
    condition |= {name: value for name, value in equal.items() if value is not None}
    time_range = {operator: moment for operator, moment in times.items() if moment is not None}
    if time_range:
        condition["created_at"] = time_range
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = _collection(operation_type).find(condition, sort=[("_id", -1)], limit=limit)
    return [_from_row(row) for row in await found.to_list()]

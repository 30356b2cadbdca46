"""Queries on operations that wait for a person."""

from typing import Any

from service.documents import Deposit, Withdrawal
from service.domain.identifiers import Prefix
from service.domain.operations import Operation, OperationStatus
from service.repositories.records import from_row

_HOMES = {Prefix.DEPOSIT: Deposit, Prefix.WITHDRAWAL: Withdrawal}


def position_of(operation: Operation) -> str:
    """Returns what both kinds are in order by: the part of the id that is its time, and the rest of it."""
    return operation.id.partition("_")[2]


async def find_in_review(*, after: str | None, limit: int) -> list[Operation]:
    """Lists requests, the oldest first; `after` is the position of the last one of the page before."""
    found = [one for prefix in _HOMES for one in await _find(prefix, OperationStatus.REQUIRES_REVIEW, after, limit)]
    return sorted(found, key=position_of)[:limit]


async def find_blocked(*, after: str | None, limit: int) -> list[Operation]:
    """Withdrawals, in the same order."""
    return await _find(Prefix.WITHDRAWAL, OperationStatus.BLOCKED, after, limit)


async def _find(prefix: Prefix, status: OperationStatus, after: str | None, limit: int) -> list[Operation]:
    condition: dict[str, Any] = {"status": status}
    if after is not None:
        condition["_id"] = {"$gt": f"{prefix}_{after}"}
    rows = _HOMES[prefix].get_pymongo_collection().find(condition, sort=[("_id", 1)], limit=limit)
    return [from_row(Operation, row) for row in await rows.to_list()]

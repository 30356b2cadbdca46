"""Queries on operations that wait for a person, deposits and withdrawals together."""

from typing import Any

from service.documents import Deposit, Withdrawal
from service.domain.identifiers import Prefix
from service.domain.operations import Operation, OperationStatus
from service.repositories.records import from_row

_HOMES = {Prefix.DEPOSIT: Deposit, Prefix.WITHDRAWAL: Withdrawal}


def position_of(operation: Operation) -> str:
    """What both kinds are in order by: the part of the id that is its time, and the rest of it."""
    return operation.id.partition("_")[2]


async def find_in_review(*, after: str | None, limit: int) -> list[Operation]:
    """The oldest requests first; `after` is the position of the last one of the page before."""
    found: list[Operation] = []
    for prefix, document in _HOMES.items():
        condition: dict[str, Any] = {"status": OperationStatus.REQUIRES_REVIEW}
        if after is not None:
            condition["_id"] = {"$gt": f"{prefix}_{after}"}
        rows = document.get_pymongo_collection().find(condition, sort=[("_id", 1)], limit=limit)
        found += [from_row(Operation, row) for row in await rows.to_list()]
    return sorted(found, key=position_of)[:limit]

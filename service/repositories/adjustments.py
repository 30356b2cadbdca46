"""Queries on `adjustments`, besides those that all records share."""

from typing import Any

from service.documents import AdjustmentDocument
from service.domain.adjustments import Adjustment, AdjustmentStatus
from service.repositories.records import from_row


async def find_newest(status: AdjustmentStatus | None, *, before_id: str | None, limit: int) -> list[Adjustment]:
    """Everybody's, newest first; `before_id` is the last one of the page before."""
    condition: dict[str, Any] = {} if status is None else {"status": status}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = AdjustmentDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(Adjustment, row) for row in await found.to_list()]

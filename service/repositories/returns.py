"""Queries on `returns`, besides those that all records share."""

from typing import Any

from service.documents import ReturnDocument
from service.domain.returns import Return, ReturnStatus
from service.repositories.records import from_row


async def find_newest(status: ReturnStatus | None, *, before_id: str | None, limit: int) -> list[Return]:
    """Everybody's, those of the newest operations first; `before_id` is the last one of the page before."""
    condition: dict[str, Any] = {} if status is None else {"status": status}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = ReturnDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(Return, row) for row in await found.to_list()]

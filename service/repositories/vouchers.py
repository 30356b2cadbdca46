"""Queries on `vouchers` that are not by id or user: the catalogue's pages."""

from datetime import datetime
from typing import Any

from service.documents import VoucherDocument
from service.domain.vouchers import Voucher
from service.repositories.records import from_row


async def find_redeemable(at: datetime, *, before_id: str | None, limit: int) -> list[Voucher]:
    """Active, valid at that time and in stock; newest first. `before_id` is the last one of the page before."""
    condition: dict[str, Any] = {
        "is_active": True,
        "stock": {"$gt": 0},
        "$and": [
            {"$or": [{"valid_from": None}, {"valid_from": {"$lte": at}}]},
            {"$or": [{"valid_until": None}, {"valid_until": {"$gt": at}}]},
        ],
    }
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = VoucherDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(Voucher, row) for row in await found.to_list()]

"""What metrics tell of what waits for a person. Each goes by an index and is bounded."""

from datetime import datetime
from typing import Any, Final, NamedTuple

from service.documents import BreakDocument, IncidentDocument, OutboxDocument, Withdrawal
from service.domain.breaks import BreakKind, BreakState
from service.domain.incidents import IncidentStatus
from service.domain.operations import OperationStatus

# Some ten thousand rows are counted in a hundredth of a second. Beyond this, more is more.
_COUNTED: Final = 100_000


async def count_open_breaks() -> dict[str, int]:
    """By kind, all of them."""
    stages: list[dict[str, Any]] = [
        {"$match": {"state": BreakState.OPEN}},
        {"$limit": _COUNTED},
        {"$group": {"_id": "$kind", "breaks": {"$sum": 1}}},
    ]
    found = await BreakDocument.get_pymongo_collection().aggregate(stages)
    return {kind.value: 0 for kind in BreakKind} | {row["_id"]: row["breaks"] async for row in found}


class OverdueOrders(NamedTuple):
    """Orders that the bank has and should have carried out by now. `oldest` is None where there is none."""

    number: int
    oldest: datetime | None


async def find_overdue_orders(now: datetime) -> OverdueOrders:
    outbox, overdue = OutboxDocument.get_pymongo_collection(), {"expected_by": {"$lt": now}}
    oldest = await outbox.find_one(overdue, {"expected_by": 1}, sort=[("expected_by", 1)])
    if oldest is None:
        return OverdueOrders(0, None)
    return OverdueOrders(await outbox.count_documents(overdue, limit=_COUNTED), oldest["expected_by"])


async def count_open_incidents() -> int:
    incidents = IncidentDocument.get_pymongo_collection()
    return await incidents.count_documents({"status": IncidentStatus.OPEN}, limit=_COUNTED)


async def count_blocked_withdrawals() -> int:
    withdrawals = Withdrawal.get_pymongo_collection()
    return await withdrawals.count_documents({"status": OperationStatus.BLOCKED}, limit=_COUNTED)

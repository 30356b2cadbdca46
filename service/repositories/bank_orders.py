"""Queries on the simulated bank's journal."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any, NamedTuple

from pymongo import ReturnDocument, UpdateOne

from service.documents import BankOrder
from service.domain.server_clock import ServerTime
from service.repositories import due_rows, inserts
from service.repositories.due_rows import claim_due
from service.repositories.gathering import Gathered


class Left(NamedTuple):
    """What remains of an order that was worked on: the reports that are still to come, and when it is due again; and
    the webhook-ids under which something was said and taken.
    """

    reference: str
    said: list[str]
    reports: list[dict[str, Any]]
    due_at: datetime | None


# All reports of an order that is done have been taken. A report under another reference belongs to no order.
_ABOUT_ITSELF = {"$filter": {"input": "$reports", "cond": {"$eq": ["$$this.payload.reference", "$_id"]}}}
_WITH_REPORTS = {
    "$concatArrays": [
        {"$ifNull": ["$said", []]},
        {"$map": {"input": _ABOUT_ITSELF, "in": "$$this.webhook_id"}},
    ]
}


async def take_once(order: dict[str, Any]) -> dict[str, Any] | None:
    """Enters a new order; the one that has this reference already where there is one, which stays as it is."""
    return None if await _insert(order) else await count_submission(order["_id"])


_insert = Gathered(partial(inserts.insert_missing, BankOrder))


async def count_submission(reference: str) -> dict[str, Any] | None:
    """The order that was handed in once more; None where there is none."""
    known: dict[str, Any] | None = await BankOrder.get_pymongo_collection().find_one_and_update(
        {"_id": reference}, {"$inc": {"submissions": 1}}, return_document=ReturnDocument.AFTER
    )
    return known


async def insert_missing(orders: Sequence[dict[str, Any]]) -> list[str]:
    """Many at once; an order whose reference the journal has already stays as it is, and is named."""
    are_new = await inserts.insert_missing(BankOrder, orders)
    return [order["_id"] for order, is_new in zip(orders, are_new, strict=True) if not is_new]


async def find(reference: str) -> dict[str, Any] | None:
    return await _find(reference)


async def _find_each(references: Sequence[str]) -> list[dict[str, Any] | None]:
    found = BankOrder.get_pymongo_collection().find({"_id": {"$in": list(references)}}, batch_size=len(references))
    rows = {row["_id"]: row for row in await found.to_list()}
    return [rows.get(reference) for reference in references]


_find = Gathered(_find_each)


async def get(reference: str) -> dict[str, Any]:
    """Returns an order that is known to be there."""
    found = await find(reference)
    assert found is not None, "the journal forgets nothing"  # noqa: S101 a witness that forgets is none
    return found


async def claim(*, now: datetime, lease_s: float, limit: int) -> list[dict[str, Any]]:
    """Orders with something to execute, to pay back or to report, taken for `lease_s` seconds."""
    return await claim_due(BankOrder.get_pymongo_collection(), now=now, lease_s=lease_s, limit=limit)


async def count(now: datetime) -> dict[str, int]:
    """Counts the orders, those of them that are not executed yet, and those for which something is due."""
    collection = BankOrder.get_pymongo_collection()
    return {
        "orders": await collection.estimated_document_count(),
        "accepted": await collection.count_documents({"state": "accepted"}),
        "due": await collection.count_documents({"due_at": {"$lte": now}}),
    }


async def execute_many(references: Sequence[str], now: datetime) -> None:
    """Ends accepted orders, each in one step with its payment; those that have ended stay as they are."""
    payment = {"at": now, "amount": "$amount", "bank_reference": "$bank_reference"}
    paid = {"$cond": [{"$eq": ["$outcome", "success"]}, [payment], []]}
    await BankOrder.get_pymongo_collection().update_many(
        {"_id": {"$in": list(references)}, "state": "accepted"},
        [{"$set": {"state": "$outcome", "executed_at": now, "payments": paid}}],
    )


async def return_many(references: Sequence[str], now: datetime) -> None:
    """Pays back what was paid, each once."""
    returned = {"at": now, "amount": "$amount", "bank_reference": "$return_reference"}
    await BankOrder.get_pymongo_collection().update_many(
        {"_id": {"$in": list(references)}, "state": "success", "returns": []}, [{"$set": {"returns": [returned]}}]
    )


async def put_back(left: Sequence[Left], claim: str) -> None:
    """The end of a claim, for those orders that nobody else has taken over meanwhile."""
    collection = BankOrder.get_pymongo_collection()
    done = [one.reference for one in left if one.due_at is None]
    if done:
        await collection.update_many(
            {"_id": {"$in": done}, "claim": claim},
            [{"$set": {"said": _WITH_REPORTS, "reports": []}}, {"$unset": ["due_at", "claim"]}],
        )
    changes = [
        UpdateOne(
            {"_id": one.reference, "claim": claim},
            {
                "$set": {"reports": one.reports, "due_at": one.due_at},
                "$push": {"said": {"$each": one.said}},
                "$unset": {"claim": ""},
            },
        )
        for one in left
        if one.due_at is not None
    ]
    if changes:
        await collection.bulk_write(changes, ordered=False)


async def find_moved(day: date) -> list[tuple[dict[str, Any], dict[str, Any], bool]]:
    """Each time that money moved on that day (UTC), beside its order and whether it came back; oldest first."""
    start = datetime.combine(day, time(), UTC)
    end = start + timedelta(days=1)
    moved: list[tuple[dict[str, Any], dict[str, Any], bool]] = []
    for name, is_return in (("payments", False), ("returns", True)):
        of_the_day = {name: {"$elemMatch": {"at": {"$gte": start, "$lt": end}}}}
        rows = await BankOrder.get_pymongo_collection().find(of_the_day).to_list()
        moved += [(row, one, is_return) for row in rows for one in row[name] if start <= one["at"] < end]
    return sorted(moved, key=lambda one: (one[1]["at"], one[2]))


async def bring_forward(time: ServerTime, *, lease_s: float) -> int:
    """As due_rows.bring_forward does, by the bank's own clock: with the times of the order's plan, which a visit goes
    by.
    """
    plan: dict[str, Any] = {name: _earlier(f"${name}", time) for name in ("execute_at", "return_at")}
    report = {"$mergeObjects": ["$$this", {"due_at": _earlier("$$this.due_at", time)}]}
    plan["reports"] = {"$map": {"input": "$reports", "in": report}}
    return await due_rows.bring_forward(BankOrder.get_pymongo_collection(), time, lease_s=lease_s, also=plan)


def _earlier(at: str, time: ServerTime) -> dict[str, Any]:
    """Leaves what has passed as it is."""
    earlier = {"$max": [time.now, {"$subtract": [at, due_rows.milliseconds_back(time)]}]}
    return {"$cond": [{"$gt": [at, time.now]}, earlier, at]}

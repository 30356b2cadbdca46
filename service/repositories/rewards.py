"""Queries on `rewards` besides those that all records have."""

from datetime import datetime, timedelta

from service.documents import RewardDocument
from service.domain.identifiers import Prefix, first_id_at
from service.domain.rewards import RewardStatus

_SETTLES_WITHIN = timedelta(days=60)
# A user has a reward for each operation that earned; by the index on users these are few milliseconds.
_SUM_LIMIT_MS = 5_000


async def sum_counted(user_id: str, currency: str, *, since: datetime, points_since: datetime) -> tuple[int, int]:
    """Sums what has earned of operations in one currency that settled since `since`, and all points since
    `points_since`. What earned points that went back counts no more in the first sum.
    """
    earliest = min(since, points_since)
    found = await RewardDocument.get_pymongo_collection().aggregate(
        [
            {
                "$match": {
                    "user_id": user_id,
                    # Ids sort by the time of the operation, which may have settled long after.
                    "_id": {"$gte": first_id_at(Prefix.REWARD, earliest - _SETTLES_WITHIN)},
                    "status": RewardStatus.SUCCESS,
                    "created_at": {"$gte": earliest},
                }
            },
            {"$lookup": {"from": "returns", "localField": "_id", "foreignField": "operation_id", "as": "returns"}},
            {
                "$group": {
                    "_id": None,
                    "counted": {
                        "$sum": _sum_if(
                            "$counted",
                            {"$eq": ["$currency", currency]},
                            {"$eq": ["$returns", []]},
                            # Rewards of earlier releases lack the time.
                            {"$gte": [{"$ifNull": ["$settled_at", "$created_at"]}, since]},
                        )
                    },
                    "points": {"$sum": _sum_if("$points", {"$gte": ["$created_at", points_since]})},
                }
            },
        ],
        maxTimeMS=_SUM_LIMIT_MS,
    )
    rows = await found.to_list()
    return (rows[0]["counted"], rows[0]["points"]) if rows else (0, 0)


def _sum_if(field: str, *conditions: dict[str, object]) -> dict[str, object]:
    return {"$cond": [{"$and": list(conditions)}, field, 0]}

"""Queries on `rewards` besides those that all records have."""

from datetime import datetime, timedelta

from service.documents import RewardDocument
from service.domain.identifiers import Prefix, first_id_at
from service.domain.rewards import RewardStatus

_SETTLES_WITHIN = timedelta(days=60)
# A user has a reward for each operation that earned; by the index on users these are few milliseconds.
_SUM_LIMIT_MS = 5_000


async def sum_counted(user_id: str, currency: str, *, since: datetime, points_since: datetime) -> tuple[int, int]:
    """Adds up what of a currency has earned since `since`, and all points since `points_since`."""
    found = await RewardDocument.get_pymongo_collection().aggregate(
        [
            {
                "$match": {
                    "user_id": user_id,
                    # Ids sort by the time of the operation, which may have settled long after.
                    "_id": {"$gte": first_id_at(Prefix.REWARD, min(since, points_since) - _SETTLES_WITHIN)},
                    "status": RewardStatus.SUCCESS,
                    "created_at": {"$gte": min(since, points_since)},
                }
            },
            {
                "$group": {
                    "_id": None,
                    "counted": {
                        "$sum": _where({"$and": [_is_from(since), {"$eq": ["$currency", currency]}]}, "$counted")
                    },
                    "points": {"$sum": _where(_is_from(points_since), "$points")},
                }
            },
        ],
        maxTimeMS=_SUM_LIMIT_MS,
    )
    rows = await found.to_list()
    return (rows[0]["counted"], rows[0]["points"]) if rows else (0, 0)


def _is_from(moment: datetime) -> dict[str, object]:
    return {"$gte": ["$created_at", moment]}


def _where(condition: dict[str, object], field: str) -> dict[str, object]:
    return {"$cond": [condition, field, 0]}

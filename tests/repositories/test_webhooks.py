"""Queries on webhooks go by their indexes: none reads more than it needs."""

from collections.abc import Mapping
from typing import Any

import pytest

from service.database import Databases
from service.documents.webhooks import TAKEN
from service.domain.clock import utc_now
from service.repositories import webhook_deliveries as delivery_repository
from tests.servers import Admin

_DUE: dict[str, Any] = {
    "due_at": {"$lte": utc_now()},
    "endpoint_id": {"$nin": ["whe_1"]},
    "user_id": {"$nin": ["usr_1"]},
}


def _indexes_of(plan: Mapping[str, Any]) -> set[str]:
    """Names of those that the plan goes by; COLLSCAN where it goes by none."""
    names = {plan["indexName"]} if "indexName" in plan else set()
    names |= {"COLLSCAN"} if plan.get("stage") == "COLLSCAN" else set()
    inner = [plan["inputStage"]] if "inputStage" in plan else plan.get("inputStages", [])
    return names.union(*map(_indexes_of, inner))


@pytest.mark.parametrize(
    ("collection", "condition", "sort", "index"),
    [
        ("webhook_deliveries", _DUE, {"due_at": 1}, "due"),
        ("webhook_deliveries", {"claim": "a"}, None, "claim"),
        ("webhook_deliveries", {"endpoint_id": "whe_1"}, {"_id": -1}, "endpoint_newest"),
        ("webhook_endpoints", {"user_id": {"$in": ["usr_1", "usr_2"]}, **TAKEN}, None, "owner_slot"),
    ],
)
async def test_a_query_goes_by_its_index(
    databases: Databases, collection: str, condition: dict[str, Any], sort: dict[str, int] | None, index: str
) -> None:
    find: dict[str, Any] = {"find": collection, "filter": condition, **({} if sort is None else {"sort": sort})}
    explained = await databases.wallet.command({"explain": find, "verbosity": "queryPlanner"})
    assert _indexes_of(explained["queryPlanner"]["winningPlan"]) == {index}


async def test_what_waits_for_an_endpoint_is_canceled_by_its_index_however_little_there_is(
    databases: Databases, admin: Admin
) -> None:
    """The planner finds the index of what is due as good, while nothing is."""
    database = admin[databases.wallet.name]
    database.command("profile", 2)
    try:
        await delivery_repository.cancel_all("whe_1")
    finally:
        database.command("profile", 0)
    (update,) = database["system.profile"].find({"op": "update", "command.q.endpoint_id": "whe_1"})
    assert update["planSummary"] == "IXSCAN { endpoint_id: 1, due_at: 1 }"

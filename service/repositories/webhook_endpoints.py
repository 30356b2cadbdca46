"""Queries on `webhook_endpoints`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import User, WebhookEndpointDocument
from service.documents.webhooks import TAKEN
from service.domain.webhook_endpoints import EndpointStatus, WebhookEndpoint
from service.repositories.records import from_row, to_row

# More than the events of one batch can have; the rest of a longer list comes in further round trips.
_ONE_BATCH = 1000
_OWNER_MAY_ACT: list[dict[str, Any]] = [
    {
        "$lookup": {
            "from": User.Settings.name,
            "localField": "user_id",
            "foreignField": "_id",
            "pipeline": [{"$match": {"is_active": True}}, {"$project": {"_id": 1}}],
            "as": "owners",
        }
    },
    {"$match": {"owners": {"$ne": []}}},
    {"$unset": "owners"},
]


async def insert(endpoint: WebhookEndpoint, *, session: AsyncClientSession) -> None:
    """Raises DuplicateKeyError where another of the user's has that slot."""
    await WebhookEndpointDocument.get_pymongo_collection().insert_one(to_row(endpoint), session=session)


async def find_slots(user_id: str, *, session: AsyncClientSession) -> set[int]:
    """Finds which of the user's places are taken."""
    rows = WebhookEndpointDocument.get_pymongo_collection().find(
        {"user_id": user_id, **TAKEN}, {"slot": 1}, session=session
    )
    return {int(row["slot"]) for row in await rows.to_list()}


async def find_owned(
    endpoint_id: str, user_id: str, *, session: AsyncClientSession | None = None
) -> WebhookEndpoint | None:
    """None for one that was deleted, too."""
    row = await WebhookEndpointDocument.get_pymongo_collection().find_one(
        {"_id": endpoint_id, "user_id": user_id, **TAKEN}, session=session
    )
    return None if row is None else _endpoint(row)


async def find_newest(user_id: str, *, before_id: str | None, limit: int) -> list[WebhookEndpoint]:
    condition: dict[str, Any] = {"user_id": user_id, **TAKEN}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    rows = WebhookEndpointDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [_endpoint(row) for row in await rows.to_list()]


async def find_all_owned(user_id: str, *, session: AsyncClientSession) -> list[WebhookEndpoint]:
    """As many as one may have, which are not many."""
    rows = WebhookEndpointDocument.get_pymongo_collection().find({"user_id": user_id, **TAKEN}, session=session)
    return [_endpoint(row) for row in await rows.to_list()]


async def find_listening(user_ids: Sequence[str]) -> list[WebhookEndpoint]:
    """Finds the active ones of these users, as far as these may act; in one round trip, and mostly there are none."""
    return await _find_live({"user_id": {"$in": list(user_ids)}})


async def find_live(endpoint_id: str) -> WebhookEndpoint | None:
    """None where nothing may be sent there: disabled, deleted, or its owner deactivated."""
    found = await _find_live({"_id": endpoint_id})
    return found[0] if found else None


async def _find_live(condition: dict[str, Any]) -> list[WebhookEndpoint]:
    live = {**condition, **TAKEN, "status": EndpointStatus.ACTIVE}
    rows = await WebhookEndpointDocument.get_pymongo_collection().aggregate(
        [{"$match": live}, *_OWNER_MAY_ACT], batchSize=_ONE_BATCH
    )
    return [_endpoint(row) for row in await rows.to_list()]


async def replace(endpoint: WebhookEndpoint, *, session: AsyncClientSession) -> bool:
    """All but what deliveries note meanwhile. False where it has changed since it was read."""
    row = to_row(endpoint)
    del row["last_delivered_at"]
    updated = await WebhookEndpointDocument.get_pymongo_collection().update_one(
        {"_id": row.pop("_id"), "version": Int64(endpoint.version - 1)}, {"$set": row}, session=session
    )
    is_changed: bool = updated.matched_count == 1
    return is_changed


async def note_delivery(endpoint_id: str, at: datetime) -> None:
    await WebhookEndpointDocument.get_pymongo_collection().update_one(
        {"_id": endpoint_id}, {"$max": {"last_delivered_at": at}}
    )


async def find(endpoint_id: str, *, session: AsyncClientSession | None = None) -> WebhookEndpoint | None:
    row = await WebhookEndpointDocument.get_pymongo_collection().find_one({"_id": endpoint_id}, session=session)
    return None if row is None else _endpoint(row)


def _endpoint(row: dict[str, Any]) -> WebhookEndpoint:
    endpoint: WebhookEndpoint = from_row(WebhookEndpoint, row)
    return endpoint

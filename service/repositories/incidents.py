"""Queries on `incidents`, besides those that all records share."""

from datetime import datetime
from typing import Any, NamedTuple

from service.documents import IncidentDocument
from service.domain.incidents import Incident, IncidentKind, IncidentStatus
from service.repositories.records import from_row


class IncidentFilter(NamedTuple):
    """What a list is narrowed to; times are from (inclusive) and to (exclusive)."""

    status: IncidentStatus | None = None
    kind: IncidentKind | None = None
    reference: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


async def find_newest(wanted: IncidentFilter, *, before: tuple[datetime, str] | None, limit: int) -> list[Incident]:
    """Newest first; `before` is time and id of the last one of the page before."""
    equal = {"status": wanted.status, "kind": wanted.kind, "reference": wanted.reference}
    condition: dict[str, Any] = {name: value for name, value in equal.items() if value is not None}
    times = {"$gte": wanted.created_from, "$lt": wanted.created_to}
    time_range = {operator: moment for operator, moment in times.items() if moment is not None}
    if time_range:
        condition["created_at"] = time_range
    if before is not None:
        moment, incident_id = before
        condition["$or"] = [{"created_at": {"$lt": moment}}, {"created_at": moment, "_id": {"$lt": incident_id}}]
    found = IncidentDocument.get_pymongo_collection().find(
        condition, sort=[("created_at", -1), ("_id", -1)], limit=limit
    )
    return [from_row(Incident, row) for row in await found.to_list()]

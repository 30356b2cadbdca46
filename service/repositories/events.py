"""Queries on `events`. The ledger inserts, a worker dispatches, and MongoDB itself removes them after their time."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import EventDocument
from service.domain.dead_letters import FAILURE_FIELDS
from service.domain.events import Event, EventType
from service.repositories.inserts import insert_in_slices
from service.repositories.records import from_row, to_row

# What only the dispatch is concerned with.
_DISPATCH_FIELDS = {"due_at": 0, "claim": 0, "expires_at": 0, **dict.fromkeys(FAILURE_FIELDS, 0)}


class EventFilter(NamedTuple):
    """What the list is narrowed to."""

    wallet_id: str | None = None
    types: tuple[EventType, ...] = ()


async def insert_many(events: Sequence[Event], *, session: AsyncClientSession) -> None:
    """Due at once."""
    await insert_in_slices(EventDocument.get_pymongo_collection(), events, _due_row, session=session)


def _due_row(event: Event) -> dict[str, Any]:
    return to_row(event) | {"due_at": event.created_at}


async def claim(*, now: datetime, lease_s: float, limit: int) -> list[Event]:
    """Takes up to `limit` events that are due, oldest first, as due_rows.claim_due does, for `lease_s` seconds.

    Without an index on the claim, which each event would pay for twice: what was seen is asked for by its id.
    """
    collection = EventDocument.get_pymongo_collection()
    due = {"due_at": {"$lte": now}}
    seen = [row["_id"] for row in await collection.find(due, {"_id": 1}, sort=[("due_at", 1)], limit=limit).to_list()]
    if not seen:
        return []
    named, claimed = {"_id": {"$in": seen}}, uuid4().hex
    await collection.update_many(named | due, {"$set": {"due_at": now + timedelta(seconds=lease_s), "claim": claimed}})
    rows = collection.find(named | {"claim": claimed}, _DISPATCH_FIELDS, batch_size=limit)
    events = [_from_row(row) for row in await rows.to_list()]
    return sorted(events, key=lambda event: (event.wallet_id, event.sequence))


async def mark_dispatched(event_ids: Sequence[str], retention: timedelta) -> None:
    """From here on they have an end."""
    await EventDocument.get_pymongo_collection().update_many(
        {"_id": {"$in": list(event_ids)}},
        [
            {"$set": {"expires_at": {"$add": ["$created_at", retention // timedelta(milliseconds=1)]}}},
            {"$unset": ["due_at", "claim"]},
        ],
    )


async def find_newest(user_id: str, wanted: EventFilter, *, before_id: str | None, limit: int) -> list[Event]:
    """Finds a user's events, newest first; `before_id` is the last one of the page before."""
    condition = {"user_id": user_id} | _narrowed(wanted)
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = EventDocument.get_pymongo_collection().find(condition, _DISPATCH_FIELDS, sort=[("_id", -1)], limit=limit)
    return [_from_row(row) for row in await found.to_list()]


async def find_after(user_id: str, wanted: EventFilter, *, after_sequence: int, limit: int) -> list[Event]:
    """Of one wallet in order, from the one after that number on."""
    condition = {"user_id": user_id, "sequence": {"$gt": after_sequence}} | _narrowed(wanted)
    found = EventDocument.get_pymongo_collection().find(
        condition, _DISPATCH_FIELDS, sort=[("sequence", 1)], limit=limit, hint="wallet_sequence"
    )
    return [_from_row(row) for row in await found.to_list()]


def _narrowed(wanted: EventFilter) -> dict[str, Any]:
    condition: dict[str, Any] = {} if wanted.wallet_id is None else {"wallet_id": wanted.wallet_id}
    return condition | ({"type": {"$in": list(wanted.types)}} if wanted.types else {})


def _from_row(row: Mapping[str, Any]) -> Event:
    event: Event = from_row(Event, dict(row))
    return event

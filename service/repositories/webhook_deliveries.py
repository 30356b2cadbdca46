"""Queries on `webhook_deliveries`, the queue of what is on its way to endpoints and the log of what was."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from bson.int64 import Int64
from pymongo import ReturnDocument

from service.documents import WebhookDeliveryDocument
from service.documents.webhooks import WAITING
from service.domain.dead_letters import FAILURE_FIELDS
from service.domain.server_clock import ServerTime
from service.domain.webhook_deliveries import HELD_BACK, TRIES_KEPT, DeliveryStatus, Try, WebhookDelivery
from service.repositories import due_rows
from service.repositories.inserts import insert_missing
from service.repositories.records import from_row, to_row

# One user's backlog may hide the others' rows: then those behind it are looked for.
_LOOKS = 8
# With what a dead letter would know it by: whatever ends here or begins anew, no letter brings back.
_ANEW = dict.fromkeys(("claim", *FAILURE_FIELDS), "")
_OVER = {"due_at": "", **_ANEW}


class Shares(NamedTuple):
    """How many may be in hand at once, of one endpoint and of one user.

    `of_seconds`: when so many are, nobody gets a second one; what is above is for those who have none.
    """

    of_endpoint: int
    of_user: int
    of_seconds: int


class InHand(NamedTuple):
    """How many are in hand now, by endpoint and by user."""

    by_endpoint: Counter[str]
    by_user: Counter[str]


class DeliveryFilter(NamedTuple):
    status: DeliveryStatus | None = None
    event_type: str | None = None


async def ensure_many(deliveries: Sequence[WebhookDelivery]) -> int:
    """Inserts those that are missing, and tells how many that were."""
    return sum(await insert_missing(WebhookDeliveryDocument, [_row(delivery) for delivery in deliveries]))


async def claim(*, now: datetime, lease_s: float, limit: int, shares: Shares, in_hand: InHand) -> list[WebhookDelivery]:
    """Up to `limit` that are due, taken for `lease_s` seconds; of each endpoint and user no more than their share.

    Whoever has nothing in hand comes first, with one. Those of endpoints and users whose share is in hand are passed
    over, so that others behind them get their turn.
    """
    wanted = await _firsts(now, limit, shares, in_hand)
    room = min(limit, shares.of_seconds - in_hand.by_user.total()) - len(wanted)
    if room > 0:
        seen = await _due(now, limit, shares, in_hand, _full(in_hand.by_user, shares.of_user))
        wanted = _within_shares(wanted, seen, room, shares, in_hand)
    if not wanted:
        return []
    mark = uuid4().hex
    collection = WebhookDeliveryDocument.get_pymongo_collection()
    await collection.update_many(
        {"_id": {"$in": [row["_id"] for row in wanted]}, "due_at": {"$lte": now}},
        {"$set": {"due_at": now + timedelta(seconds=lease_s), "claim": mark}, "$inc": {"attempts": 1}},
    )
    return [_delivery(row) for row in await collection.find({"claim": mark}).to_list()]


async def _firsts(now: datetime, limit: int, shares: Shares, in_hand: InHand) -> list[Mapping[str, Any]]:
    """Returns the oldest of each user who has nothing in hand."""
    firsts: dict[str, Mapping[str, Any]] = {}
    for _ in range(_LOOKS):
        seen = await _due(now, limit, shares, in_hand, [*in_hand.by_user, *firsts])
        for row in seen:
            firsts.setdefault(row["user_id"], row)
        if len(firsts) >= limit or len(seen) < limit:
            break
    return list(firsts.values())[:limit]


async def _due(
    now: datetime, limit: int, shares: Shares, in_hand: InHand, but_of: Sequence[str]
) -> list[dict[str, Any]]:
    """Oldest first, without those of the users named."""
    due: dict[str, Any] = {
        "due_at": {"$lte": now},
        "endpoint_id": {"$nin": _full(in_hand.by_endpoint, shares.of_endpoint)},
        "user_id": {"$nin": but_of},
    }
    names = {"endpoint_id": 1, "user_id": 1}
    rows = WebhookDeliveryDocument.get_pymongo_collection().find(due, names, sort=[("due_at", 1)], limit=limit)
    return await rows.to_list()


def _full(in_hand: Counter[str], share: int) -> list[str]:
    return [one for one, count in in_hand.items() if count >= share]


def _within_shares(
    wanted: Sequence[Mapping[str, Any]],
    seen: Sequence[Mapping[str, Any]],
    room: int,
    shares: Shares,
    in_hand: InHand,
) -> list[Mapping[str, Any]]:
    """Adds to what is wanted already as much of what was seen as there is room for."""
    by_endpoint = in_hand.by_endpoint + Counter(row["endpoint_id"] for row in wanted)
    by_user = in_hand.by_user + Counter(row["user_id"] for row in wanted)
    taken = {row["_id"] for row in wanted}
    more: list[Mapping[str, Any]] = []
    for row in seen:
        endpoint_id, user_id = row["endpoint_id"], row["user_id"]
        is_free = by_endpoint[endpoint_id] < shares.of_endpoint and by_user[user_id] < shares.of_user
        if is_free and row["_id"] not in taken and len(more) < room:
            by_endpoint[endpoint_id] += 1
            by_user[user_id] += 1
            more.append(row)
    return [*wanted, *more]


async def bring_forward(time: ServerTime, *, lease_s: float) -> int:
    """As due_rows.bring_forward does; but what waits since a try by the right clock keeps its schedule."""
    # A worker's, or new, or queued again: none of these waits for a chosen time.
    waits_for_no_try = [{"claim": {"$exists": True}}, {"tries": []}, {"queued_at": {"$gt": time.now}}]
    was_tried_ahead = {"$expr": {"$gt": [{"$ifNull": [{"$last": "$tries.at"}, time.highest_at]}, time.now]}}
    collection = WebhookDeliveryDocument.get_pymongo_collection()
    among = {"$or": [*waits_for_no_try, was_tried_ahead]}
    return await due_rows.bring_forward(collection, time, lease_s=lease_s, among=among)


async def has_waiting(endpoint_id: str, event_type: str) -> bool:
    row = await WebhookDeliveryDocument.get_pymongo_collection().find_one(
        {"endpoint_id": endpoint_id, "event_type": event_type, **WAITING}, {"_id": 1}, hint="waiting"
    )
    return row is not None


async def note_delivered(delivery: WebhookDelivery, attempt: Try) -> None:
    """Whoever says it, and whatever it was taken for: one that has arrived has arrived, and is not sent again."""
    await _end(
        {"_id": delivery.id},
        {"status": DeliveryStatus.DELIVERED, "delivered_at": attempt.at},
        attempt,
    )


async def note_failed(delivery: WebhookDelivery, attempt: Try) -> bool:
    """False where it is somebody else's by now."""
    return await _end({"_id": delivery.id, "claim": delivery.claim}, {"status": DeliveryStatus.FAILED}, attempt)


async def note_retry(delivery: WebhookDelivery, attempt: Try, due_at: datetime) -> bool:
    """False where it is somebody else's by now."""
    return await _change(
        {"_id": delivery.id, "claim": delivery.claim},
        {"$set": {"due_at": due_at}, "$unset": {"claim": ""}, "$push": _pushed(attempt)},
    )


async def note_held_back(delivery: WebhookDelivery, now: datetime, due_at: datetime) -> None:
    """Takes its attempt back. Notes that among its tries, once in a row, with the time of the last time.

    `bring_forward` reads from that time whether the clock was ahead when `due_at` was set.
    """
    note = Try(at=now, duration_ms=0, code=None, error=HELD_BACK, response=None)
    tries = [*delivery.tries]
    if tries and tries[-1]["error"] == HELD_BACK:
        tries.pop()
    changes = {
        "$set": {"due_at": due_at, "tries": [*tries, note._asdict()][-TRIES_KEPT:]},
        "$unset": {"claim": ""},
        "$inc": {"attempts": Int64(-1)},
    }
    await _change({"_id": delivery.id, "claim": delivery.claim}, changes)


async def cancel(delivery: WebhookDelivery) -> None:
    await _change(
        {"_id": delivery.id, "claim": delivery.claim},
        {"$set": {"status": DeliveryStatus.CANCELED}, "$unset": _OVER},
    )


async def cancel_all(endpoint_id: str) -> None:
    """Cancels what waits for the endpoint; what is in hand is seen to by whose hand it is."""
    await WebhookDeliveryDocument.get_pymongo_collection().update_many(
        {"endpoint_id": endpoint_id, "status": DeliveryStatus.PENDING, "claim": None, **WAITING},
        {"$set": {"status": DeliveryStatus.CANCELED}, "$unset": _OVER},
        # Where little waits, the planner would as soon read all that is due.
        hint="waiting",
    )


async def queue_again(delivery: WebhookDelivery, now: datetime, expires_at: datetime) -> WebhookDelivery | None:
    """From the beginning, under the same id and with the same body. None where it is gone."""
    row = await WebhookDeliveryDocument.get_pymongo_collection().find_one_and_update(
        {"_id": delivery.id},
        {
            "$set": {
                "status": DeliveryStatus.PENDING,
                "attempts": Int64(0),
                "queued_at": now,
                "due_at": now,
                "delivered_at": None,
            },
            "$max": {"expires_at": expires_at},
            "$unset": _ANEW,
        },
        return_document=ReturnDocument.AFTER,
    )
    return None if row is None else _delivery(row)


async def find(delivery_id: str, endpoint_id: str) -> WebhookDelivery | None:
    row = await WebhookDeliveryDocument.get_pymongo_collection().find_one(
        {"_id": delivery_id, "endpoint_id": endpoint_id}
    )
    return None if row is None else _delivery(row)


async def find_newest(
    endpoint_id: str, wanted: DeliveryFilter, *, before_id: str | None, limit: int
) -> list[WebhookDelivery]:
    condition: dict[str, Any] = {"endpoint_id": endpoint_id}
    condition |= {name: value for name, value in wanted._asdict().items() if value is not None}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    rows = WebhookDeliveryDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [_delivery(row) for row in await rows.to_list()]


async def _end(condition: Mapping[str, Any], changes: Mapping[str, Any], attempt: Try) -> bool:
    return await _change(condition, {"$set": changes, "$unset": _OVER, "$push": _pushed(attempt)})


def _pushed(attempt: Try) -> dict[str, Any]:
    return {"tries": {"$each": [attempt._asdict()], "$slice": -TRIES_KEPT}}


async def _change(condition: Mapping[str, Any], update: Mapping[str, Any]) -> bool:
    updated = await WebhookDeliveryDocument.get_pymongo_collection().update_one(condition, update)
    is_changed: bool = updated.matched_count == 1
    return is_changed


def _row(delivery: WebhookDelivery) -> dict[str, Any]:
    """Leaves out what is not set: the indexes of what is due and claimed hold nothing else."""
    row = to_row(delivery)
    return {name: value for name, value in row.items() if value is not None or name not in _OVER}


def _delivery(row: dict[str, Any]) -> WebhookDelivery:
    own = {name: value for name, value in row.items() if name not in FAILURE_FIELDS}
    delivery: WebhookDelivery = from_row(WebhookDelivery, own)
    return delivery

"""Queries on `breaks`."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from service.documents import BreakDocument
from service.domain.breaks import Break, BreakKind, BreakState, Finding, is_as_decided, open_key_of
from service.repositories.records import from_row, to_row

_ONE_BATCH = 4096


class BreakFilter(NamedTuple):
    """What the list is narrowed to."""

    state: BreakState | None = None
    kind: BreakKind | None = None
    wallet_id: str | None = None
    operation_id: str | None = None
    day: str | None = None


def _from_row(row: dict[str, Any]) -> Break:
    row.pop("open_key", None)
    one: Break = from_row(Break, row)
    return one


async def insert_once(one: Break) -> bool:
    """False where there is one of its kind and subject that is not resolved."""
    row = to_row(one) | {"open_key": open_key_of(one.kind, one.subject)}
    try:
        await BreakDocument.get_pymongo_collection().insert_one(row)
    except DuplicateKeyError:
        return False
    return True


async def find_unresolved(kind: BreakKind, subject: str) -> Break | None:
    row = await BreakDocument.get_pymongo_collection().find_one({"open_key": open_key_of(kind, subject)})
    return None if row is None else _from_row(row)


async def see_again(before: Break, finding: Finding, now: datetime) -> Break | None:
    """As it shows now, where nobody has said anything of it meanwhile; else None.

    What was explained keeps the facts that the explanation is about. Where it shows others, it is open again.
    """
    changed: dict[str, Any] = {"$max": {"last_seen": now}, "$inc": {"times_seen": 1}}
    is_explained = before.state is BreakState.EXPLAINED
    if not (is_explained and is_as_decided(before, finding)):
        changed["$set"] = {"expected": finding.expected, "found": finding.found}
        if is_explained:
            changed["$set"]["state"] = BreakState.OPEN
            changed["$inc"]["version"] = 1
    row = await BreakDocument.get_pymongo_collection().find_one_and_update(
        {"_id": before.id, "version": before.version, "open_key": open_key_of(finding.kind, finding.subject)},
        changed,
        return_document=ReturnDocument.AFTER,
    )
    return None if row is None else _from_row(row)


async def find_latest(kind: BreakKind, subject: str) -> Break | None:
    """Whatever has become of it."""
    row = await BreakDocument.get_pymongo_collection().find_one({"subject": subject, "kind": kind}, sort=[("_id", -1)])
    return None if row is None else _from_row(row)


async def see_resolved_again(resolved: Break, now: datetime) -> None:
    """It shows still, as whoever resolved it knew."""
    await BreakDocument.get_pymongo_collection().update_one(
        {"_id": resolved.id}, {"$max": {"last_seen": now}, "$inc": {"times_seen": 1}}
    )


async def find(break_id: str, *, session: AsyncClientSession | None = None) -> Break | None:
    row = await BreakDocument.get_pymongo_collection().find_one({"_id": break_id}, session=session)
    return None if row is None else _from_row(row)


async def replace_guarded(before: Break, after: Break, *, session: AsyncClientSession) -> bool:
    """Compare-and-set on `version`; a look at the books that sees it once more is no other version."""
    words = to_row(after._replace(version=before.version + 1))
    changed: dict[str, Any] = {"$set": {name: words[name] for name in ("state", "explained", "resolved", "version")}}
    if after.state is BreakState.RESOLVED:
        changed["$unset"] = {"open_key": ""}
    done = await BreakDocument.get_pymongo_collection().update_one(
        {"_id": before.id, "version": before.version}, changed, session=session
    )
    return done.matched_count == 1


async def find_newest(wanted: BreakFilter, *, before_id: str | None, limit: int) -> list[Break]:
    """Newest first; `before_id` is the last one of the page before."""
    condition: dict[str, Any] = {name: value for name, value in wanted._asdict().items() if value is not None}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = BreakDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [_from_row(row) for row in await found.to_list()]


async def find_unresolved_of_wallets(
    kinds: Collection[BreakKind], wallet_ids: Sequence[str], *, session: AsyncClientSession | None = None
) -> list[Break]:
    return await _find_unresolved({"kind": {"$in": sorted(kinds)}, "wallet_id": {"$in": list(wallet_ids)}}, session)


async def find_unresolved_of_day(kinds: Collection[BreakKind], day: str, *, seen_before: datetime) -> list[Break]:
    """Finds those of that day's statement that were not seen at that time or since."""
    return await _find_unresolved({"kind": {"$in": sorted(kinds)}, "day": day, "last_seen": {"$lt": seen_before}}, None)


async def _find_unresolved(condition: dict[str, Any], session: AsyncClientSession | None) -> list[Break]:
    found = BreakDocument.get_pymongo_collection().find(
        {"open_key": {"$exists": True}, **condition}, session=session, batch_size=_ONE_BATCH
    )
    return [_from_row(row) for row in await found.to_list()]


async def find_days_with_open() -> list[str]:
    """Days of statements that have some of which nobody has said anything, the first one first."""
    days = await BreakDocument.get_pymongo_collection().distinct(
        "day", {"state": BreakState.OPEN, "day": {"$ne": None}}
    )
    return sorted(days)


async def count_unresolved() -> dict[BreakKind, int]:
    """By kind; those that have none are left out."""
    found = await BreakDocument.get_pymongo_collection().aggregate(
        [{"$match": {"open_key": {"$exists": True}}}, {"$group": {"_id": "$kind", "breaks": {"$sum": 1}}}]
    )
    return {BreakKind(row["_id"]): row["breaks"] async for row in found}

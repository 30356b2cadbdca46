"""Queries on `sessions`. Every change is one compare-and-set: of two who use one token, one finds no match."""

from datetime import datetime
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import SessionDocument
from service.domain.sessions import Ending, Session
from service.repositories.records import from_row, to_row

# Of half a minute, or at the start of a quarter of an hour: far more than end in that time.
_ONE_BATCH = 10_000
# Marks the two reads that each process makes once a second (services/ended_tokens.py) in the server's log and profile.
ENDED_TOKENS_LOOK = "ended_tokens.look"


async def insert(login: Session, *, session: AsyncClientSession) -> None:
    await SessionDocument.get_pymongo_collection().insert_one(to_row(login), session=session)


async def find_by_handle(handle_hash: str) -> Session | None:
    return _session(await SessionDocument.get_pymongo_collection().find_one({"handle_hash": handle_hash}))


async def find_live(user_id: str, now: datetime, *, before_id: str | None, limit: int) -> list[Session]:
    """Newest first; `before_id` is the last one of the page before."""
    condition: dict[str, Any] = {"user_id": user_id, "revoked_at": None, "expires_at": {"$gt": now}}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = SessionDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(Session, row) for row in await found.to_list()]


async def find_revoked(since: datetime) -> dict[str, datetime]:
    """Finds when each session ended that did at `since` or later, oldest first."""
    found = SessionDocument.get_pymongo_collection().find(
        {"revoked_at": {"$gte": since}},
        {"revoked_at": 1},
        sort=[("revoked_at", 1)],
        batch_size=_ONE_BATCH,
        comment=ENDED_TOKENS_LOOK,
    )
    return {row["_id"]: row["revoked_at"] for row in await found.to_list()}


async def rotate(before: Session, after: Session) -> bool:
    """False where its token was used, or the session ended, since `before` was read."""
    changed = ("secret_hash", "previous_hash", "nonce", "last_used_at", "expires_at")
    row = to_row(after)
    unchanged = {"_id": before.id, "secret_hash": before.secret_hash, "revoked_at": None}
    changes = {"$set": {name: row[name] for name in changed}}
    done = await SessionDocument.get_pymongo_collection().update_one(unchanged, changes)
    return done.matched_count == 1


async def revoke(session_id: str, user_id: str, ending: Ending, now: datetime, *, session: AsyncClientSession) -> bool:
    """False where the user has no such session, or it is over."""
    live = {"_id": session_id, "user_id": user_id, "revoked_at": None, "expires_at": {"$gt": now}}
    done = await SessionDocument.get_pymongo_collection().update_one(live, _ended(ending, now), session=session)
    return done.matched_count == 1


async def revoke_all(user_id: str, ending: Ending, now: datetime, *, session: AsyncClientSession) -> int:
    """Revokes all of them, and returns how many that were."""
    live = {"user_id": user_id, "revoked_at": None}
    done = await SessionDocument.get_pymongo_collection().update_many(live, _ended(ending, now), session=session)
    return done.modified_count


async def revoke_others(
    user_id: str, kept_id: str, ending: Ending, now: datetime, *, session: AsyncClientSession
) -> list[str]:
    """All but one. Returns the ids of those that this ended."""
    others = {"user_id": user_id, "revoked_at": None, "expires_at": {"$gt": now}, "_id": {"$ne": kept_id}}
    collection = SessionDocument.get_pymongo_collection()
    ids = [row["_id"] for row in await collection.find(others, {"_id": 1}, session=session).to_list()]
    await collection.update_many({"_id": {"$in": ids}}, _ended(ending, now), session=session)
    return ids


def _ended(ending: Ending, now: datetime) -> dict[str, Any]:
    return {"$set": {"revoked_at": now, "revoked_for": ending, "expires_at": now}}


def _session(row: dict[str, Any] | None) -> Session | None:
    found: Session | None = None if row is None else from_row(Session, row)
    return found

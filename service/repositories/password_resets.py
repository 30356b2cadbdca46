"""Queries on `password_resets`. Every change is one compare-and-set."""

from datetime import datetime

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import PasswordReset
from service.domain.password_resets import MAILS_WINDOW, ResetToken


async def ensure(user_id: str, now: datetime) -> None:
    """There is a document afterwards."""
    await PasswordReset.get_pymongo_collection().update_one(
        {"_id": user_id}, {"$setOnInsert": {"tokens": [], "expires_at": now + MAILS_WINDOW}}, upsert=True
    )


async def add(user_id: str, token: ResetToken, mails_limit: int, *, session: AsyncClientSession) -> bool:
    """False where the token is there already, or as many went out within the window as may."""
    recent = {
        "$filter": {"input": "$tokens", "cond": {"$gt": ["$$this.sent_at", token.sent_at - MAILS_WINDOW]}},
    }
    done = await PasswordReset.get_pymongo_collection().update_one(
        {"_id": user_id, "tokens.id": {"$ne": token.id}, "$expr": {"$lt": [{"$size": recent}, mails_limit]}},
        {
            # Those that fall out are older than the window: it has room for one more.
            "$push": {"tokens": {"$each": [token._asdict()], "$slice": -mails_limit}},
            "$set": {"expires_at": token.sent_at + MAILS_WINDOW},
        },
        session=session,
    )
    return done.matched_count == 1


async def has(user_id: str, request_id: str) -> bool:
    """Tells whether the request has its token."""
    found = await PasswordReset.get_pymongo_collection().find_one({"_id": user_id, "tokens.id": request_id}, {"_id": 1})
    return found is not None


async def find_holder(token_hash: str, now: datetime) -> str | None:
    """Finds whose token it is, as long as it holds."""
    found = await PasswordReset.get_pymongo_collection().find_one(_holding(token_hash, now), {"_id": 1})
    return None if found is None else str(found["_id"])


async def use_up(user_id: str, token_hash: str, now: datetime, *, session: AsyncClientSession) -> bool:
    """It and all others of the user's; their mails still count. False where it does not hold, or no more."""
    done = await PasswordReset.get_pymongo_collection().update_one(
        {"_id": user_id, **_holding(token_hash, now)}, {"$set": {"tokens.$[].expires_at": now}}, session=session
    )
    return done.matched_count == 1


async def expire_all(user_id: str, now: datetime, *, session: AsyncClientSession) -> None:
    await PasswordReset.get_pymongo_collection().update_one(
        {"_id": user_id}, {"$set": {"tokens.$[].expires_at": now}}, session=session
    )


def _holding(token_hash: str, now: datetime) -> dict[str, object]:
    return {"tokens": {"$elemMatch": {"token_hash": token_hash, "expires_at": {"$gt": now}}}}

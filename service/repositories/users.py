"""Queries on `users`."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import User

# Above any batch limit: a second round trip for the rest would hold the snapshot open for longer.
_ONE_BATCH = 4096


class Standing(NamedTuple):
    """What somebody may do now, and by tokens of which version."""

    roles: tuple[str, ...]
    is_active: bool
    token_version: int


async def insert(user: User, *, session: AsyncClientSession) -> None:
    """Raises DuplicateKeyError where the e-mail is taken."""
    await user.insert(session=session)


async def insert_many(users: Sequence[User], *, session: AsyncClientSession) -> None:
    await User.insert_many(users, session=session)


async def find_ids(emails: Sequence[str], *, session: AsyncClientSession) -> dict[str, str]:
    """The ids of those who exist, by e-mail."""
    found = User.get_pymongo_collection().find(
        {"email": {"$in": list(emails)}}, {"email": 1}, session=session, batch_size=_ONE_BATCH
    )
    return {row["email"]: row["_id"] for row in await found.to_list()}


async def find_active_ids(emails: Sequence[str]) -> dict[str, str]:
    """The ids of those who exist and may act, by e-mail."""
    found = User.get_pymongo_collection().find({"email": {"$in": list(emails)}, "is_active": True}, {"email": 1})
    return {row["email"]: row["_id"] for row in await found.to_list()}


async def find_by_email(email: str) -> User | None:
    return await User.find_one(User.email == email)


async def find(user_id: str) -> User | None:
    return await User.get(user_id)


async def find_standing(user_id: str, *, session: AsyncClientSession | None) -> Standing | None:
    fields = {"_id": 0, "roles": 1, "is_active": 1, "token_version": 1}
    row = await User.get_pymongo_collection().find_one({"_id": user_id}, fields, session=session)
    return None if row is None else Standing(tuple(row["roles"]), row["is_active"], row["token_version"])


async def set_password(
    user_id: str, token_version: int, password_hash: str, now: datetime, *, session: AsyncClientSession
) -> bool:
    """Tokens that there are hold no more. False where the version is another one, or the user may not act."""
    return await _raise_token_version(user_id, token_version, {"password_hash": password_hash}, now, session=session)


async def raise_token_version(user_id: str, token_version: int, now: datetime, *, session: AsyncClientSession) -> bool:
    """As set_password, without a password."""
    return await _raise_token_version(user_id, token_version, {}, now, session=session)


async def _raise_token_version(
    user_id: str, token_version: int, changes: dict[str, str], now: datetime, *, session: AsyncClientSession
) -> bool:
    done = await User.get_pymongo_collection().update_one(
        {"_id": user_id, "token_version": token_version, "is_active": True},
        {"$set": {**changes, "updated_at": now}, "$inc": {"token_version": 1}},
        session=session,
    )
    return done.matched_count == 1


async def find_active(user_ids: Sequence[str], *, session: AsyncClientSession) -> dict[str, int]:
    """Which of these users may act, and by tokens of which version."""
    found = User.get_pymongo_collection().find(
        {"_id": {"$in": list(user_ids)}, "is_active": True},
        {"token_version": 1},
        session=session,
        batch_size=_ONE_BATCH,
    )
    return {row["_id"]: row["token_version"] for row in await found.to_list()}

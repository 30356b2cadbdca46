"""Queries on `users`."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import User
from service.domain.identifiers import Prefix, first_id_at
from service.domain.lockdowns import StandingLockdown
from service.domain.permissions import Role
from service.repositories.sessions import ENDED_TOKENS_LOOK

# Above any batch limit: a second round trip for the rest would hold the snapshot open for longer.
_ONE_BATCH = 4096


# From the moment that a user is made of to the making of their id; what is in between takes milliseconds.
_ID_DELAY = timedelta(minutes=1)
# Of a Standing, for those who look a user up beside something else.
STANDING_FIELDS = {"_id": 0, "roles": 1, "is_active": 1, "token_version": 1}


class UserFilter(NamedTuple):
    """What the list is narrowed to; times are from (inclusive) and to (exclusive)."""

    email: str | None = None
    role: Role | None = None
    is_active: bool | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


class Standing(NamedTuple):
    """What somebody may do now, and by tokens of which version."""

    roles: tuple[str, ...]
    is_active: bool
    token_version: int


class KnownUsers(NamedTuple):
    """Versions of the tokens of those who may act, the events that deactivated the others, and lockdowns."""

    active: dict[str, int]
    deactivations: dict[str, str]
    lockdowns: dict[str, StandingLockdown]


async def insert(user: User, *, session: AsyncClientSession) -> None:
    """Raises DuplicateKeyError where the e-mail is taken."""
    await user.insert(session=session)


async def insert_many(users: Sequence[User], *, session: AsyncClientSession) -> None:
    await User.insert_many(users, session=session)


async def find_ids(emails: Sequence[str], *, session: AsyncClientSession) -> dict[str, str]:
    """Finds the ids of those who exist, by e-mail."""
    found = User.get_pymongo_collection().find(
        {"email": {"$in": list(emails)}}, {"email": 1}, session=session, batch_size=_ONE_BATCH
    )
    return {row["email"]: row["_id"] for row in await found.to_list()}


async def find_active_ids(emails: Sequence[str]) -> dict[str, str]:
    """Finds the ids of those who may act and have proven that the address is theirs, by e-mail."""
    verified = {"is_active": True, "email_verified_at": {"$type": "date"}}
    found = User.get_pymongo_collection().find({"email": {"$in": list(emails)}, **verified}, {"email": 1})
    return {row["email"]: row["_id"] for row in await found.to_list()}


async def mark_verified(times: Mapping[str, datetime]) -> int:
    """Of users from before addresses were proven: those named are, the others are not. How many are."""
    users, old = User.get_pymongo_collection(), {"email_verified_at": {"$exists": False}}
    marked = 0
    for user_id, at in times.items():
        done = await users.update_one({"_id": user_id, **old}, {"$set": {"email_verified_at": at}})
        marked += done.modified_count
    await users.update_many(old, {"$set": {"email_verified_at": None}})
    return marked


async def verify_email(user_id: str, now: datetime) -> None:
    """By who runs the service. Whoever has proven it keeps their time."""
    await User.get_pymongo_collection().update_one(
        {"_id": user_id, "email_verified_at": None}, {"$set": {"email_verified_at": now}}
    )


async def find_by_email(email: str) -> User | None:
    return await User.find_one(User.email == email)


async def find_by_email_in(email: str, *, session: AsyncClientSession) -> User | None:
    return await User.find_one(User.email == email, session=session)


async def count_admins(*, session: AsyncClientSession) -> int:
    """Counts those who may act."""
    return await User.get_pymongo_collection().count_documents(
        {"roles": Role.ADMIN, "is_active": True}, session=session
    )


async def find(user_id: str) -> User | None:
    return await User.get(user_id)


async def find_standing(user_id: str, *, session: AsyncClientSession) -> Standing | None:
    row = await User.get_pymongo_collection().find_one({"_id": user_id}, STANDING_FIELDS, session=session)
    return None if row is None else standing_of(row)


def standing_of(row: Mapping[str, Any]) -> Standing:
    return Standing(tuple(row["roles"]), row["is_active"], row["token_version"])


async def set_password(
    user_id: str,
    token_version: int,
    password_hash: str,
    now: datetime,
    *,
    proves_email: bool,
    session: AsyncClientSession,
) -> bool:
    """Tokens that there are hold no more. False where the version is another one, or the user may not act."""
    changes: dict[str, Any] = {"password_hash": password_hash, "must_reset_password": False}
    if proves_email:
        changes["email_verified_at"] = now
    return await _raise_token_version(user_id, token_version, changes, now, session=session)


async def raise_token_version(user_id: str, token_version: int, now: datetime, *, session: AsyncClientSession) -> bool:
    """As set_password, without a password."""
    return await _raise_token_version(user_id, token_version, {}, now, session=session)


async def _raise_token_version(
    user_id: str, token_version: int, changes: dict[str, Any], now: datetime, *, session: AsyncClientSession
) -> bool:
    done = await User.get_pymongo_collection().update_one(
        {"_id": user_id, "token_version": token_version, "is_active": True},
        {"$set": {**changes, "updated_at": now, "tokens_ended_at": now}, "$inc": {"token_version": 1}},
        session=session,
    )
    return done.matched_count == 1


async def find_ended(since: datetime) -> dict[str, tuple[int, datetime]]:
    """By user: the version that their tokens need, raised at `since` or later, and when; oldest first."""
    found = User.get_pymongo_collection().find(
        {"tokens_ended_at": {"$gte": since}},
        {"token_version": 1, "tokens_ended_at": 1},
        sort=[("tokens_ended_at", 1)],
        batch_size=_ONE_BATCH,
        comment=ENDED_TOKENS_LOOK,
    )
    return {row["_id"]: (row["token_version"], row["tokens_ended_at"]) for row in await found.to_list()}


async def find_known(user_ids: Sequence[str], *, session: AsyncClientSession) -> KnownUsers:
    found = User.get_pymongo_collection().find(
        {"_id": {"$in": list(user_ids)}},
        {"token_version": 1, "is_active": 1, "deactivation_event_id": 1, "lockdown": 1},
        session=session,
        batch_size=_ONE_BATCH,
    )
    known = KnownUsers({}, {}, {})
    for row in await found.to_list():
        if row["is_active"]:
            known.active[row["_id"]] = row["token_version"]
        elif row.get("deactivation_event_id") is not None:
            known.deactivations[row["_id"]] = row["deactivation_event_id"]
        lockdown = row.get("lockdown")
        if lockdown is not None:
            is_approved = lockdown["lift_approved_at"] is not None
            known.lockdowns[row["_id"]] = StandingLockdown(lockdown["event_id"], is_approved)
    return known


async def find_in(user_id: str, *, session: AsyncClientSession) -> User | None:
    return await User.get(user_id, session=session)


async def find_newest(wanted: UserFilter, *, before_id: str | None, limit: int) -> list[User]:
    """Newest first; `before_id` is the last one of the page before."""
    equal = {"email": wanted.email, "roles": wanted.role, "is_active": wanted.is_active}
    condition: dict[str, Any] = {name: value for name, value in equal.items() if value is not None}
    ids: dict[str, str] = {}
    times: dict[str, datetime] = {}
    # Ids sort by time, so that the list's own index goes to where the range begins; the times themselves decide.
    if wanted.created_from is not None:
        ids["$gte"], times["$gte"] = first_id_at(Prefix.USER, wanted.created_from), wanted.created_from
    if wanted.created_to is not None:
        ids["$lt"], times["$lt"] = first_id_at(Prefix.USER, wanted.created_to + _ID_DELAY), wanted.created_to
    if before_id is not None:
        ids["$lt"] = min(before_id, ids.get("$lt", before_id))
    if ids:
        condition["_id"] = ids
    if times:
        condition["created_at"] = times
    return await User.find(condition).sort("-_id").limit(limit).to_list()


async def find_origins(user_ids: Collection[str], *, session: AsyncClientSession | None) -> frozenset[str]:
    """Finds these users, whoever gave them a role, whoever gave those one, and so on. One query for each step."""
    found, new = frozenset(user_ids), frozenset(user_ids)
    while new:
        rows = User.get_pymongo_collection().find(
            {"_id": {"$in": list(new)}}, {"role_givers": 1}, session=session, batch_size=_ONE_BATCH
        )
        new = frozenset(giver for row in await rows.to_list() for giver in row.get("role_givers", ())) - found
        found |= new
    return found


async def find_relatives(user_id: str) -> frozenset[str]:
    """Finds everybody who goes back to somebody to whom this user goes back, this user among them."""
    new = await find_origins((user_id,), session=None)
    found = new
    while new:
        rows = User.get_pymongo_collection().find(
            {"role_givers": {"$in": list(new)}}, {"_id": 1}, batch_size=_ONE_BATCH
        )
        new = frozenset(row["_id"] for row in await rows.to_list()) - found
        found |= new
    return found


async def count_deed(admin_id: str, token_version: int, *, session: AsyncClientSession) -> bool:
    """Writes the admin's document, so that nobody can change it in between; False where they are none any more."""
    counted = await User.get_pymongo_collection().update_one(
        {"_id": admin_id, "is_active": True, "roles": Role.ADMIN, "token_version": token_version},
        {"$inc": {"admin_deeds": 1}},
        session=session,
    )
    return counted.matched_count == 1


async def change(user_id: str, changes: Mapping[str, Any], *, ends_tokens: bool, session: AsyncClientSession) -> User:
    """Returns the user afterwards, who was found in the same transaction. `changes` have an `updated_at`."""
    ended = {"tokens_ended_at": changes["updated_at"]} if ends_tokens else {}
    update = {"$set": {**changes, **ended}, "$inc": {"token_version": int(ends_tokens)}}
    await User.get_pymongo_collection().update_one({"_id": user_id}, update, session=session)
    changed = await User.get(user_id, session=session)
    assert changed is not None, "a transaction sees what it found"  # noqa: S101 a snapshot is one moment
    return changed

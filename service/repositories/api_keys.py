"""Queries on `api_keys`."""

from datetime import datetime
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import ApiKeyDocument, User
from service.domain.api_keys import LAST_USE_PRECISION, ApiKey
from service.domain.permissions import Permission
from service.repositories.records import from_row, to_row
from service.repositories.users import STANDING_FIELDS, Standing, standing_of


async def insert(key: ApiKey, *, session: AsyncClientSession) -> None:
    """Raises DuplicateKeyError where another key has that prefix."""
    await ApiKeyDocument.get_pymongo_collection().insert_one(to_row(key), session=session)


async def find(key_id: str, *, session: AsyncClientSession | None) -> ApiKey | None:
    return _key(await ApiKeyDocument.get_pymongo_collection().find_one({"_id": key_id}, session=session))


async def find_with_user(prefix: str) -> tuple[ApiKey, Standing | None] | None:
    """Finds the key and how its user stands, in one round trip: whoever comes with a key waits for it each time."""
    found = await ApiKeyDocument.get_pymongo_collection().aggregate(
        [
            {"$match": {"prefix": prefix}},
            {
                "$lookup": {
                    "from": User.Settings.name,
                    "localField": "user_id",
                    "foreignField": "_id",
                    "pipeline": [{"$project": STANDING_FIELDS}],
                    "as": "users",
                }
            },
        ]
    )
    for row in await found.to_list():
        users = row.pop("users")
        key: ApiKey = from_row(ApiKey, row)
        return key._replace(permissions=_permissions(row)), standing_of(users[0]) if users else None
    return None


async def find_newest(user_id: str | None, *, before_id: str | None, limit: int) -> list[ApiKey]:
    """Of one user, or of all where none is named; newest first."""
    condition: dict[str, Any] = {} if user_id is None else {"user_id": user_id}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = ApiKeyDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(ApiKey, row)._replace(permissions=_permissions(row)) for row in await found.to_list()]


async def find_unrevoked(user_id: str, *, session: AsyncClientSession) -> list[ApiKey]:
    """Finds all keys of a user that nobody revoked, also those that have expired."""
    found = ApiKeyDocument.get_pymongo_collection().find({"user_id": user_id, "revoked_at": None}, session=session)
    return [from_row(ApiKey, row)._replace(permissions=_permissions(row)) for row in await found.to_list()]


async def find_made_by(admin_id: str, *, session: AsyncClientSession) -> list[ApiKey]:
    """Finds all unrevoked keys that an admin asked for, confirmed or gave a secret. There are few keys."""
    made = {"$or": [{"created_by": admin_id}, {"makers": admin_id}], "revoked_at": None}
    found = ApiKeyDocument.get_pymongo_collection().find(made, session=session)
    return [from_row(ApiKey, row)._replace(permissions=_permissions(row)) for row in await found.to_list()]


async def replace(key: ApiKey, *, session: AsyncClientSession) -> None:
    """All but its last use, which is noted meanwhile. It was read in the same transaction."""
    row = to_row(key)
    del row["last_used_at"]
    updated = await ApiKeyDocument.get_pymongo_collection().update_one(
        {"_id": row.pop("_id"), "version": key.version - 1}, {"$set": row}, session=session
    )
    assert updated.matched_count == 1, "a transaction sees what it changes"  # noqa: S101 a snapshot is one moment


async def note_use(key_id: str, now: datetime) -> None:
    """Once in a while, however many do it at once."""
    lately = {"last_used_at": {"$not": {"$gt": now - LAST_USE_PRECISION}}}
    await ApiKeyDocument.get_pymongo_collection().update_one({"_id": key_id, **lately}, {"$set": {"last_used_at": now}})


def _key(row: dict[str, Any] | None) -> ApiKey | None:
    if row is None:
        return None
    key: ApiKey = from_row(ApiKey, row)
    return key._replace(permissions=_permissions(row))


def _permissions(row: dict[str, Any]) -> tuple[Permission, ...]:
    return tuple(Permission(permission) for permission in row["permissions"])

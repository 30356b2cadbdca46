"""Queries on `user_limits`, besides those of records in general."""

from collections.abc import Sequence
from datetime import datetime

from bson.int64 import Int64
from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import UserLimitsDocument
from service.domain.user_limits import UserLimits, new_user_limits
from service.repositories.records import from_row, to_row


async def read_for_new_wallet(user_id: str, now: datetime, *, session: AsyncClientSession) -> UserLimits:
    """Returns what a new wallet copies from its owner, and bumps the document so that it conflicts with commands on all
    wallets.

    Makes the document where there is none.
    """
    fields = to_row(new_user_limits(user_id, now))
    name, _ = fields.pop("_id"), fields.pop("version")
    row = await UserLimitsDocument.get_pymongo_collection().find_one_and_update(
        {"_id": name},
        {"$inc": {"version": Int64(1)}, "$setOnInsert": fields},
        upsert=True,
        return_document=ReturnDocument.AFTER,
        session=session,
    )
    assert row is not None, "an upsert finds what it made"  # noqa: S101 MongoDB promises it
    noted: UserLimits = from_row(UserLimits, row)
    return noted


async def take_turn(ids: Sequence[str], *, session: AsyncClientSession) -> None:
    """Locks the documents for the rest of the transaction, as wallets.take_turn does with wallets."""
    await UserLimitsDocument.get_pymongo_collection().update_many(
        {"_id": {"$in": list(ids)}}, {"$inc": {"version": Int64(1)}}, session=session
    )

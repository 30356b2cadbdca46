"""Queries on `idempotency_keys`."""

from collections.abc import Sequence
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import IdempotencyKey
from service.domain.idempotency import IdempotencyRecord

# Above any batch limit: a second round trip for the rest would hold the snapshot open for longer.
_ONE_BATCH = 4096


async def find_named(ids: Sequence[str], *, session: AsyncClientSession) -> list[dict[str, Any]]:
    found = IdempotencyKey.get_pymongo_collection().find(
        {"_id": {"$in": list(ids)}},
        {"fingerprint": 1, "status_code": 1, "body": 1},
        session=session,
        batch_size=_ONE_BATCH,
    )
    return await found.to_list()


async def is_answered(claim_id: str) -> bool:
    """Tells whether the key has its answer, as far as anybody can tell outside a transaction."""
    return await IdempotencyKey.get_pymongo_collection().find_one({"_id": claim_id}, {"_id": 1}) is not None


async def insert_many(records: Sequence[IdempotencyRecord], *, session: AsyncClientSession) -> None:
    rows = []
    for record in records:
        row = record._asdict()
        row["_id"] = row.pop("id")
        rows.append(row)
    await IdempotencyKey.get_pymongo_collection().insert_many(rows, session=session)

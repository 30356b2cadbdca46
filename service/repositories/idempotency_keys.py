"""Queries on `idempotency_keys`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import IdempotencyKey

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


async def insert_many(rows: Sequence[dict[str, Any]], *, session: AsyncClientSession) -> None:
    await IdempotencyKey.get_pymongo_collection().insert_many(rows, session=session)


def to_row(
    record_id: str, fingerprint: str, status_code: int, body: bytes, created_at: datetime, expires_at: datetime
) -> dict[str, Any]:
    return {
        "_id": record_id,
        "fingerprint": fingerprint,
        "status_code": status_code,
        "body": body,
        "created_at": created_at,
        "expires_at": expires_at,
    }

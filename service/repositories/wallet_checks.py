"""Queries on `wallet_checks`."""

from collections.abc import Sequence

from pymongo import ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import WalletCheckDocument
from service.domain.replay import WalletCheck
from service.repositories.records import from_row, to_row


async def find_named(wallet_ids: Sequence[str], *, session: AsyncClientSession) -> dict[str, WalletCheck]:
    """By wallet. In the session of what they are held against: a check must not be newer than that."""
    found = WalletCheckDocument.get_pymongo_collection().find({"_id": {"$in": list(wallet_ids)}}, session=session)
    return {row["_id"]: from_row(WalletCheck, row | {"wallet_id": row["_id"]}) for row in await found.to_list()}


async def save_many(checks: Sequence[WalletCheck]) -> None:
    """Whoever is last is right as well: each says what was true when it was found."""
    if not checks:
        return
    changes = []
    for check in checks:
        row = to_row(check)
        row["_id"] = row.pop("wallet_id")
        changes.append(ReplaceOne({"_id": check.wallet_id}, row, upsert=True))
    await WalletCheckDocument.get_pymongo_collection().bulk_write(changes, ordered=False)

"""Queries on `house_positions`."""

from collections.abc import Iterable, Sequence
from typing import Any

from bson.int64 import Int64
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from service.documents import HousePosition, LedgerProcessDocument, ReturnDocument, WalletDocument, Withdrawal
from service.domain.house_positions import POOL, AccountCurrency, Portion, PortionUpdate
from service.domain.money import POINTS
from service.domain.operations import OperationStatus
from service.domain.returns import ReturnStatus, ReturnType

# Earlier releases called it `changes`, and had none in portions of processes.
_FLOOR_VERSION = {"$ifNull": ["$floor_version", "$changes", 0]}
_ENDED = [OperationStatus.SUCCESS, OperationStatus.FAILED, OperationStatus.CANCELED]


def _collection() -> AsyncCollection[dict[str, Any]]:
    return HousePosition.get_pymongo_collection()


def _from_row(row: dict[str, Any]) -> Portion:
    floor = row.get("floor")
    return Portion(
        row["account"],
        row["currency"],
        row["owner"],
        int(row["headroom"]),
        int(row["version"]),
        None if floor is None else int(floor),
        int(row.get("floor_version", row.get("changes", 0))),
    )


def _to_row(portion: Portion) -> dict[str, Any]:
    row: dict[str, Any] = {
        "_id": portion.id,
        "account": portion.account,
        "currency": portion.currency,
        "owner": portion.owner,
    }
    row |= {
        "headroom": Int64(portion.headroom),
        "version": Int64(portion.version),
        "floor_version": Int64(portion.floor_version),
    }
    if portion.owner == POOL:
        row["floor"] = None if portion.floor is None else Int64(portion.floor)
    return row


async def find_of(
    pairs: Iterable[AccountCurrency], *, session: AsyncClientSession
) -> dict[AccountCurrency, list[Portion]]:
    """Every portion of these accounts and currencies. One query."""
    wanted = [{"account": account, "currency": currency} for account, currency in pairs]
    found: dict[AccountCurrency, list[Portion]] = {(one["account"], one["currency"]): [] for one in wanted}
    rows = _collection().find({"$or": wanted}, session=session)
    for row in await rows.to_list():
        portion = _from_row(row)
        found[portion.pair].append(portion)
    return found


async def find_all(*, session: AsyncClientSession | None = None) -> list[Portion]:
    return [_from_row(row) async for row in _collection().find({}, session=session)]


async def find_pools(*, session: AsyncClientSession | None = None) -> list[Portion]:
    return [_from_row(row) async for row in _collection().find({"owner": POOL}, session=session)]


async def find_outdated() -> list[tuple[Portion, int]]:
    """Portions that are behind their pool's `floor_version`, each with that number. Pools are behind none."""
    stages: list[dict[str, Any]] = [
        {
            "$group": {
                "_id": {"account": "$account", "currency": "$currency"},
                "of_pool": {"$max": {"$cond": [{"$eq": ["$owner", POOL]}, _FLOOR_VERSION, 0]}},
                "rows": {"$push": {"row": "$$ROOT", "floor_version": _FLOOR_VERSION}},
            }
        },
        {"$unwind": "$rows"},
        {"$match": {"$expr": {"$lt": ["$rows.floor_version", "$of_pool"]}}},
    ]
    found = await _collection().aggregate(stages)
    return [(_from_row(one["rows"]["row"]), int(one["of_pool"])) async for one in found]


async def find_living(*, session: AsyncClientSession) -> set[str]:
    """The ids of the ledger processes that there are."""
    rows = LedgerProcessDocument.get_pymongo_collection().find({}, {"_id": 1}, session=session)
    return {row["_id"] for row in await rows.to_list()}


async def write_guarded(updates: Sequence[PortionUpdate], *, session: AsyncClientSession) -> bool:
    """Moves each portion from one version to the next, or says False where one was no longer as it was read."""
    if len(updates) == 1 and updates[0].before is not None and updates[0].after is not None:
        guard, change = _guarded(updates[0].before, updates[0].after)
        return (await _collection().update_one(guard, change, session=session)).matched_count == 1
    operations: list[InsertOne[dict[str, Any]] | UpdateOne | DeleteOne] = []
    expected = 0
    for portion_id, before, after in updates:
        if before is not None:
            expected += 1
            guard = {"_id": portion_id, "version": before.version}
            operations.append(DeleteOne(guard) if after is None else UpdateOne(*_guarded(before, after)))
        elif after is not None:
            operations.append(InsertOne(_to_row(after)))
    result = await _collection().bulk_write(operations, ordered=True, session=session)
    return result.matched_count + result.deleted_count == expected


def _guarded(before: Portion, after: Portion) -> tuple[dict[str, Any], dict[str, Any]]:
    change = {"headroom": Int64(after.headroom - before.headroom), "version": Int64(after.version - before.version)}
    return {"_id": before.id, "version": before.version}, {"$inc": change}


async def insert_pools(pools: Sequence[Portion], *, session: AsyncClientSession) -> None:
    await _collection().insert_many([_to_row(pool) for pool in pools], session=session)


async def change_pool(pool: Portion, floor: int | None, headroom_change: int, *, session: AsyncClientSession) -> bool:
    """States the floor and moves the pool's headroom, once: False where somebody has changed the pool since.

    Processes learn of it by `outdate`, since a transaction that wrote all their portions would hardly ever find them
    all free.
    """
    done = await _collection().update_one(
        {"_id": pool.id, "$expr": {"$eq": [_FLOOR_VERSION, pool.floor_version]}},
        {
            "$set": {
                "floor": None if floor is None else Int64(floor),
                "floor_version": Int64(pool.floor_version + 1),
            },
            "$unset": {"changes": ""},
            "$inc": {"headroom": Int64(headroom_change), "version": Int64(1)},
        },
        session=session,
    )
    return done.matched_count == 1


async def outdate(portion: Portion, floor_version: int) -> None:
    """Gives the portion a new version, so that its owner reads all portions again. Repeating it changes nothing.

    In no transaction, so that it waits for one that has just written the portion, instead of failing.
    """
    await _collection().update_one(
        {"_id": portion.id, "$expr": {"$lt": [_FLOOR_VERSION, floor_version]}},
        {"$set": {"floor_version": Int64(floor_version)}, "$inc": {"version": Int64(1)}},
    )


async def sum_reserved(*, session: AsyncClientSession) -> dict[str, int]:
    """What withdrawals have set aside that have not ended, by currency."""
    return await _sum(Withdrawal.get_pymongo_collection(), {"status": {"$nin": _ENDED}}, "$amount", session=session)


async def sum_owed(*, session: AsyncClientSession) -> dict[str, int]:
    """What wallets owe for returned deposits, by currency."""
    owing = {"owed": {"$gt": 0}, "currency": {"$ne": POINTS}}
    return await _sum(WalletDocument.get_pymongo_collection(), owing, "$owed", session=session)


async def sum_unbooked(*, session: AsyncClientSession) -> dict[str, int]:
    """What the bank has taken back by returns of deposits that wait for an admin, by currency."""
    waiting = {"status": ReturnStatus.REQUIRES_REVIEW, "type": ReturnType.DEPOSIT}
    return await _sum(ReturnDocument.get_pymongo_collection(), waiting, "$amount", session=session)


async def _sum(
    collection: AsyncCollection[dict[str, Any]], condition: dict[str, Any], field: str, *, session: AsyncClientSession
) -> dict[str, int]:
    # Decimals, because the sum of longs turns into a double, and so loses digits, where it leaves 64 bits.
    stages = [{"$match": condition}, {"$group": {"_id": "$currency", "sum": {"$sum": {"$toDecimal": field}}}}]
    found = await collection.aggregate(stages, session=session)
    return {row["_id"]: int(row["sum"].to_decimal()) async for row in found}

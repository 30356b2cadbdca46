"""Queries on `checkpoints` and `checkpoint_tiles`: inserts and reads, there is nothing else to do with them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from service.documents import CheckpointDocument, CheckpointTile
from service.domain.checkpoints import LISTS, Checkpoint, Leaf, Tile, TileName
from service.repositories.inserts import insert_missing

_HASH_BYTES = 32
_WITHOUT_TILES = {"tiles": 0, "audit_ids": 0}


def _from_row(row: dict[str, Any]) -> Checkpoint:
    for name in ("tiles", "audit_ids"):
        row.pop(name, None)
    # Those of the first version do not say so, and only from the third on they seal audit events.
    numbers = {"wallets": int(row["wallets"]), "version": int(row.get("version", LISTS))}
    if "audit_events" in row:
        numbers["audit_events"] = int(row["audit_events"])
    return Checkpoint(number=int(row.pop("_id")), **(row | numbers))


def _names_in(row: dict[str, Any]) -> list[TileName]:
    return [TileName(**name) for name in row["tiles"]]


async def insert(checkpoint: Checkpoint, tiles: Sequence[TileName], audit_ids: Sequence[str] = ()) -> bool:
    """False where another process has made the one with this number."""
    row = {name: value for name, value in checkpoint._asdict().items() if value is not None}
    row["_id"] = Int64(row.pop("number"))
    row |= {"wallets": Int64(checkpoint.wallets), "version": Int64(checkpoint.version)}
    if checkpoint.audit_events is not None:
        row |= {"audit_events": Int64(checkpoint.audit_events), "audit_ids": list(audit_ids)}
    row["tiles"] = [{key: value for key, value in name._asdict().items() if value is not None} for name in tiles]
    try:
        await CheckpointDocument.get_pymongo_collection().insert_one(row)
    except DuplicateKeyError:
        return False
    return True


async def find(number: int) -> Checkpoint | None:
    row = await CheckpointDocument.get_pymongo_collection().find_one({"_id": Int64(number)}, _WITHOUT_TILES)
    return None if row is None else _from_row(row)


async def find_latest() -> Checkpoint | None:
    row = await CheckpointDocument.get_pymongo_collection().find_one({}, _WITHOUT_TILES, sort=[("_id", -1)])
    return None if row is None else _from_row(row)


async def find_confirmed(*, after_number: int, limit: int) -> list[Checkpoint]:
    """In the order of their numbers, only those that a majority has: no failover can take one of them back."""
    collection = CheckpointDocument.get_pymongo_collection().with_options(read_concern=ReadConcern("majority"))
    found = collection.find({"_id": {"$gt": Int64(after_number)}}, _WITHOUT_TILES, sort=[("_id", 1)], limit=limit)
    return [_from_row(row) for row in await found.to_list()]


async def find_latest_with_tiles(*, session: AsyncClientSession) -> tuple[Checkpoint, list[TileName]] | None:
    row = await CheckpointDocument.get_pymongo_collection().find_one({}, sort=[("_id", -1)], session=session)
    return None if row is None else (_from_row(dict(row)), _names_in(row))


async def find_sealed_since(moment: datetime, *, session: AsyncClientSession) -> set[str]:
    """Which audit events the checkpoints seal that were taken at that time or later."""
    condition = {"created_at": {"$gte": moment}, "audit_ids": {"$exists": True}}
    found = CheckpointDocument.get_pymongo_collection().find(condition, {"audit_ids": 1}, session=session)
    return {event_id async for row in found for event_id in row["audit_ids"]}


async def find_with_tiles(number: int) -> tuple[Checkpoint, list[TileName]] | None:
    row = await CheckpointDocument.get_pymongo_collection().find_one({"_id": Int64(number)})
    return None if row is None else (_from_row(dict(row)), _names_in(row))


async def find_first_number_since(moment: datetime) -> int | None:
    """Of the first checkpoint taken at that time or later."""
    row = await CheckpointDocument.get_pymongo_collection().find_one(
        {"created_at": {"$gte": moment}}, {"_id": 1}, sort=[("created_at", 1), ("_id", 1)]
    )
    return None if row is None else int(row["_id"])


async def find_page(*, before_number: int | None, limit: int) -> list[Checkpoint]:
    """Newest first; `before_number` is the last one of the page before."""
    condition = {} if before_number is None else {"_id": {"$lt": Int64(before_number)}}
    found = CheckpointDocument.get_pymongo_collection().find(condition, _WITHOUT_TILES, sort=[("_id", -1)], limit=limit)
    return [_from_row(row) for row in await found.to_list()]


async def insert_missing_tiles(tiles: Sequence[Tile]) -> None:
    """A tile that is there already stays: what has its id has its content."""
    rows = [
        {
            "_id": tile.id,
            "wallet_ids": [leaf.wallet_id for leaf in tile.leaves],
            "seqs": [Int64(leaf.seq) for leaf in tile.leaves],
            "head_hashes": b"".join(bytes.fromhex(leaf.head_hash) for leaf in tile.leaves),
        }
        for tile in tiles
    ]
    await insert_missing(CheckpointTile, rows)


async def find_tile(tile_id: str) -> Tile | None:
    row = await CheckpointTile.get_pymongo_collection().find_one({"_id": tile_id})
    if row is None:
        return None
    heads = row["head_hashes"]
    columns = zip(row["wallet_ids"], row["seqs"], range(0, len(heads), _HASH_BYTES), strict=True)
    leaves = tuple(Leaf(wallet, int(seq), heads[at : at + _HASH_BYTES].hex()) for wallet, seq, at in columns)
    return Tile(tile_id, leaves)

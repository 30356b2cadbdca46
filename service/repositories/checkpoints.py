"""Queries on `checkpoints`, `checkpoint_tiles` and `refused_checkpoints`: inserts and reads only.

Whoever can write to the database can put a row into `checkpoints`. `find_unverified` gives every row as it is; other
reads leave out what the signer refused.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from bson.codec_options import DatetimeConversion
from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from service.documents import CheckpointDocument, CheckpointTile, RefusedCheckpoint
from service.domain.checkpoints import LISTS, Checkpoint, Leaf, Tile, TileName
from service.repositories.inserts import insert_missing

_HASH_BYTES = 32
_TILES = ("tiles", "audit_ids")
_WITHOUT_TILES = dict.fromkeys(_TILES, 0)
_LARGEST_NUMBER = 2**63 - 1
# Of the newest rows: at one an hour, a year's. A forged one has a number that is free, so it stands among them.
_COUNTED = 10_000
# What one insert takes.
_REFUSED_AT_ONCE = 500


class Row(NamedTuple):
    """A row of `checkpoints`, whoever wrote it. `number` is None where the id is no number that a checkpoint may have,
    and `checkpoint` where the row has not the shape of one.
    """

    id: Any
    number: int | None
    checkpoint: Checkpoint | None


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
    row = await _find_one_genuine({"_id": Int64(number)}, hides=_TILES)
    return None if row is None else _from_row(row)


async def find_latest() -> Checkpoint | None:
    row = await _find_one_genuine({}, hides=_TILES, sort={"_id": -1})
    return None if row is None else _from_row(row)


async def find_unverified(*, after_id: object, limit: int) -> list[Row]:
    """In the order of ids, only those that a majority has: no failover can take one of them back."""
    found = _unverified().find({"_id": {"$gt": after_id}}, _WITHOUT_TILES, sort=[("_id", 1)], limit=limit)
    return [_as_it_is(row) for row in await found.to_list()]


async def find_unverified_at(number: int) -> Row | None:
    """Finds the row with exactly that number; None where a majority has none."""
    row = await _unverified().find_one({"_id": Int64(number)}, _WITHOUT_TILES)
    return None if row is None else _as_it_is(row)


def _unverified() -> AsyncCollection[dict[str, Any]]:
    collection = CheckpointDocument.get_pymongo_collection()
    # BSON has times that Python has not: one row with such a time must not make all the others unreadable.
    options = collection.codec_options.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
    return collection.with_options(codec_options=options, read_concern=ReadConcern("majority"))


def _as_it_is(row: dict[str, Any]) -> Row:
    row_id = row["_id"]
    # Also a double or a decimal of the same value takes the number in the index.
    value = Decimal(str(row_id))
    is_number = value.is_finite() and value == value.to_integral_value() and 0 < value <= _LARGEST_NUMBER
    try:
        checkpoint = _from_row(dict(row))
    except (TypeError, ValueError, KeyError, ArithmeticError):
        checkpoint = None
    # A fraction would be cut off: a copy of checkpoint 7 under 7.5 is no second one with its signature.
    is_shaped = is_number and checkpoint is not None and _has_types(checkpoint)
    return Row(row_id, int(value) if is_number else None, checkpoint if is_shaped else None)


def _has_types(checkpoint: Checkpoint) -> bool:
    """Tells whether what is hashed and verified has the types of a checkpoint. Numbers were converted before."""
    texts = (checkpoint.root, checkpoint.prev_hash, checkpoint.key_id, checkpoint.signature)
    return (
        isinstance(checkpoint.created_at, datetime)
        and all(isinstance(text, str) for text in texts)
        and isinstance(checkpoint.audit_root, str | None)
    )


async def find_refused(numbers: Collection[int]) -> set[int]:
    """Finds which of the numbers the signer refused."""
    condition = {"_id": {"$in": [Int64(number) for number in numbers]}}
    found = RefusedCheckpoint.get_pymongo_collection().find(condition, {"_id": 1})
    return {int(row["_id"]) for row in await found.to_list()}


async def insert_refused(numbers: Mapping[int, str], now: datetime) -> set[int]:
    """Inserts each number with its reason. Returns those that were not known."""
    rows: list[dict[str, Any]] = [
        {"_id": Int64(number), "reason": reason, "refused_at": now} for number, reason in numbers.items()
    ]
    unknown: set[int] = set()
    for start in range(0, len(rows), _REFUSED_AT_ONCE):
        portion = rows[start : start + _REFUSED_AT_ONCE]
        are_new = await insert_missing(RefusedCheckpoint, portion)
        unknown |= {int(row["_id"]) for row, is_new in zip(portion, are_new, strict=True) if is_new}
    return unknown


async def count_refused() -> int:
    """Counts the refused rows that are still there, among the newest _COUNTED."""
    newest: list[dict[str, Any]] = [{"$sort": {"_id": -1}}, {"$limit": _COUNTED}, {"$project": {"_id": 1}}]
    kept: dict[str, Any] = {"$match": {"refused": {"$ne": []}}}
    counted = await CheckpointDocument.get_pymongo_collection().aggregate(
        [*newest, _WHETHER_REFUSED, kept, {"$count": "count"}]
    )
    rows = await counted.to_list()
    return int(rows[0]["count"]) if rows else 0


# For each row by itself: a list of all that are refused may be too long for a query.
_WHETHER_REFUSED: dict[str, Any] = {
    "$lookup": {"from": "refused_checkpoints", "localField": "_id", "foreignField": "_id", "as": "refused"}
}


async def _find_genuine(
    condition: dict[str, Any], *, limit: int, sort: dict[str, int] | None = None, hides: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Finds rows that the signer has not refused."""
    found = await CheckpointDocument.get_pymongo_collection().aggregate(
        [
            {"$match": {"$and": [condition, {"_id": {"$type": "long"}}]}},
            {"$sort": sort or {"_id": 1}},
            *([{"$unset": list(hides)}] if hides else []),
            _WHETHER_REFUSED,
            {"$match": {"refused": []}},
            {"$limit": limit},
            {"$unset": "refused"},
        ]
    )
    return await found.to_list()


async def _find_one_genuine(
    condition: dict[str, Any], *, sort: dict[str, int] | None = None, hides: Sequence[str] = ()
) -> dict[str, Any] | None:
    rows = await _find_genuine(condition, limit=1, sort=sort, hides=hides)
    return rows[0] if rows else None


async def find_named_with_tiles(
    number: int, *, session: AsyncClientSession
) -> tuple[Checkpoint, list[TileName]] | None:
    """For the signer, which has verified this one."""
    row = await CheckpointDocument.get_pymongo_collection().find_one({"_id": Int64(number)}, session=session)
    return None if row is None else (_from_row(dict(row)), _names_in(row))


async def stream_sealed_since(
    moment: datetime, event_id: str, *, last_number: int, refused: Collection[int], session: AsyncClientSession
) -> AsyncIterator[str]:
    """Streams, in order, the ids from `event_id` on of the audit events that checkpoints taken since then seal."""
    condition = {
        "_id": {"$lte": Int64(last_number), "$nin": [Int64(one) for one in refused if one <= last_number]},
        "created_at": {"$gte": moment},
        "audit_ids": {"$exists": True},
    }
    cursor = await CheckpointDocument.get_pymongo_collection().aggregate(
        [
            {"$match": condition},
            {"$project": {"_id": 0, "audit_ids": 1}},
            {"$unwind": "$audit_ids"},
            {"$match": {"audit_ids": {"$gte": event_id}}},
            {"$sort": {"audit_ids": 1}},
        ],
        session=session,
        allowDiskUse=True,
    )
    async with cursor:
        async for row in cursor:
            yield row["audit_ids"]


async def find_with_tiles(number: int) -> tuple[Checkpoint, list[TileName]] | None:
    row = await _find_one_genuine({"_id": Int64(number)})
    return None if row is None else (_from_row(dict(row)), _names_in(row))


async def find_first_number_since(moment: datetime) -> int | None:
    """Of the first checkpoint taken at that time or later."""
    condition, sort = {"created_at": {"$gte": moment}}, {"created_at": 1, "_id": 1}
    row = await _find_one_genuine(condition, sort=sort, hides=_TILES)
    return None if row is None else int(row["_id"])


async def find_page(*, before_number: int | None, limit: int) -> list[Checkpoint]:
    """Newest first; `before_number` is the last one of the page before."""
    older = {} if before_number is None else {"_id": {"$lt": Int64(before_number)}}
    rows = await _find_genuine(older, limit=limit, sort={"_id": -1}, hides=_TILES)
    return [_from_row(row) for row in rows]


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

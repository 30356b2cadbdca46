"""Queries on `wallets`."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import WalletDocument
from service.domain.checkpoints import Leaf
from service.domain.wallets import Wallet
from service.repositories.records import from_row, to_row


def _from_row(row: dict[str, Any]) -> Wallet:
    wallet: Wallet = from_row(Wallet, row)
    return wallet


async def insert(wallet: Wallet, *, session: AsyncClientSession) -> None:
    await WalletDocument.get_pymongo_collection().insert_one(to_row(wallet), session=session)


async def insert_many(wallets: Sequence[Wallet], *, session: AsyncClientSession) -> None:
    await WalletDocument.get_pymongo_collection().insert_many([to_row(w) for w in wallets], session=session)


async def find_named(
    wallet_ids: Sequence[str],
    owners: Iterable[tuple[str, str]],
    all_of: Sequence[str] = (),
    *,
    session: AsyncClientSession,
) -> dict[str, Wallet]:
    """Finds the wallets named by id or by (user id, currency), and all of the users in `all_of`, by id. One query."""
    condition = _named(wallet_ids, owners, all_of)
    found = WalletDocument.get_pymongo_collection().find(condition, session=session, batch_size=_ONE_BATCH)
    return {row["_id"]: _from_row(row) for row in await found.to_list()}


async def take_turn(
    wallet_ids: Sequence[str],
    owners: Iterable[tuple[str, str]],
    all_of: Sequence[str] = (),
    *,
    session: AsyncClientSession,
) -> None:
    """Locks the wallets for the rest of the transaction, or loses to whoever has one of them at this moment.

    What is read afterwards cannot be changed by anybody else before the commit. It has to change something, or MongoDB
    would take it for nothing: `turns` counts how often a turn was taken.
    """
    await WalletDocument.get_pymongo_collection().update_many(
        _named(wallet_ids, owners, all_of), {"$inc": {"turns": Int64(1)}}, session=session
    )


async def find_owners(
    wallet_ids: Sequence[str],
    owners: Iterable[tuple[str, str]],
    all_of: Sequence[str] = (),
    *,
    only_marked: bool,
    session: AsyncClientSession,
) -> set[str]:
    """Returns the ids of the wallets' owners; with `only_marked` of wallets that read their owner's counters."""
    condition = _named(wallet_ids, owners, all_of) | ({"counts_for_owner": True} if only_marked else {})
    found = WalletDocument.get_pymongo_collection().find(condition, {"user_id": 1}, session=session)
    return {row["user_id"] async for row in found}


def _named(wallet_ids: Sequence[str], owners: Iterable[tuple[str, str]], all_of: Sequence[str]) -> dict[str, Any]:
    users = sorted({user_id for user_id, _ in owners})
    currencies = sorted({currency for _, currency in owners})
    by_id = {"_id": {"$in": list(wallet_ids)}}
    # A product of users and currencies may bring a few wallets too many; that is cheaper than a clause for each.
    by_owner = {"user_id": {"$in": users}, "currency": {"$in": currencies}}
    if all_of:
        return {"$or": [by_id, by_owner, {"user_id": {"$in": list(all_of)}}]}
    if wallet_ids and users:
        return {"$or": [by_id, by_owner]}
    return by_id if wallet_ids else by_owner


# Above any batch limit: a second round trip for the rest would hold the snapshot open for longer.
_ONE_BATCH = 4096


async def update_guarded(changes: Sequence[tuple[Wallet, Wallet]], *, session: AsyncClientSession) -> bool:
    """Moves each wallet from one state to the next, or says False where one was no longer in the state given.

    Plain `$inc` keeps 64-bit integers exact; `seq` pins the very state that was decided on, and the
    balance's own condition holds even if everything above it were wrong.
    """
    result = await WalletDocument.get_pymongo_collection().bulk_write(
        [_guarded_update(before, after) for before, after in changes], ordered=True, session=session
    )
    return result.matched_count == len(changes)


def _guarded_update(before: Wallet, after: Wallet) -> UpdateOne:
    available_delta = after.available - before.available
    held_delta = after.held - before.held
    changed: dict[str, Any] = {"updated_at": after.updated_at}
    if after.seq != before.seq:
        changed["head_hash"] = after.head_hash
    if after.usage != before.usage:
        changed["usage"] = to_row(after.usage)
    if (after.status, after.freeze, after.limits) != (before.status, before.freeze, before.limits):
        limits = None if after.limits is None else to_row(after.limits)
        changed |= {"status": after.status, "freeze": after.freeze, "limits": limits}
    pinned: dict[str, Any] = {}
    if before.owed or after.owed:
        changed |= {"owed": Int64(after.owed), "debts": list(after.debts)}
        # Wallets of earlier releases lack the field.
        pinned["owed"] = before.owed or {"$in": [0, None]}
    if after.freeze_event_id != before.freeze_event_id:
        changed["freeze_event_id"] = after.freeze_event_id
    if after.time_zone != before.time_zone:
        changed["time_zone"] = after.time_zone
    if after.owner_time_zone != before.owner_time_zone:
        changed["owner_time_zone"] = after.owner_time_zone
    if after.counts_for_owner != before.counts_for_owner:
        changed["counts_for_owner"] = after.counts_for_owner
    return UpdateOne(
        {
            "_id": before.id,
            "seq": before.seq,
            "status": before.status,
            "available": {"$gte": max(0, -available_delta)},
            "held": {"$gte": max(0, -held_delta)},
            **pinned,
        },
        {
            "$inc": {
                "available": Int64(available_delta),
                "held": Int64(held_delta),
                "seq": Int64(after.seq - before.seq),
                "open_operations": Int64(after.open_operations - before.open_operations),
                # Wallets of before there were events have none: theirs begins with the first one.
                "event_sequence": Int64(after.event_sequence - before.event_sequence),
            },
            "$set": changed,
        },
    )


async def find_in_currency(user_id: str, currency: str) -> Wallet | None:
    row = await WalletDocument.get_pymongo_collection().find_one({"user_id": user_id, "currency": currency})
    return None if row is None else _from_row(row)


async def find_of_user(user_id: str, *, before_id: str | None, limit: int) -> list[Wallet]:
    """Finds a user's wallets, newest first; `before_id` is the last one of the page before."""
    condition: dict[str, Any] = {"user_id": user_id}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = WalletDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [_from_row(row) for row in await found.to_list()]


async def stream_heads(*, session: AsyncClientSession) -> AsyncIterator[Leaf]:
    """Streams the end of every wallet's chain, in the order of their ids."""
    found = WalletDocument.get_pymongo_collection().find(
        {}, {"seq": 1, "head_hash": 1}, sort=[("_id", 1)], session=session, batch_size=_ONE_BATCH
    )
    async with found:
        async for row in found:
            yield Leaf(row["_id"], int(row["seq"]), row["head_hash"])


async def find(wallet_id: str) -> Wallet | None:
    """Whoever's it is: for those who may see all."""
    row = await WalletDocument.get_pymongo_collection().find_one({"_id": wallet_id})
    return None if row is None else _from_row(row)


async def find_owned(wallet_id: str, user_id: str) -> Wallet | None:
    row = await WalletDocument.get_pymongo_collection().find_one({"_id": wallet_id, "user_id": user_id})
    return None if row is None else _from_row(row)


async def event_sequences(user_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """The number of the latest event of each wallet, by user and wallet; from the index on owners, one query."""
    rows = WalletDocument.get_pymongo_collection().find(
        {"user_id": {"$in": list(user_ids)}}, {"user_id": 1, "event_sequence": 1}, batch_size=_ONE_BATCH
    )
    latest: dict[str, dict[str, int]] = {}
    for row in await rows.to_list():
        latest.setdefault(row["user_id"], {})[row["_id"]] = int(row.get("event_sequence", 0))
    return latest


async def estimate_count() -> int:
    """About how many there are, from the server's own book-keeping."""
    return await WalletDocument.get_pymongo_collection().estimated_document_count()


class WalletTotal(NamedTuple):
    """What all wallets in one currency hold, in minor units: more than 64 bits hold, where it comes to that."""

    currency: str
    available: int
    held: int
    wallets: int


async def total_by_currency(*, session: AsyncClientSession, limit_s: float) -> list[WalletTotal]:
    """Reads every wallet: 0.2 s for 100,000. What takes longer than `limit_s` is ended by the server."""
    # Decimals, because the sum of longs turns into a double, and so loses digits, where it leaves 64 bits.
    totals = await WalletDocument.get_pymongo_collection().aggregate(
        [
            {
                "$group": {
                    "_id": "$currency",
                    "available": {"$sum": {"$toDecimal": "$available"}},
                    "held": {"$sum": {"$toDecimal": "$held"}},
                    "wallets": {"$sum": 1},
                }
            }
        ],
        session=session,
        maxTimeMS=int(limit_s * 1000),
    )
    return [
        WalletTotal(row["_id"], int(row["available"].to_decimal()), int(row["held"].to_decimal()), row["wallets"])
        async for row in totals
    ]


async def find_in(user_id: str, currency: str) -> Wallet | None:
    """A user has one wallet in a currency at most."""
    row = await WalletDocument.get_pymongo_collection().find_one({"user_id": user_id, "currency": currency})
    return None if row is None else _from_row(row)

"""What a replay reads: wallets as they stand, their entries, and what has become of operations; all in one session."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import TransactionLog, WalletDocument
from service.domain.entries import Entry
from service.domain.history import BalancePoint
from service.domain.replay import UNREADABLE, WalletHead, Window
from service.repositories.records import HOMES
from service.repositories.transaction_logs import entry_from_row

_INDEX = "wallet_seq"
# One round trip for as much as a slice may have.
_ONE_BATCH = 8192
# Each is a range of its own in the index; the server plans for all of them at once.
_WINDOWS_AT_ONCE = 100
_LIMIT_MS = 30_000


async def find_heads(after_id: str, limit: int, *, session: AsyncClientSession) -> list[WalletHead]:
    """Wallets in the order of their ids. Damage may have left anything in them, so nothing is taken for granted."""
    found = WalletDocument.get_pymongo_collection().find(
        {"_id": {"$gt": after_id}},
        {"available": 1, "held": 1, "seq": 1, "head_hash": 1},
        sort=[("_id", 1)],
        limit=limit,
        session=session,
        batch_size=_ONE_BATCH,
        max_time_ms=_LIMIT_MS,
    )
    return [
        WalletHead(
            row["_id"],
            _whole(row.get("available")),
            _whole(row.get("held")),
            _whole(row.get("seq")),
            str(row.get("head_hash")),
        )
        for row in await found.to_list()
    ]


def _whole(value: Any) -> int:  # noqa: ANN401 whatever stands there
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else UNREADABLE


async def find_last_points(
    after_id: str, through_id: str | None, *, session: AsyncClientSession
) -> dict[str, BalancePoint]:
    """Where the chain of each wallet in that range ends, by wallet: of wallets that are not there too.

    The server takes one step in the index for each wallet (DISTINCT_SCAN), however many entries it has.
    """
    within = {"$gt": after_id} | ({} if through_id is None else {"$lte": through_id})
    fields = {"seq": "$seq", "available": "$available_after", "held": "$held_after", "hash": "$hash"}
    found = await TransactionLog.get_pymongo_collection().aggregate(
        [
            {"$match": {"wallet_id": within}},
            {"$sort": {"wallet_id": 1, "seq": -1}},
            {"$group": {"_id": "$wallet_id", **{name: {"$first": field} for name, field in fields.items()}}},
        ],
        hint=_INDEX,
        session=session,
        batchSize=_ONE_BATCH,
        maxTimeMS=_LIMIT_MS,
    )
    return {
        str(row["_id"]): BalancePoint(
            _whole(row.get("seq")), _whole(row.get("available")), _whole(row.get("held")), str(row.get("hash"))
        )
        async for row in found
    }


async def find_entries(windows: Sequence[Window], *, session: AsyncClientSession) -> dict[str, list[Entry | None]]:
    """Finds the entries of each window, oldest first; None stands for one that cannot be read."""
    entries: dict[str, list[tuple[int, Entry | None]]] = defaultdict(list)
    for at in range(0, len(windows), _WINDOWS_AT_ONCE):
        ranges = [
            {"wallet_id": one.wallet_id, "seq": {"$gt": Int64(one.start.seq), "$lte": Int64(one.end)}}
            for one in windows[at : at + _WINDOWS_AT_ONCE]
        ]
        found = TransactionLog.get_pymongo_collection().find(
            {"$or": ranges}, hint=_INDEX, session=session, batch_size=_ONE_BATCH, max_time_ms=_LIMIT_MS
        )
        async for row in found:
            entries[row["wallet_id"]].append((row["seq"], _entry_or_none(row)))
    return {wallet_id: [entry for _, entry in sorted(of_one, key=_number)] for wallet_id, of_one in entries.items()}


def _number(pair: tuple[int, Entry | None]) -> int:
    return pair[0]


def _entry_or_none(row: dict[str, Any]) -> Entry | None:
    try:
        return entry_from_row(row)
    except (KeyError, TypeError, ValueError):
        return None


async def find_statuses(references: Iterable[str], *, session: AsyncClientSession) -> dict[str, str]:
    """Of deposits, withdrawals and the like: one query for each kind. What is not there is left out."""
    by_prefix: dict[str, list[str]] = defaultdict(list)
    for reference in references:
        by_prefix[reference.partition("_")[0]].append(reference)
    statuses: dict[str, str] = {}
    for prefix, ids in sorted(by_prefix.items()):
        rows = (
            HOMES[prefix]
            .document.get_pymongo_collection()
            .find({"_id": {"$in": ids}}, {"status": 1}, session=session, batch_size=_ONE_BATCH, max_time_ms=_LIMIT_MS)
        )
        statuses |= {row["_id"]: str(row.get("status")) for row in await rows.to_list()}
    return statuses

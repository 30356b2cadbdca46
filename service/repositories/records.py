"""Queries on records: deposits, withdrawals, transfers and the like, each kind in a collection of its own."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache, partial
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from beanie import Document
from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from service.documents import (
    AdjustmentDocument,
    AuditEventDocument,
    ConversionDocument,
    DaySumDocument,
    Deposit,
    HoldDocument,
    IncidentDocument,
    QuoteDocument,
    RedemptionDocument,
    ReturnDocument,
    ReversalDocument,
    RewardDocument,
    TransferDocument,
    UserLimitsDocument,
    VoucherDocument,
    VoucherUseDocument,
    Withdrawal,
)
from service.domain.adjustments import Adjustment
from service.domain.audit_events import AuditEvent
from service.domain.conversions import Conversion
from service.domain.day_sums import DaySum
from service.domain.holds import Hold, HoldStatus
from service.domain.identifiers import Prefix
from service.domain.incidents import Incident
from service.domain.operations import Operation, OperationType
from service.domain.quotes import Quote
from service.domain.records import Marked, Record, RecordUpdate
from service.domain.returns import Return, ReturnStatus, ReturnType
from service.domain.reversals import Reversal
from service.domain.rewards import Reward
from service.domain.transfers import Transfer
from service.domain.user_limits import UserLimits
from service.domain.vouchers import Redemption, Voucher, VoucherUse
from service.repositories.gathering import Gathered
from service.repositories.inserts import insert_in_slices

_Kind = TypeVar("_Kind", bound=Record)

# Above any batch limit: a second round trip for the rest would hold the snapshot open for longer.
_ONE_BATCH = 4096


class Home(NamedTuple):
    """Where a kind of record lives, and as what it comes back."""

    document: type[Document]
    record: type[Any]


HOMES: dict[str, Home] = {
    Prefix.DEPOSIT: Home(Deposit, Operation),
    Prefix.WITHDRAWAL: Home(Withdrawal, Operation),
    Prefix.TRANSFER: Home(TransferDocument, Transfer),
    Prefix.QUOTE: Home(QuoteDocument, Quote),
    Prefix.CONVERSION: Home(ConversionDocument, Conversion),
    Prefix.HOLD: Home(HoldDocument, Hold),
    Prefix.AUDIT_EVENT: Home(AuditEventDocument, AuditEvent),
    Prefix.ADJUSTMENT: Home(AdjustmentDocument, Adjustment),
    Prefix.REVERSAL: Home(ReversalDocument, Reversal),
    Prefix.REWARD: Home(RewardDocument, Reward),
    Prefix.VOUCHER: Home(VoucherDocument, Voucher),
    Prefix.VOUCHER_USE: Home(VoucherUseDocument, VoucherUse),
    Prefix.REDEMPTION: Home(RedemptionDocument, Redemption),
    Prefix.RETURN: Home(ReturnDocument, Return),
    Prefix.INCIDENT: Home(IncidentDocument, Incident),
    Prefix.USER_LIMITS: Home(UserLimitsDocument, UserLimits),
    Prefix.DAY_SUM: Home(DaySumDocument, DaySum),
}
OPERATION_PREFIXES = {OperationType.DEPOSIT: Prefix.DEPOSIT, OperationType.WITHDRAWAL: Prefix.WITHDRAWAL}


class RecordFilter(NamedTuple):
    """What a list is narrowed to; times are from (inclusive) and to (exclusive)."""

    status: str | None = None
    currency: str | None = None
    category: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


def home_of(record_id: str) -> Home | None:
    """None for an id that no kind of record has."""
    return HOMES.get(record_id.partition("_")[0])


def _collection(prefix: str) -> AsyncCollection[dict[str, Any]]:
    return HOMES[prefix].document.get_pymongo_collection()


def to_row(record: Any) -> dict[str, Any]:  # noqa: ANN401 any NamedTuple, of which there is no type
    """As BSON has it: `_id`, 64-bit integers, documents in documents."""
    row = {name: _to_bson(value) for name, value in record._asdict().items()}
    if "id" in row:
        row["_id"] = row.pop("id")
    return row


def _to_bson(value: Any) -> Any:  # noqa: ANN401 whatever a record holds
    if type(value) is int:
        return Int64(value)
    if isinstance(value, tuple):
        return to_row(value) if hasattr(value, "_asdict") else [_to_bson(one) for one in value]
    return value


def from_row(record: Any, row: dict[str, Any]) -> Any:  # noqa: ANN401 `record` is a NamedTuple class, and this an instance of it
    """The other way; fields that an older row lacks get their defaults, and those of a newer one are passed over."""
    if "_id" in row:
        row["id"] = row.pop("_id")
    for unknown in row.keys() - record._fields:
        del row[unknown]
    for name, read in _readers(record).items():
        value = row.get(name)
        if value is not None:
            row[name] = read(value)
    return record(**row)


@cache
def _readers(record: Any) -> dict[str, Callable[[Any], Any]]:  # noqa: ANN401 as above
    """Returns what has to be done with fields that BSON has no type for."""
    readers: dict[str, Callable[[Any], Any]] = {}
    for name, hint in get_type_hints(record).items():
        # Of `X | None` the X.
        kind = get_args(hint)[0] if NoneType in get_args(hint) else hint
        if kind is int or (isinstance(kind, type) and issubclass(kind, StrEnum)):
            readers[name] = kind
        elif isinstance(kind, type) and issubclass(kind, tuple):
            readers[name] = partial(from_row, kind)
        elif get_origin(kind) is tuple and get_args(kind)[0] in (str, bytes):
            readers[name] = tuple
        elif get_origin(kind) is tuple:
            readers[name] = partial(_from_list, get_args(kind)[0])
    return readers


def _from_list(record: Any, rows: list[dict[str, Any]]) -> tuple[Any, ...]:  # noqa: ANN401 as above
    return tuple(from_row(record, row) for row in rows)


async def insert_many(records: Iterable[Record], *, session: AsyncClientSession) -> None:
    for prefix, group in _by_prefix(records, lambda record: record.id).items():
        await insert_in_slices(_collection(prefix), group, to_row, session=session)


async def update_guarded(updates: Iterable[RecordUpdate], *, session: AsyncClientSession) -> bool:
    """Compare-and-set on `version`; False where one had moved on already."""
    for prefix, group in _by_prefix(updates, lambda update: update.before.id).items():
        result = await _collection(prefix).bulk_write([_guarded(u) for u in group], ordered=True, session=session)
        if result.matched_count != len(group):
            return False
    return True


def _guarded(update: RecordUpdate) -> UpdateOne:
    before, after = to_row(update.before), to_row(update.after)
    changed = {name: value for name, value in after.items() if value != before[name]}
    changed["version"] = Int64(before["version"] + 1)
    return UpdateOne({"_id": before["_id"], "version": before["version"]}, {"$set": changed})


async def find_named(record_ids: Iterable[str], *, session: AsyncClientSession | None) -> dict[str, Record]:
    """Of any kinds, by id: one query for each kind. Ids of no kind, or of nothing, are left out."""
    rows = _rows_named(record_ids, session=session)
    return {row["_id"]: from_row(home.record, row) async for home, row in rows}


async def find_marked(prefix: str, key_hashes: Sequence[str], *, session: AsyncClientSession) -> list[Marked]:
    """Of one kind, what was made under these keys; from the index on them."""
    condition = {"tombstone.key_hashes": {"$in": list(key_hashes)}}
    rows = _collection(prefix).find(condition, session=session, batch_size=_ONE_BATCH)
    return [from_row(HOMES[prefix].record, row) for row in await rows.to_list()]


async def _rows_named(
    record_ids: Iterable[str], *, session: AsyncClientSession | None
) -> AsyncIterator[tuple[Home, dict[str, Any]]]:
    for prefix, ids in _by_prefix(record_ids, lambda record_id: record_id).items():
        home = HOMES.get(prefix)
        if home is not None:
            rows = _collection(prefix).find({"_id": {"$in": ids}}, session=session, batch_size=_ONE_BATCH)
            for row in await rows.to_list():
                yield home, row


async def find(record_id: str, kind: type[_Kind]) -> _Kind | None:
    return await _find_one(record_id, kind, {})


async def find_soon(record_id: str, kind: type[_Kind]) -> _Kind | None:
    """As `find`, together with whoever else asks at this moment: for those who come in crowds."""
    found = await _find_gathered(record_id)
    return found if isinstance(found, kind) else None


async def _find_each(record_ids: Sequence[str]) -> list[Record | Exception | None]:
    """One that cannot be read is the trouble of those who ask for it."""
    found: dict[str, Record | Exception] = {}
    async for home, row in _rows_named(set(record_ids), session=None):
        record_id = row["_id"]
        try:
            found[record_id] = from_row(home.record, row)
        except Exception as error:  # noqa: BLE001 whatever a row of another release makes it stumble over
            found[record_id] = error
    return [found.get(record_id) for record_id in record_ids]


_find_gathered = Gathered(_find_each)


async def find_owned(record_id: str, kind: type[_Kind], user_id: str) -> _Kind | None:
    return await _find_one(record_id, kind, {"user_id": user_id})


async def find_shared(record_id: str, kind: type[_Kind], user_id: str) -> _Kind | None:
    """For records with two sides: one of which the user is."""
    return await _find_one(record_id, kind, {"$or": [{"user_id": user_id}, {"to_user_id": user_id}]})


async def _find_one(record_id: str, kind: type[_Kind], condition: dict[str, Any]) -> _Kind | None:
    home = home_of(record_id)
    if home is None or home.record is not kind:
        return None
    row = await home.document.get_pymongo_collection().find_one({"_id": record_id, **condition})
    if row is None:
        return None
    found: _Kind = from_row(kind, row)
    return found


async def find_many(record_ids: Sequence[str], kind: type[_Kind]) -> list[_Kind]:
    """Finds all of one kind, which the ids' prefix tells."""
    if not record_ids:
        return []
    prefix = record_ids[0].partition("_")[0]
    rows = _collection(prefix).find({"_id": {"$in": list(record_ids)}}, batch_size=_ONE_BATCH)
    return [from_row(kind, row) for row in await rows.to_list()]


async def find_newest(
    prefix: Prefix, kind: type[_Kind], status: str | None, *, before_id: str | None, limit: int
) -> list[_Kind]:
    """Everybody's of one kind, newest first; `before_id` is the last one of the page before."""
    condition: dict[str, Any] = {} if status is None else {"status": status}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = _collection(prefix).find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(kind, row) for row in await found.to_list()]


async def find_return_that_waits(wallet_id: str, *, but: Iterable[str], session: AsyncClientSession) -> Return | None:
    """Any return that waits to take from the wallet, `but` none of these; from an index on those that wait."""
    named = {record_id for record_id in but if record_id.startswith(f"{Prefix.RETURN}_")}
    wanted = {"wallet_id": wallet_id, "status": ReturnStatus.REQUIRES_REVIEW, "type": {"$in": _TAKING}}
    # Passed over here: by a condition on `_id` the planner might walk along all ids.
    rows = await _collection(Prefix.RETURN).find(wanted, limit=len(named) + 1, session=session).to_list()
    return next((from_row(Return, row) for row in rows if row["_id"] not in named), None)


# Returns of these types take from a wallet.
_TAKING = [kind for kind in ReturnType if kind is not ReturnType.WITHDRAWAL]


async def find_open_holds(user_id: str, wallet_id: str, *, limit: int) -> list[tuple[str, str | None]]:
    """The holds that a wallet pays and that have not ended, newest first: their ids, and the recipients' wallets."""
    rows = _collection(Prefix.HOLD).find(
        {"user_id": user_id, "wallet_id": wallet_id, "status": HoldStatus.HELD},
        {"_id": 1, "to_wallet_id": 1},
        sort=[("_id", -1)],
        limit=limit,
    )
    return [(row["_id"], row.get("to_wallet_id")) for row in await rows.to_list()]


async def find_of_user(
    prefix: Prefix,
    kind: type[_Kind],
    user_id: str,
    wanted: RecordFilter,
    *,
    before_id: str | None,
    limit: int,
    is_recipient: bool = False,
) -> list[_Kind]:
    """Finds a user's records of one kind, newest first; `before_id` is the last one of the page before.

    `is_recipient`: those that somebody else made for the user; such kinds have an index for it.
    """
    equal = {"status": wanted.status, "currency": wanted.currency, "category": wanted.category}
    times = {"$gte": wanted.created_from, "$lt": wanted.created_to}
    condition: dict[str, Any] = {"to_user_id" if is_recipient else "user_id": user_id}
    condition |= {name: value for name, value in equal.items() if value is not None}
    time_range = {operator: moment for operator, moment in times.items() if moment is not None}
    if time_range:
        condition["created_at"] = time_range
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = _collection(prefix).find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(kind, row) for row in await found.to_list()]


_Item = TypeVar("_Item")


def _by_prefix(items: Iterable[_Item], id_of: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    """Kinds in sorted order, so that two batches never wait in a circle."""
    groups: dict[str, list[_Item]] = defaultdict(list)
    for item in items:
        groups[id_of(item).partition("_")[0]].append(item)
    return {prefix: groups[prefix] for prefix in sorted(groups)}
